"""tools/convert_dataset.py: once as a command, then its exit statuses from inside."""

from __future__ import annotations

from pathlib import Path

import builders
import pytest
import yaml
from cellseg.datasets.declarations import read_declarations
from cellseg.io import read_records
from commands import REPOSITORY, Command, run_program

TOOL = REPOSITORY / "tools" / "convert_dataset.py"


@pytest.fixture(scope="module")
def tool() -> Command:
    return Command("convert")


@pytest.fixture
def masks_root(tmp_path: Path) -> Path:
    return builders.write_instance_masks(tmp_path / "masks", "train", builders.all_scenes())


def words(masks_root: Path, target: str, *more: str) -> list[str]:
    return [
        *("--from", "instance_masks", "--input", str(masks_root), "--split", "train"),
        *("--to", target, "--output", str(masks_root.parent / "new"), *more),
    ]


def test_as_a_command(masks_root: Path) -> None:
    done = run_program(TOOL, *words(masks_root, "coco_json", "--classes", "nucleus"))
    assert done.returncode == 0, done.stdout + done.stderr
    records = read_records("coco_json", masks_root.parent / "new", "train", classes=["nucleus"])
    assert len(records) == len(builders.all_scenes())
    declared = masks_root.parent / "new.yaml"
    text = done.stdout.partition("To declare them:\n")[2]
    declared.write_text(text)
    (declaration,) = read_declarations(declared)
    assert (declaration.name, declaration.format_name) == ("new_train", "coco_json")
    assert declaration.classes == ("nucleus",)


def test_losses_are_said_and_strict_refuses(
    tool: Command, masks_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = tool.main(words(masks_root, "label_images", "--strict"))
    assert says.startswith("DatasetError: label_images cannot hold all of")
    assert "overlaps: 16 pixels" in says
    assert not (masks_root.parent / "new").exists()
    assert tool.main(words(masks_root, "label_images")) == 0
    assert "Lost: overlaps: 16 pixels" in capsys.readouterr().err
    assert (masks_root.parent / "new" / "train" / "labels").is_dir()
    again = tool.main(words(masks_root, "label_images"))
    assert again.startswith("DatasetError:")
    assert "is there already" in again


def test_options_of_both_sides(tool: Command, masks_root: Path) -> None:
    more = ["--option", "masks=masks", "--output-option", "images=pictures", "annotations=a.json"]
    more += ["--output-split", "first"]
    assert tool.main(words(masks_root, "coco_json", *more)) == 0
    assert (masks_root.parent / "new" / "first" / "pictures" / "one_pixel.png").is_file()
    assert (masks_root.parent / "new" / "first" / "a.json").is_file()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--option", "masks"], "'masks': expected KEY=VALUE"),
        (["--option", "=3"], "'=3': expected KEY=VALUE"),
        (["--option", "masks=[1"], "cannot be read as YAML"),
        (["--option", "mask=x"], "mask: unknown option of instance_masks"),
        (["--output-option", "images=3"], "images: found 3, expected the name of a folder"),
        (["--classes", "a", "b"], "mask of no class"),
    ],
)
def test_mistakes(tool: Command, masks_root: Path, more: list[str], says: str) -> None:
    text = tool.main(words(masks_root, "coco_json", *more))
    assert text.startswith("DatasetError: ")
    assert says in text
    assert not (masks_root.parent / "new").exists()


def test_made_up_cells(tool: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLSEG_CACHE", str(tmp_path / "cache"))
    line = ["--from", "synthetic", "--input", ".", "--split", "{images: 2, seed: 3}"]
    line += ["--to", "sartorius_table", "--output", str(tmp_path / "new")]
    assert "--output-split: missing" in tool.main(line)
    assert tool.main([*line, "--output-split", "train"]) == 0
    assert len(read_records("sartorius_table", tmp_path / "new", "train")) == 2


def test_unknown_formats_and_those_without_a_writer(
    tool: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cocoo", "synthetic"):
        with pytest.raises(SystemExit) as stopped:
            tool.main(
                [
                    "--from",
                    "label_images",
                    "--input",
                    "x",
                    "--split",
                    "y",
                    "--to",
                    name,
                    "--output",
                    "z",
                ]
            )
        assert stopped.value.code == 2
        assert "invalid choice" in capsys.readouterr().err


def test_the_declaration_is_yaml(tool: Command, tmp_path: Path) -> None:
    conversion = tool.Conversion(1, 2, ("a", "b"), ())
    place = tool.SplitPlace("coco_json", tmp_path / "x", "train", {"images": "pictures"})
    assert yaml.safe_load(tool.declaration_of(place, conversion)) == {
        "x": {
            "format": "coco_json",
            "root": str(tmp_path / "x"),
            "splits": ["train"],
            "classes": ["a", "b"],
            "images": "pictures",
        }
    }
