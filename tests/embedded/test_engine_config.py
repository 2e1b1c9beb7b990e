"""detectron2.config: defaults, YAML files, overrides, @configurable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode, configurable, get_cfg, global_cfg, set_global_cfg

KEY_COUNT = 192
SHA256_OF_DEFAULTS = "6171ca150e8325fcb44d166837e52f84640af8b3132ee4e20a5251f75a7d400f"
"""Of the lines `KEY value`, sorted, with values as Python writes them: shows any other type."""

SOME_DEFAULTS = {
    "VERSION": 2,
    "OUTPUT_DIR": "./output",
    "SEED": -1,
    "MODEL.DEVICE": "cuda",
    "MODEL.WEIGHTS": "",
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.FPN.IN_FEATURES": [],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.RPN.BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": (0.5, 0.6, 0.7),
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "INPUT.FORMAT": "BGR",
    "INPUT.MASK_FORMAT": "polygon",
    "INPUT.MIN_SIZE_TRAIN": (800,),
    "DATASETS.TRAIN": (),
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": True,
    "SOLVER.WEIGHT_DECAY": 0.0001,
    "SOLVER.WEIGHT_DECAY_BIAS": None,
    "SOLVER.STEPS": (30000,),
    "SOLVER.WARMUP_FACTOR": 0.001,
    "TEST.DETECTIONS_PER_IMAGE": 100,
    "TEST.AUG.MIN_SIZES": (400, 500, 600, 700, 800, 900, 1000, 1100, 1200),
    "GLOBAL.HACK": 1.0,
}


def flatten(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_default_has_the_known_value_and_type() -> None:
    lines = sorted(f"{key} {value!r}" for key, value in flatten(get_cfg()))
    assert len(lines) == KEY_COUNT
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == SHA256_OF_DEFAULTS


@pytest.mark.parametrize(("key", "expected"), SOME_DEFAULTS.items())
def test_some_defaults(key: str, expected: object) -> None:
    value = dict(flatten(get_cfg()))[key]
    assert value == expected
    assert type(value) is type(expected)


def test_each_call_gives_its_own_copy() -> None:
    first = get_cfg()
    first.MODEL.PIXEL_MEAN.append(1.0)
    first.SOLVER.BASE_LR = 5.0
    assert get_cfg().MODEL.PIXEL_MEAN == [103.53, 116.28, 123.675]
    assert get_cfg().SOLVER.BASE_LR == 0.001


def test_dump_and_merge_gives_the_same_config(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("a", "b")
    cfg.MODEL.MASK_ON = True
    read = get_cfg()
    read.merge_from_file(write(tmp_path / "config.yaml", cfg.dump()))
    before, after = dict(flatten(cfg)), dict(flatten(read))
    changed = {key for key in before if before[key] != after[key]}
    assert changed <= {"MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"}  # its inner tuples get lists
    assert read.DATASETS.TRAIN == ("a", "b")


def test_base_files_are_merged_first(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "VERSION: 2\nSEED: 1\nMODEL: {MASK_ON: true, DEVICE: cpu}\n")
    child = "_BASE_: ../base.yaml\nSEED: 7\nMODEL:\n  DEVICE: cuda:1\n"
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path / "sub" / "child.yaml", child))
    assert (cfg.SEED, cfg.MODEL.MASK_ON, cfg.MODEL.DEVICE) == (7, True, "cuda:1")


def test_strings_in_files_become_tuples(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path / "c.yaml", "VERSION: 2\nSOLVER:\n  STEPS: (10, 20)\n"))
    assert cfg.SOLVER.STEPS == (10, 20)


def test_python_tags_need_allow_unsafe(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "VERSION: 2\nSEED: !!python/object/apply:int ['4']\n")
    cfg = get_cfg()
    cfg.merge_from_file(path)  # the default of Detectron2
    assert cfg.SEED == 4
    with pytest.raises(Exception, match="could not determine a constructor"):
        get_cfg().merge_from_file(path, allow_unsafe=False)


def test_unknown_keys_and_other_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"SOLVER\.LEARNING_RATE"):
        get_cfg().merge_from_file(
            write(tmp_path / "key.yaml", "VERSION: 2\nSOLVER:\n  LEARNING_RATE: 1.0\n")
        )
    with pytest.raises(ValueError, match="Type mismatch"):
        get_cfg().merge_from_file(write(tmp_path / "type.yaml", "VERSION: 2\nSEED: one\n"))


def test_a_file_without_version_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = get_cfg()
    with caplog.at_level("WARNING"):
        cfg.merge_from_file(write(tmp_path / "plain.yaml", "SEED: 3\n"))
    assert cfg.SEED == 3
    assert "plain.yaml" in caplog.text
    assert "VERSION" in caplog.text


@pytest.mark.embedded_only
def test_a_file_without_any_key_changes_nothing(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path / "empty.yaml", "{}\n"))
    assert cfg == get_cfg()


@pytest.mark.embedded_only
def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        get_cfg().merge_from_file(str(tmp_path / "absent.yaml"))


def test_merge_from_list_converts_and_checks() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(
        ["SOLVER.BASE_LR", "0.5", "DATASETS.TEST", "('x',)", "SOLVER.STEPS", [1, 2]]
    )
    assert (cfg.SOLVER.BASE_LR, cfg.DATASETS.TEST, cfg.SOLVER.STEPS) == (0.5, ("x",), (1, 2))
    with pytest.raises(ValueError, match="Type mismatch"):
        cfg.merge_from_list(["SEED", "1.5"])
    with pytest.raises(AssertionError):
        cfg.merge_from_list(["NO.SUCH.KEY", "1"])


def test_a_frozen_config_cannot_be_changed() -> None:
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.SEED = 1
    cfg.defrost()
    cfg.SEED = 1
    assert cfg.SEED == 1


def test_global_cfg_stays_the_same_object() -> None:
    cfg = get_cfg()
    cfg.GLOBAL.HACK = 2.0
    set_global_cfg(cfg)
    assert global_cfg.GLOBAL.HACK == 2.0
    set_global_cfg(CfgNode())
    assert len(global_cfg) == 0


class Head:
    @configurable
    def __init__(self, *, channels: int, classes: int = 1, name: str = "plain") -> None:
        self.values = (channels, classes, name)

    @classmethod
    def from_config(cls, cfg: CfgNode, name: str = "from cfg") -> dict[str, Any]:
        return {"channels": cfg.MODEL.FPN.OUT_CHANNELS, "classes": 3, "name": name}


class NamedHead(Head):
    """A subclass that is not decorated again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_named = True


class OpenHead(Head):
    """Takes everything that is left over."""

    @classmethod
    def from_config(cls, cfg: CfgNode, **kwargs: Any) -> dict[str, Any]:
        return {"channels": 1, **kwargs}


def test_constructor_without_a_config() -> None:
    assert Head(channels=8).values == (8, 1, "plain")
    with pytest.raises(TypeError):
        Head()


@pytest.mark.parametrize("as_keyword", [False, True])
def test_constructor_with_a_config(as_keyword: bool) -> None:
    def build(cls: type[Head], **kwargs: Any) -> tuple[int, int, str]:
        return (cls(cfg=get_cfg(), **kwargs) if as_keyword else cls(get_cfg(), **kwargs)).values

    assert build(Head) == (256, 3, "from cfg")
    assert build(Head, classes=9) == (256, 9, "from cfg")  # not an argument of from_config
    assert build(Head, name="own") == (256, 3, "own")  # an argument of from_config
    assert build(OpenHead, classes=5) == (1, 5, "plain")
    assert build(NamedHead) == (256, 3, "from cfg")


def test_positional_arguments_go_to_from_config() -> None:
    assert Head(get_cfg(), "second").values == (256, 3, "second")
    with pytest.raises(TypeError):
        Head(get_cfg(), "second", "third")
    with pytest.raises(TypeError):
        Head(get_cfg(), no_such_argument=1)


def test_constructor_without_a_usable_from_config() -> None:
    class Without:
        @configurable
        def __init__(self, a: int = 1) -> None: ...

    class NotAClassmethod(Without):
        def from_config(self, cfg: CfgNode) -> dict[str, Any]:
            return {}

    class OtherFirstArgument(Without):
        @classmethod
        def from_config(cls, config: CfgNode) -> dict[str, Any]:
            return {}

    with pytest.raises(AttributeError, match="from_config"):
        Without(a=1)
    with pytest.raises(TypeError, match="from_config"):
        NotAClassmethod(a=1)
    with pytest.raises(TypeError, match="cfg"):
        OtherFirstArgument(get_cfg())


def test_function_with_a_config() -> None:
    @configurable(from_config=lambda cfg, width=2: {"depth": cfg.MODEL.RESNETS.DEPTH, "w": width})
    def describe(depth: int, w: int = 0, extra: str = "") -> tuple[int, int, str]:
        return depth, w, extra

    assert describe(1) == (1, 0, "")
    assert describe(get_cfg()) == (50, 2, "")
    assert describe(get_cfg(), width=4, extra="x", depth=7) == (7, 4, "x")
    assert describe(cfg=get_cfg()) == (50, 2, "")
    assert describe.__name__ == "describe"
    assert callable(describe.from_config)


def test_decorator_on_something_else() -> None:
    with pytest.raises(AssertionError):
        configurable(lambda a: a)
    with pytest.raises(AssertionError):
        configurable(from_config="not a function")

    class Parenthesised:
        @configurable()
        def __init__(self, a: int) -> None:
            self.a = a

        @classmethod
        def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
            return {"a": cfg.SEED}

    assert Parenthesised(get_cfg()).a == -1
