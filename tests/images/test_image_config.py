"""The keys below CELLSEG.INPUT, from a config file and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg import load_config
from cellseg.errors import ConfigError
from cellseg.images import ImageInput

QUICK_START = Path(__file__).resolve().parents[2] / "configs" / "quick_start.yaml"


def test_defaults_are_those_of_image_input() -> None:
    assert ImageInput.from_config(load_config(QUICK_START)) == ImageInput()


def test_keys_from_the_command_line(tmp_path: Path) -> None:
    options = {
        "CHANNELS": "['DAPI', 1]",
        "PAGE": "3",
        "PROJECTION": "max",
        "NORMALIZE": "range",
        "RANGE": "[0, 4095]",
    }
    words = [w for key, value in options.items() for w in (f"CELLSEG.INPUT.{key}", value)]
    expected = ImageInput(
        channels=["DAPI", 1], page=3, projection="max", normalize="range", value_range=[0, 4095]
    )
    assert ImageInput.from_config(load_config(QUICK_START, words)) == expected
    cfg = load_config(QUICK_START, words)
    (tmp_path / "dumped.yaml").write_text(cfg.dump())
    assert ImageInput.from_config(load_config(tmp_path / "dumped.yaml")) == expected


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("CELLSEG.INPUT.NORMALIZE", "percentil", "auto, none, minmax, percentile, range"),
        ("CELLSEG.INPUT.NORMALIZE", "range", r"CELLSEG\.INPUT\.RANGE is \[\]"),
        ("CELLSEG.INPUT.RANGE", "[3, 3]", "low < high"),
        ("CELLSEG.INPUT.CHANNELS", "[0, 1, 2, 3]", "up to three channel numbers"),
        ("CELLSEG.INPUT.CHANNELS", "'DAPI'", "CHANNELS"),
        ("CELLSEG.INPUT.PAGE", "'all'", "PAGE"),
        ("CELLSEG.INPUT.PAGE", "-7", "a page number from 0, or -1"),
        ("CELLSEG.INPUT.PROJECTION", "sum", "none, max"),
        ("INPUT.FORMAT", "YUV-BT.601", "expected 'BGR' or 'RGB'"),
    ],
)
def test_impossible_values_fail_before_any_work(key: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(QUICK_START, [key, value])
