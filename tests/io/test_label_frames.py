"""Frames from label images, and the stack whose numbers persist."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import builders
import numpy as np
import pytest
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.cells.tracks import Tracks
from cellseg.errors import ImageReadError, LabelError
from cellseg.io import label_frames
from cellseg.io.label_frames import (
    LabelFrames,
    draw_with_numbers,
    find_label_planes,
    labels_of,
    write_label_stack,
)
from time_lapse_scenes import HW, records, squares, write_stack

FRAMES = records([squares((10, 10), (40, 10)), squares((40, 12)), squares((12, 10), (41, 12))])
TRACKS = Tracks.from_links([2, 1, 2], [(0, 1, 1, 0), (1, 0, 2, 1), (0, 0, 2, 0)])


def test_files_and_pages_are_frames(tmp_path: Path) -> None:
    first = np.zeros((6, 7), np.uint16)
    first[1, 1:3], first[4, 4] = 9, 300
    images = [first, np.zeros_like(first), np.rot90(first, 2)]
    stack = write_stack(tmp_path / "a.tif", images)
    single = builders.write_png(tmp_path / "b.png", first)
    planes = [*find_label_planes(stack), *find_label_planes(single)]
    assert [plane.image_id for plane in planes] == ["a_t0", "a_t1", "a_t2", "b"]
    assert planes[1].place.position == (("T", 1),)
    frames = LabelFrames(planes)
    assert len(frames) == 4
    for _ in range(2):  # they can be gone through again
        found = list(frames)
        assert [labels_of(one).tolist() for one in found] == [[9, 300], [], [9, 300], [9, 300]]
        for record, image in zip(found, [*images, first]):
            expected = CellInstances.from_label_image(image)
            assert record.cells.equals(expected)
            assert record.image_hw == (6, 7)


def test_frames_in_any_order(tmp_path: Path) -> None:
    images = [np.full((2, 2), number, np.uint8) for number in (1, 2, 3)]
    planes = find_label_planes(write_stack(tmp_path / "a.tif", images))
    found = [int(labels_of(record)[0]) for record in LabelFrames(planes[::-1])]
    assert found == [3, 2, 1]


def test_labels_of_cells_that_are_no_label_image() -> None:
    assert labels_of(FRAMES[0]).tolist() == [1, 2]


def test_pages_that_are_no_labels(tmp_path: Path) -> None:
    stack = write_stack(tmp_path / "a.tif", [np.full((2, 2), 0.5, np.float32)] * 2)
    with pytest.raises(ImageReadError, match=r"a.tif: .* whole numbers; found float32 with 0.5"):
        list(LabelFrames(find_label_planes(stack)))
    with pytest.raises(ImageReadError, match=r"nothing.tif"):
        find_label_planes(tmp_path / "nothing.tif")


def test_numbers_persist_in_the_stack(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a_tracks.tif"
    write_label_stack(path, FRAMES, TRACKS)
    with tifffile.TiffFile(path) as file:
        assert (file.series[0].axes, file.is_imagej) == ("TYX", True)
        stack = file.asarray()
    assert stack.dtype == np.uint16
    assert stack.shape == (3, *HW)
    for image, (record, ids) in zip(stack, TRACKS.along(FRAMES)):
        expected = np.zeros(HW, int)
        for mask, number in zip(record.cells.to_bitmaps(), ids):
            expected[mask] = number
        np.testing.assert_array_equal(image, expected)


def test_the_stack_is_read_as_frames_again(tmp_path: Path) -> None:
    write_label_stack(tmp_path / "a.tif", FRAMES, TRACKS)
    found = list(LabelFrames(find_label_planes(tmp_path / "a.tif")))
    assert [labels_of(record).tolist() for record in found] == [[1, 2], [2], [1, 2]]
    assert all(one.cells.equals(other.cells) for one, other in zip(found, FRAMES))


def test_one_frame_without_cells(tmp_path: Path) -> None:
    frames = records([CellInstances.empty(HW)])
    write_label_stack(tmp_path / "a.tif", frames, Tracks.from_links([0], []))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.asarray().shape in ((1, *HW), HW)
        assert not file.asarray().any()


def test_the_size_of_pixels_is_written(tmp_path: Path) -> None:
    frames = records([record.cells for record in FRAMES], pixel_size_um=(0.5, 0.25))
    write_label_stack(tmp_path / "a.tif", frames, TRACKS)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags
        assert file.imagej_metadata["unit"] == "micron"
        assert file.imagej_metadata["max"] == 2
        assert [tags[f"{axis}Resolution"].value for axis in "XY"] == [(4, 1), (2, 1)]


def test_many_tracks_and_large_stacks_are_ome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = builders.labels_beyond_uint16()
    cells = CellInstances.from_label_image(labels)
    frames = records([cells, cells], pixel_size_um=(0.5, 0.25))
    links = [(0, k, 1, k) for k in range(len(cells))]
    write_label_stack(tmp_path / "a.tif", frames, Tracks.from_links([len(cells)] * 2, links))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert (file.series[0].axes, file.is_ome) == ("TYX", True)
        assert 'PhysicalSizeX="0.25"' in file.ome_metadata
        np.testing.assert_array_equal(file.asarray(), np.array([labels, labels]))
    monkeypatch.setattr(label_frames, "TIFF_LIMIT", 3 * HW[0] * HW[1] * 2)
    write_label_stack(tmp_path / "b.tif", FRAMES, TRACKS)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert (file.series[0].axes, file.is_ome, file.is_bigtiff) == ("TYX", True, True)


class InPieces(ImageRecord):
    """A record that is too large for memory."""

    def batches(self) -> Iterator[CellInstances]:
        for number in range(len(self.cells)):
            yield self.cells[number : number + 1]


def test_cells_in_pieces() -> None:
    cells = squares((10, 10), (14, 14), (40, 16)).replace(scores=[0.5, 0.9, 0.7])
    numbers = np.array([7, 5, 0])
    found = draw_with_numbers(InPieces("a", cells), numbers, np.uint16)
    expected = draw_with_numbers(ImageRecord("a", cells), numbers, np.uint16)
    np.testing.assert_array_equal(found, expected)
    assert np.unique(found).tolist() == [0, 5, 7]


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        (FRAMES[:2], "2 frames; the tracks were made of 3"),
        ([FRAMES[0], ImageRecord("b", CellInstances.from_label_image([[1]]))], r"b: .*\(1, 1\)"),
        ([], "no frame"),
    ],
)
def test_nothing_is_written_of_frames_that_do_not_fit(
    tmp_path: Path, frames: list[ImageRecord], what: str
) -> None:
    tracks = TRACKS if frames else Tracks.from_links([], [])
    with pytest.raises(LabelError, match=what):
        write_label_stack(tmp_path / "a.tif", frames, tracks)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        cells = CellInstances.from_label_image(np.eye(300, dtype=np.uint8))
        frames = (ImageRecord(str(number), cells) for number in range(count))
        tracks = Tracks.from_links([1] * count, [(k, 0, k + 1, 0) for k in range(count - 1)])
        tracemalloc.start()
        write_label_stack(tmp_path / "a.tif", frames, tracks)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(2)
    assert peak(60) < peak(4) + 10 * 300 * 300 * 2
