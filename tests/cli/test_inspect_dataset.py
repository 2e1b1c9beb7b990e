"""tools/inspect_dataset.py: exit statuses, files, names; once as a command, then on real data."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import rectangle, scene_of_masks, write_label_images
from cellseg import load_config
from commands import REPOSITORY, Command, run_program

TOOL = REPOSITORY / "tools" / "inspect_dataset.py"
HW = (48, 64)


@pytest.fixture(scope="module")
def tool() -> Command:
    return Command("inspect")


def declare(folder: Path, name: str, *, leak: bool = False, broken: bool = False) -> Path:
    """A dataset of two splits, and its declaration."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 3), ("val", 2)):
        scenes = {}
        for k in range(number):
            x = 5 + 9 * k
            scene = scene_of_masks([rectangle(HW, x, 7, x + 13, 21)], HW)
            noisy = scene.image + rng.integers(0, 40, HW).astype(np.uint8)
            scenes[f"{split} {k} ü"] = type(scene)(noisy, scene.labels, scene.masks)
        write_label_images(folder / name, split, scenes)
    if leak:
        for kind in ("images", "labels"):
            source = folder / name / "train" / kind / "train 0 ü.png"
            (folder / name / "val" / kind / "copy.png").write_bytes(source.read_bytes())
    if broken:
        (folder / name / "val" / "images" / "val 0 ü.png").write_bytes(b"not a picture")
    path = folder / f"{name}.yaml"
    content = {"format": "label_images", "root": str(folder / name), "splits": ["train", "val"]}
    path.write_text(yaml.safe_dump({name: content}, allow_unicode=True), "utf-8")
    return path


def test_as_a_command(tmp_path: Path) -> None:
    path = declare(tmp_path, "good cells")
    out = tmp_path / "out put"
    done = run_program(str(TOOL), str(path), "--output", str(out), "--suggest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good cells_train" in done.stdout
    assert "0 errors" in done.stdout
    assert {path.name for path in out.iterdir()} == {
        *("cells.csv", "findings.csv", "images.csv"),
        *("plots.png", "contact_sheet_1.png", "suggested.yaml"),
    }
    assert load_config(out / "suggested.yaml").DATASETS.TRAIN == ("good cells_train",)


def test_a_leak_is_found_and_mended(
    tool: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = declare(tmp_path, "leaking", leak=True)
    fixed = tmp_path / "fixed"
    assert tool.main([str(path), "--fix", str(fixed), "--output", str(tmp_path / "out")]) == 1
    assert "duplicate_between_splits (1)" in capsys.readouterr().out
    with (tmp_path / "out" / "findings.csv").open(newline="", encoding="utf-8") as stream:
        [row] = csv.DictReader(stream)
    assert (row["severity"], row["split"], row["image_id"]) == ("error", "leaking_val", "copy")
    assert tool.main([str(fixed / "dataset.yaml")]) == 0


def test_files_that_cannot_be_read_are_errors(
    tool: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = declare(tmp_path, "broken", broken=True)
    assert tool.main([str(path), "--output", str(tmp_path / "out")]) == 1
    text = capsys.readouterr().out
    assert "unreadable (1)" in text
    assert "val 0 ü.png" in text
    found = tool.main([str(path), "--fix", str(tmp_path / "fixed")])
    assert isinstance(found, str)
    assert "cannot be read" in found
    assert not (tmp_path / "fixed").exists()


def test_several_datasets_of_a_declaration_have_folders_of_their_own(
    tool: Command, tmp_path: Path
) -> None:
    both = tmp_path / "both.yaml"
    texts = [declare(tmp_path, name).read_text("utf-8") for name in ("first_set", "second_set")]
    both.write_text("".join(texts), "utf-8")
    out = tmp_path / "out"
    assert tool.main([str(both), "--output", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"first_set", "second_set"}


def test_names_of_datasets_and_of_splits(tool: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["synthetic_val"]) == 0
    text = capsys.readouterr().out
    assert "synthetic_val" in text
    assert "synthetic_train" not in text
    found = tool.main(["synthetik"])
    assert found.startswith("DatasetError: synthetik: no dataset of that name; did you mean synth")


KNOWN = {
    "overlap": {"175dbb36", "f26f4c2c", "0a7d30b2", "1609b1b8", "547ef286"},
    "holes": {"70827e40", "8efed2e6", "da31f2aa", "df53d0b6", "e49fc2b4", "693bc645", "d7db360f"},
    "pieces": {"f6863b83", "ef3ef194"},
    "near_duplicate": {"cb4df20a"},
}


@pytest.mark.slow
def test_known_oddities_of_dsb2018(
    tool: Command, real_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the dataset's README lists for the images that lie there as mask files."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(real_datasets))
    assert tool.main(["dsb2018", "--output", str(tmp_path), "--pages", "1"]) == 0
    with (tmp_path / "findings.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    found = {kind: {r["image_id"][:8] for r in rows if r["kind"] == kind} for kind in KNOWN}
    assert found == KNOWN
    assert {row["kind"] for row in rows} == {*KNOWN, "dim"}
