"""Every file of configs/: it loads, builds, trains a step, predicts, repeats nothing, says why."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
import yaml
from cellseg import add_cellseg_config, load_config
from cellseg.config import find_config_file, read_config_tree
from cellseg.engine import CellTrainer
from cellseg.training_data.mapper import CellDatasetMapper
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = REPOSITORY / "configs"
BASE = CONFIGS / "base_mask_rcnn_R_50_FPN.yaml"
FILES = sorted(CONFIGS.rglob("*.yaml"))
AXES = ("data", "start")  # with "machine", which is complete by itself
RECIPES = [path for path in FILES if path.parent.name not in ("parts", *AXES)]
PARTS = sorted(set(FILES) - set(RECIPES))  # they go on top of another

MY_CELLS = "{root: my_cells, format: label_images, splits: [train, test]}"  # as in README.md
TINY = """
tiny_{count}: {{root: {root}, format: label_images, splits: [train], classes: {names}}}
"""
SMALL_IMAGES = {
    "MODEL.DEVICE": "cpu",
    "INPUT.MIN_SIZE_TRAIN": (32, 32),
    "INPUT.MIN_SIZE_TEST": 32,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 50,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "SOLVER.AMP.ENABLED": False,
    "DATASETS.TEST": (),
    "MODEL.WEIGHTS": "",
    "OUTPUT_DIR": "output",
    "CELLSEG.DATASETS.DECLARATIONS": ["my_cells.yaml", "tiny.yaml"],
}


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


each_file = pytest.mark.parametrize("path", FILES, ids=name)
each_recipe = pytest.mark.parametrize("path", RECIPES, ids=name)


@pytest.fixture(scope="module", autouse=True)
def user_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder: a my_cells.yaml, and an image of each dataset that a test trains on."""
    folder = tmp_path_factory.mktemp("user")
    lines = [f"my_cells: {MY_CELLS}"]
    for count in (1, 2, 3):
        names = [f"type_{number}" for number in range(count)]
        scene = builders.sixteen_bit((60, 90))
        root = builders.write_label_images(folder / f"tiny_{count}", "train", {"a": scene})
        if count > 1:
            cells = [names[k % count] for k in range(int(scene.labels.max()))]
            builders.write_classes(root, "train", "a", cells)
        lines.append(TINY.format(count=count, root=root, names=names))
    (folder / "my_cells.yaml").write_text(lines[0])
    (folder / "tiny.yaml").write_text("".join(lines[1:]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def tried() -> set[str]:
    """The configurations that a test has trained with."""
    return set()


def load(path: Path, **overrides: Any) -> CfgNode:
    """A recipe, or a part of one on the base that all recipes have."""
    if path in PARTS:
        together = Path(f"{path.stem}_on_the_base.yaml").absolute()
        together.write_text(yaml.safe_dump({"_BASE_": [str(BASE), str(path)]}))
        path = together
    pairs = [word for key, value in overrides.items() for word in (key, value)]
    return load_config(path, pairs)


@each_file
def test_loads_and_builds_at_full_size(path: Path) -> None:
    """Loading checks all names, datasets among them; nothing is computed on the meta device."""
    cfg = load(path, **{"MODEL.DEVICE": "meta"})
    with torch.device("meta"):
        model = build_model(cfg)
    resnet_50 = sum(parameter.numel() for parameter in model.backbone.bottom_up.parameters())
    assert 23e6 < resnet_50 < 24e6
    assert cfg.INPUT.MASK_FORMAT == "bitmask"
    assert cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS is False
    shapes = model.backbone.output_shape()
    assert len(cfg.MODEL.ANCHOR_GENERATOR.SIZES) in (1, len(cfg.MODEL.RPN.IN_FEATURES))
    assert set(cfg.MODEL.RPN.IN_FEATURES) <= set(shapes)


@each_recipe
def test_trains_a_step_and_predicts(path: Path, tiny_model: list[str], tried: set[str]) -> None:
    plain = load(path)
    trained_on = plain.DATASETS.TRAIN
    count = 1
    if trained_on:
        count = len(MetadataCatalog.get(trained_on[0]).get("thing_classes"))
    tiny = dict(zip(tiny_model[::2], tiny_model[1::2]))
    dataset = f"tiny_{count}_train"
    cfg = load(path, **tiny, **SMALL_IMAGES, **{"DATASETS.TRAIN": (dataset,)})
    if cfg.dump() in tried:  # recipes that differ in data, weights and folders only
        return
    np.random.seed(0)  # noqa: NPY002 (what the augmentations draw from)
    torch.manual_seed(0)
    model = CellTrainer.build_model(cfg)
    optimizer = CellTrainer.build_optimizer(cfg, model)
    (entry,) = DatasetCatalog.get(dataset)
    with EventStorage():
        losses = model([CellDatasetMapper(cfg, is_train=True)(entry)])
    total = sum(losses.values())
    assert torch.isfinite(total)
    assert "loss_mask" in losses
    total.backward()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step()
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters())]
    assert sum(moved) > len(moved) / 3

    model.eval()
    with torch.no_grad():
        (output,) = model([CellDatasetMapper(cfg, is_train=False)(entry)])
    assert output["instances"].image_size == (60, 90)
    assert output["instances"].pred_masks.shape[1:] == (60, 90)
    tried.add(cfg.dump())


@each_file
def test_says_what_it_is_for(path: Path) -> None:
    first = path.read_text("utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, as_python(value)


def as_python(value: Any) -> Any:
    """A value as it is after merging: "(1, 2)" is a tuple; tuples and lists compare equal."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return list(value) if isinstance(value, tuple) else value


def bases_of(path: Path) -> list[str]:
    named = yaml.safe_load(path.read_text("utf-8")).get("_BASE_", [])
    bases = [path.parent / each for each in ([named] if isinstance(named, str) else named)]
    return [str(each.resolve()) for each in ([BASE, *bases] if path in PARTS else bases)]


@each_file
def test_repeats_nothing_of_its_base(path: Path, tmp_path: Path) -> None:
    defaults = get_cfg()
    add_cellseg_config(defaults)
    given = dict(leaves(defaults))
    if bases := bases_of(path):
        together = tmp_path / "bases.yaml"
        together.write_text(yaml.safe_dump({"_BASE_": bases}))
        given |= leaves(read_config_tree(together).tree)
    own = yaml.safe_load(path.read_text("utf-8"))
    own.pop("_BASE_", None)
    if path == BASE:
        assert own.pop("VERSION") == 2
    repeated = [key for key, value in leaves(own) if key in given and given[key] == value]
    assert not repeated, f"{name(path)} repeats what its base gives: {', '.join(repeated)}"


def output_folders() -> dict[Path, str]:
    """OUTPUT_DIR by file, of those that are there to be run; the others are bases of these."""
    trees = {path: yaml.safe_load(path.read_text("utf-8")) for path in FILES}
    return {path: tree["OUTPUT_DIR"] for path, tree in trees.items() if "OUTPUT_DIR" in tree}


def test_recipes_write_to_folders_of_their_own() -> None:
    folders = list(output_folders().values())
    assert len(folders) > 10
    assert len(set(folders)) == len(folders)


def test_the_page_of_recipes_knows_them_all_and_no_others() -> None:
    page = (REPOSITORY / "docs/recipes.md").read_text("utf-8")
    named = re.findall(r"`(?:configs/)?([\w/]+\.yaml)`", page)
    known = {name(path) for path in output_folders()}
    elsewhere = {each for each in known if each.startswith(("sartorius/", "cell_types/"))}
    assert known - elsewhere - set(named) == set()
    assert {each for each in named if not (CONFIGS / each).is_file()} <= {"my_cells.yaml"}


def test_the_commands_of_the_pages_name_files_that_are_there() -> None:
    for page in ("docs/recipes.md", "docs/weights.md"):
        commands = Page(page).commands
        assert commands
        for command in commands:
            words = command.split()
            assert words[0] == "cellseg" or (REPOSITORY / words[1]).is_file()
            named = [word for word in words if word.endswith(".yaml")]
            assert words[words.index("--config-file") + 1] == named[0]
            for name_ in named:
                assert find_config_file(name_, REPOSITORY).is_file()


def test_the_recipe_that_the_page_writes_loads(user_folder: Path) -> None:
    text = Page("docs/recipes.md").files["my_recipe.yaml"]
    (user_folder / "my_recipe.yaml").write_text(text)
    cfg = load_config("my_recipe.yaml")
    assert cfg.MODEL.WEIGHTS.startswith("detectron2://COCO")
    assert cfg.CELLSEG.INPUT.SCALE == 1
    assert cfg.DATASETS.TRAIN == ("my_cells_train",)


def test_weights_for_80_classes_fit_but_for_the_last_layers(
    tiny_model: list[str], user_folder: Path
) -> None:
    """What start/coco.yaml starts from: the trainer loads all of it that has the model's shape."""
    tiny = dict(zip(tiny_model[::2], tiny_model[1::2]))
    coco = CONFIGS / "start/coco.yaml"
    of_coco = build_model(load(coco, **tiny, **SMALL_IMAGES, **{"MODEL.ROI_HEADS.NUM_CLASSES": 80}))
    weights = user_folder / "coco.pth"
    torch.save({"model": of_coco.state_dict()}, weights)
    ours = build_model(load(coco, **tiny, **SMALL_IMAGES))
    DetectionCheckpointer(ours).load(str(weights))
    theirs = of_coco.state_dict()
    anew = {key for key, value in ours.state_dict().items() if not torch.equal(value, theirs[key])}
    layers = {key.rpartition(".")[0].rpartition(".")[2] for key in anew}
    assert layers == {"cls_score", "bbox_pred", "predictor"}
