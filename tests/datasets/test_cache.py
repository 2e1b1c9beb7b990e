"""The cache of parsed annotations: when it is used, and that it never stands in the way."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import tifffile
from cell_records import contents_of, make_record
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.records import ImageRecord
from cellseg.datasets import cache
from cellseg.datasets.annotation_files import read_annotations, write_annotations
from cellseg.datasets.cache import Reading, cached_records, find_files
from cellseg.errors import DatasetError
from cellseg.files import cache_root, is_cache_on
from cellseg.io import FORMATS, read_records

SCENES = builders.all_scenes()
OLD_NS = 1_600_000_000_000_000_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache lies in these tests."""
    monkeypatch.setenv("CELLSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_refused", set())
    return tmp_path / "cache" / "annotations"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """All scenes as label images, of an old date."""
    root = builders.write_label_images(tmp_path / "cells", "train", SCENES)
    make_old(root)
    return root


def make_old(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, ns=(OLD_NS, OLD_NS))


class Reader:
    """Reads label images, and counts how often."""

    def __init__(self, root: Path, **how: Any) -> None:
        self.calls = 0
        self.reading = Reading(
            **{"format_name": "label_images", "root": root, "split": "train", "classes": ("cell",)}
            | how
        )

    def read(self) -> list[ImageRecord]:
        self.calls += 1
        of = self.reading
        return read_records(of.format_name, of.root, of.split, classes=of.classes, **of.options)

    def get(self) -> list[ImageRecord]:
        return cached_records(self.reading, self.read)


def cache_files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_second_time_comes_from_the_cache_and_is_equal(root: Path, folder: Path) -> None:
    reader = Reader(root)
    first = reader.get()
    assert [record.image_id for record in first] == sorted(SCENES)
    assert reader.get() == first == reader.read()
    assert reader.calls == 2  # one of them above
    assert cache_files(folder) == [reader.reading.cache_file()]


@pytest.mark.parametrize("name", sorted(name for name in FORMATS if FORMATS[name].write))
def test_every_format_comes_back_the_same(root: Path, name: str) -> None:
    if name == "imagej_rois":
        pytest.importorskip("roifile", minversion="2026")
    write = FORMATS[name].write
    assert write is not None
    write(Reader(root).read(), root.parent / "other", "train", ("cell",), {})
    reader = Reader(root.parent / "other", format_name=name)
    make_old(root.parent / "other")
    first = reader.get()
    assert reader.get() == first
    assert reader.calls == 1
    assert len(first) == len(SCENES)


def test_records_of_every_kind_come_back_the_same(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).random((4, 7, 9)) < 0.4
    masks[1] = False
    full = np.ones((1, 7, 9), bool)
    boxes = CellInstances.from_rles([bitmap_to_rle(full[0])], (7, 9), boxes_xyxy=[[0.5, 1, 2, 3]])
    how = {"classes": [0, 3, 1, 1], "is_crowd": [False, False, True, False]}
    records = [
        make_record("größe", tmp_path / "a/größe.png", masks, scores=[1, 0.1, 0.25, 1], **how),
        make_record("none", tmp_path.parent / "elsewhere.png", [], (7, 9)),
        ImageRecord("c", boxes, tmp_path / "c.png"),
    ]
    for chosen in (records, records[1:2], []):
        write_annotations(tmp_path / "x.npz", chosen, tmp_path, {"note": [1]})
        note, back = read_annotations(tmp_path / "x.npz", tmp_path)
        assert (note, contents_of(back)) == ({"note": [1]}, contents_of(chosen))
        assert [one.image_path for one in back] == [one.image_path for one in chosen]
        assert back == chosen
    assert records != records[::-1]


def test_records_that_would_come_back_otherwise_are_not_kept(
    root: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    without_image = make_record("a", None, [], (7, 9))
    too_large = ImageRecord("a", CellInstances.empty((2**16, 2**15)), root / "a.png")
    for record in (without_image, too_large):
        with caplog.at_level(logging.INFO):
            assert cached_records(Reader(root).reading, [record].copy) == [record]
        assert cache_files(folder) == []
        assert "annotations are not cached" in caplog.messages[-1]


def _touch(root: Path) -> None:
    os.utime(root / "train/labels/touching.png", ns=(OLD_NS + 1, OLD_NS + 1))


def _set_back(root: Path) -> None:
    os.utime(root / "train/labels/touching.png", ns=(OLD_NS - 10**12, OLD_NS - 10**12))


def _resize(root: Path) -> None:
    with (root / "train/labels/touching.png").open("ab") as stream:
        stream.write(b"\0")
    make_old(root)


def _add(root: Path) -> None:
    builders.write_label_images(root, "train", {"new": SCENES["touching"]})
    make_old(root)


def _remove(root: Path) -> None:
    (root / "train/labels/touching.png").unlink()
    (root / "train/images/touching.png").unlink()


def _rename(root: Path) -> None:
    for kind in ("images", "labels"):
        (root / f"train/{kind}/touching.png").rename(root / f"train/{kind}/moved.png")


@pytest.mark.parametrize("change", [_touch, _set_back, _resize, _add, _remove, _rename])
def test_files_that_change_are_read_again(root: Path, change: Callable[[Path], None]) -> None:
    reader = Reader(root)
    reader.get()
    change(root)
    assert reader.get() == read_records("label_images", root, "train")
    assert reader.calls == 2
    reader.get()
    assert reader.calls == 2


@pytest.mark.parametrize(
    "how",
    [
        {"classes": ("nucleus",)},
        {"options": {"labels": "labels"}},
        {"format_name": "other"},
        {"split": "val"},
    ],
)
def test_other_readings_have_files_of_their_own(root: Path, how: dict[str, Any]) -> None:
    assert Reader(root).reading.cache_file() != Reader(root, **how).reading.cache_file()


def test_other_code_reads_again(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(root)
    reader.get()
    monkeypatch.setattr(cache, "reader_version", lambda _reader: "next")
    reader.get()
    assert reader.calls == 2
    assert len(cache_files(folder)) == 2


def test_version_is_that_of_the_code() -> None:
    plain = cache.reader_version()
    assert plain == cache.reader_version(read_records)  # in the package anyway
    assert plain != cache.reader_version(make_old)  # a format of one's own
    assert plain == cache.reader_version(itertools.count)  # has no source


@pytest.mark.parametrize("ahead_s", [0, 86_400])
def test_young_and_future_files_are_compared_by_content(tmp_path: Path, ahead_s: int) -> None:
    """One tick of a coarse clock, or a clock that is ahead: size and time stay the same."""
    builders.write_label_images(tmp_path, "train", {"a": SCENES["touching"]})
    (tmp_path / "train/labels/a.png").unlink()
    path = tmp_path / "train/labels/a.tif"
    at_ns = time.time_ns() + ahead_s * 10**9
    reader = Reader(tmp_path)

    def write(labels: np.ndarray) -> None:
        tifffile.imwrite(path, labels)
        os.utime(path, ns=(at_ns, at_ns))

    write(SCENES["touching"].labels)
    size = path.stat().st_size
    (before,) = reader.get()
    assert reader.get() == [before]
    assert reader.calls == 1
    write(SCENES["one_pixel"].labels)
    assert path.stat().st_size == size
    (after,) = reader.get()
    assert (len(before.cells), len(after.cells)) == (2, 1)


def test_too_much_that_is_young_is_not_kept(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = builders.write_label_images(tmp_path / "r", "train", {"a": SCENES["touching"]})
    monkeypatch.setattr(cache, "MAX_BYTES_BY_CONTENT", 10)
    with caplog.at_level(logging.INFO):
        assert len(Reader(root).get()) == 1
    assert "too much was written just now" in caplog.text
    assert cache_files(folder) == []


def test_files_that_change_while_they_are_read_are_not_kept(
    root: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader(root)

    def read_and_change() -> list[ImageRecord]:
        records = reader.read()
        _touch(root)
        return records

    with caplog.at_level(logging.INFO):
        assert len(cached_records(reader.reading, read_and_change)) == len(SCENES)
    assert "files changed while they were read" in caplog.text
    assert cache_files(folder) == []


def test_errors_pass_and_nothing_is_kept(root: Path, folder: Path) -> None:
    (root / "train/images/touching.png").unlink()
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"touching\.png: no image"):
            Reader(root).get()
    with pytest.raises(DatasetError, match="no such folder"):
        Reader(root / "nowhere").get()
    assert cache_files(folder) == []


def test_a_folder_that_went_away_is_an_error_in_spite_of_the_cache(root: Path) -> None:
    reader = Reader(root)
    reader.get()
    root.rename(root.with_name("moved"))
    with pytest.raises(DatasetError, match="no such folder"):
        reader.get()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _nonsense(path: Path) -> None:
    path.write_text("nonsense")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _pickle(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, header=np.array([{}], object))


def _other_archive(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, x=np.zeros(3))


def _other_version(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, header=np.frombuffer(b'{"version": 0}', np.uint8))


def _short_columns(path: Path) -> None:
    with np.load(path) as archive:
        columns = dict(archive)
    columns["classes"] = columns["classes"][1:]
    with path.open("wb") as stream:
        np.savez(stream, **columns)


def _short_runs(path: Path) -> None:
    with np.load(path) as archive:
        columns = dict(archive)
    columns["starts"] = columns["starts"][1:]
    with path.open("wb") as stream:
        np.savez(stream, **columns)


@pytest.mark.parametrize(
    "damage",
    [
        *(_cut, _empty, _nonsense, _flip, _pickle),
        *(_other_archive, _other_version, _short_columns, _short_runs),
    ],
)
def test_damaged_files_are_made_again(
    root: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    reader = Reader(root)
    expected = reader.get()
    file = reader.reading.cache_file()
    damage(file)
    with caplog.at_level(logging.WARNING):
        assert reader.get() == expected
    assert f"{file}: the cache is damaged and made again" in caplog.text
    assert reader.get() == expected
    assert reader.calls == 2


def test_file_of_another_key_is_not_used(root: Path, tmp_path: Path) -> None:
    """As if two names had one hash."""
    reader, other = Reader(root), Reader(root, classes=("nucleus",))
    reader.get()
    os.replace(reader.reading.cache_file(), other.reading.cache_file())
    assert {k for record in other.get() for k in record.cells.classes.tolist()} == {0}
    assert other.calls == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_folder_that_cannot_be_written_is_said_once(
    root: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    def refuse(stream: Any, **_: Any) -> None:
        stream.write(b"half")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(np, "savez", refuse)
    reader = Reader(root)
    with caplog.at_level(logging.WARNING):
        first, second = reader.get(), reader.get()
    assert first == second
    assert reader.calls == 2
    (message,) = caplog.messages
    assert os.strerror(code) in message
    assert str(folder) in message
    assert "CELLSEG_CACHE" in message
    assert cache_files(folder) == []


def test_cache_folder_that_is_a_file(root: Path, folder: Path) -> None:
    folder.parent.write_text("not a folder")
    assert len(Reader(root).get()) == len(SCENES)
    assert folder.parent.read_text() == "not a folder"


def test_no_home_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CELLSEG_CACHE")
    monkeypatch.setattr(Path, "home", fail)
    with caplog.at_level(logging.WARNING):
        assert Reader(root).get() == Reader(root).get()
    assert len(caplog.messages) == 1
    assert "Could not determine home directory" in caplog.text


def test_off(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for word in ("off", "OFF"):
        monkeypatch.setenv("CELLSEG_CACHE", word)
        assert not is_cache_on()
        assert cache_root() == tmp_path / ".cache" / "cellseg"
        reader = Reader(root)
        reader.get()
        reader.get()
        assert reader.calls == 2
    assert not (tmp_path / ".cache").exists()
    monkeypatch.delenv("CELLSEG_CACHE")
    assert is_cache_on()
    assert cache_root() == tmp_path / ".cache" / "cellseg"


def test_files_that_count(tmp_path: Path) -> None:
    for name in (
        "train.csv",
        "train/a.png",
        "train/deep/b.png",
        "train/.hidden",
        ".git/c",
        "val/d.png",
        "more/e.png",
    ):
        path = tmp_path / "r" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "out.json").write_text("x")
    (tmp_path / "r/train/loop").symlink_to(tmp_path / "r/train")
    (tmp_path / "r/train/linked").symlink_to(tmp_path / "r/more")

    def found(format_name: str, split: Any, options: dict[str, Any]) -> list[str]:
        return find_files(Reading(format_name, tmp_path / "r", split, ("cell",), options))

    train = ["train/a.png", "train/deep/b.png", "train/linked/e.png"]
    assert found("label_images", "train", {}) == train
    assert found("label_images", "val", {}) == ["val/d.png"]
    everything = ["more/e.png", "train.csv", *train, "val/d.png"]
    assert found("sartorius_table", "train", {}) == everything
    assert found("coco_json", {"x": ["../out.json"]}, {}) == ["../out.json", *everything]
    assert found("instance_masks", "val", {"file": "train.csv"}) == ["train.csv", "val/d.png"]
    assert found("label_images", "val", {"images": "../more"}) == ["more/e.png", "val/d.png"]
    absolute = str(tmp_path / "r/train.csv")
    assert found("label_images", "val", {"x": absolute}) == ["train.csv", "val/d.png"]


def test_what_killed_processes_left_is_removed_when_it_is_old(root: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    ages_s = {
        ".1.partial.npz": 7200,
        ".2.partial.npz": 60,
        "old.npz": 100 * 86_400,
        "used.npz": 86_400,
    }
    for name, age_s in ages_s.items():
        (folder / name).write_text("x")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    reader = Reader(root)
    reader.get()
    expected = [".2.partial.npz", "used.npz", reader.reading.cache_file().name]
    assert sorted(path.name for path in folder.iterdir()) == sorted(expected)


PROCESS = """
import os, sys, time
from pathlib import Path
import numpy as np
import cellseg.datasets.cache as cache
from cellseg.io import read_records
root, mode = Path(sys.argv[1]), sys.argv[2]
cache.reader_version = lambda reader=None: "same"
reading = cache.Reading("label_images", root, "train", ("cell",))
read = lambda: read_records("label_images", root, "train")
if mode == "hang":
    def savez(stream, **columns):
        stream.write(b"half of it")
        stream.flush()
        print("writing", flush=True)
        time.sleep(60)
    np.savez = savez
if mode == "together":
    print("ready", flush=True)
    sys.stdin.readline()
records = cache.cached_records(reading, read)
print(len(records), records == read(), flush=True)
"""


def start(root: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(root), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(cache.__file__).parents[2])},
    )


@pytest.fixture
def _same_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the other processes, also where somebody edits the code meanwhile."""
    monkeypatch.setattr(cache, "reader_version", lambda _reader=None: "same")


@pytest.mark.usefixtures("_same_version")
def test_processes_at_once(root: Path, folder: Path) -> None:
    processes = [start(root, "together") for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert output == f"{len(SCENES)} True\n"
    reader = Reader(root)
    assert cache_files(folder) == [reader.reading.cache_file()]
    assert len(reader.get()) == len(SCENES)
    assert reader.calls == 0


@pytest.mark.usefixtures("_same_version")
def test_process_killed_while_it_writes(root: Path, folder: Path) -> None:
    process = start(root, "hang")
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (partial,) = cache_files(folder)
    assert partial.read_bytes() == b"half of it"
    reader = Reader(root)
    expected = reader.get()
    assert reader.get() == expected
    assert reader.calls == 1
    assert cache_files(folder) == sorted([partial, reader.reading.cache_file()])
