"""From files, folders, patterns and lists to images with names."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg.errors import ImageReadError
from cellseg.images.listing import PassedOver, describe_passed_over
from cellseg.inference.inputs import STATE_FOLDER, InputFile, find_inputs, take_part
from cellseg.names import unique_names


def touch(*paths: str | Path) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pairs(*inputs: str, **options: object) -> list[tuple[str, str]]:
    found = find_inputs(inputs, **options)  # type: ignore[arg-type]
    return [(str(file.path), file.name) for file in found.files]


def test_a_folder_with_all_that_is_below_it_keeps_its_sub_folders(here: Path) -> None:
    touch("a/2.png", "a/1.TIF", "a/notes.txt", "a/deep/3.jpg", "a/deep/er/4.png")
    assert pairs("a") == [
        ("a/1.TIF", "1"),
        ("a/2.png", "2"),
        ("a/deep/3.jpg", "deep/3"),
        ("a/deep/er/4.png", "deep/er/4"),
    ]


def test_patterns_keep_the_folders_behind_their_fixed_part(here: Path) -> None:
    touch("a/2.png", "a/deep/3.jpg", "a/b/1.png", "c[1].png")
    assert pairs("a/**/*.*g") == [
        ("a/2.png", "2"),
        ("a/b/1.png", "b/1"),
        ("a/deep/3.jpg", "deep/3"),
    ]
    assert pairs("a/*/1.png") == [("a/b/1.png", "b/1")]
    assert pairs("c[1].png") == [("c[1].png", "c[1]")]  # a file of that name, not a pattern


def test_a_pattern_of_folders_is_walked(here: Path) -> None:
    touch("plates/p1/a.png", "plates/p2/sub/b.png", "plates/q/c.png")
    assert pairs("plates/p*") == [("plates/p1/a.png", "p1/a"), ("plates/p2/sub/b.png", "p2/sub/b")]


def test_a_file_is_taken_once_and_of_any_ending(here: Path) -> None:
    touch("a/1.tif", "a/2.png", "x")
    assert pairs("a/2.png", "a", "./a/2.png", "x") == [
        ("a/2.png", "2"),
        ("a/1.tif", "1"),
        ("x", "x"),
    ]


@pytest.mark.parametrize("name", ["list.txt", "@list.txt", "@images.lst"])
def test_lists_of_paths_folders_and_patterns(here: Path, name: str) -> None:
    touch("a/1.png", "b/2.png", "c/3.png")
    text = "# of Monday\na\n\nb/*.png\n  c/3.png  \n"
    Path(name.removeprefix("@")).write_text(text)
    assert [name for _, name in pairs(name)] == ["1", "2", "3"]


def test_a_list_that_is_no_text_is_named(here: Path) -> None:
    Path("list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImageReadError, match=r"list\.txt: cannot be read as a list of images"):
        find_inputs(["list.txt"])
    with pytest.raises(ImageReadError, match=r"gone\.txt: cannot be read"):
        find_inputs(["@gone.txt"])


def test_says_which_inputs_gave_nothing(here: Path) -> None:
    touch("a/1.png", "empty/notes.csv")
    found = find_inputs(["gone.png", "a", "empty", "*.gif"])
    assert found.missing == ["gone.png", "empty", "*.gif"]
    assert [file.name for file in found.files] == ["1"]
    assert find_inputs([]).files == []


def test_names_what_is_not_read(here: Path) -> None:
    touch("a/1.png", "a/x.docx", "a/y.docx", "a/readme", *(f"a/{k}.csv" for k in range(5)))
    Path("a/broken.tif").symlink_to("gone.tif")
    found = find_inputs(["a"])
    assert [file.name for file in found.files] == ["1"]
    assert describe_passed_over(found.passed_over) == (
        "9 files passed over: 0.csv, 1.csv, 2.csv and 2 more (not an image: the ending .csv is not "
        "known); broken.tif (a link to gone.tif, which is not there); readme (it has no ending); "
        "x.docx, y.docx (not an image: the ending .docx is not known)"
    )


def test_a_further_name_of_an_image_is_said(here: Path) -> None:
    touch("a/1.png")
    Path("a/2.png").symlink_to("1.png")
    found = find_inputs(["a", "./a/1.png"])
    assert [file.name for file in found.files] == ["1"]
    assert found.passed_over == [PassedOver(Path("a/2.png"), "another name of a/1.png")]


def test_patterns_pass_over_what_folders_do(here: Path) -> None:
    touch("a/1.png", "a/1_overlay.png", "a/2.img", "a/Thumbs.db", "a/notes.txt")
    assert pairs("a/*", result_suffixes=["_overlay.png"]) == [("a/1.png", "1")]
    assert [path.name for path, _ in find_inputs(["a/*"]).passed_over] == ["2.img", "notes.txt"]
    assert pairs("a/*.img") == [("a/2.img", "2")]  # who says the ending means it


def test_hidden_files_and_folders_are_left_out(here: Path) -> None:
    touch("a/1.png", "a/._1.png", "a/.hidden/2.png", "a/Thumbs.db", "a/__MACOSX/a/x.png")
    found = find_inputs(["a"])
    assert [file.name for file in found.files] == ["1"]
    assert found.passed_over == []


def test_results_are_no_images(here: Path) -> None:
    touch("a.png", "a_overlay.png", "a_labels.tif", "b_overlay.png", "c_labels.tif")
    touch("out/a_labels.tif", f"out/{STATE_FOLDER}/lock")
    suffixes = ["_overlay.png", "_labels.tif"]
    found = find_inputs(["."], result_suffixes=suffixes)
    assert [file.path.name for file in found.files] == ["a.png", "b_overlay.png", "c_labels.tif"]


def test_zarr_folders_are_images(here: Path) -> None:
    touch("a/x.ome.zarr/.zattrs", "a/x.ome.zarr/0/0/0.png", "a/b/y.zarr/zarr.json")
    assert [path for path, _ in pairs("a")] == ["a/x.ome.zarr", "a/b/y.zarr"]
    assert [path for path, _ in pairs("a/x.ome.zarr")] == ["a/x.ome.zarr"]
    assert [path for path, _ in pairs("a/*/*.zarr")] == ["a/b/y.zarr"]


def test_linked_folders_are_walked_and_loops_are_not(here: Path) -> None:
    touch("a/1.png", "elsewhere/2.png")
    Path("a/link").symlink_to(here / "elsewhere")
    Path("a/loop").symlink_to(here / "a")
    Path("elsewhere/back").symlink_to(here / "a")
    assert pairs("a") == [("a/1.png", "1"), ("a/link/2.png", "link/2")]


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        (["1", "2"], ["1", "2"]),
        (["1", "1", "1"], ["1", "1_2", "1_3"]),
        (["1", "1", "1_2"], ["1", "1_3", "1_2"]),
        (["1_2", "1", "1", "1_2"], ["1_2", "1", "1_3", "1_2_2"]),
        ([], []),
    ],
)
def test_every_file_has_a_name_of_its_own(names: list[str], unique: list[str]) -> None:
    assert unique_names(names) == unique


def test_equal_names_in_one_folder(here: Path) -> None:
    touch("a/x.png", "a/x.tif", "b/x.png")
    assert [name for _, name in pairs("a", "b")] == ["x", "x_2", "x_3"]


def test_parts_are_disjoint_and_whole() -> None:
    files = [InputFile(Path(f"{k}.png"), str(k)) for k in range(7)]
    parts = [take_part(files, k, 3) for k in (1, 2, 3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert sorted(int(file.name) for part in parts for file in part) == list(range(7))
