"""Load weights, of a checkpoint or a bundle, and know whether they fitted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.arguments import FLAG, checked, either, of_type
from cellseg.config.trained import ENTRY, TrainedConfig, find_departures
from cellseg.errors import CheckpointError, collect_problems
from cellseg.limits import is_zip, open_zip
from cellseg.modeling.downloads import register_downloads
from cellseg.modeling.torchvision_weights import register_torchvision_weights
from cellseg.models import bundle_file, locate_bundle, open_bundle, suggest_model
from cellseg.models.explaining import explain_unreadable, without_advice
from cellseg.models.storage import check_tensors
from cellseg.pickles import ArraysOnly
from cellseg.rules import PATH, TEXT
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import Tensor, nn

_OWN_CONFIG = (
    "Leave these keys as they were in training. The file carries its config: in a folder without "
    "another config.yaml, `--model FILE` needs no more"
)

_AS_TRAINED = (
    "The model has to be built from the configuration it was trained with (number of classes, "
    "normalization, heads)."
)

logger = logging.getLogger(__name__)


class WeightsCheckpointer(DetectionCheckpointer):
    """Reads bundles too, and knows what they were trained with and what did not fit.

    Attributes:
        incompatible: what did not fit.
        trained: the config that the file carries; None where it carries none.
    """

    incompatible: Any = None
    trained: TrainedConfig | None = None

    def read(self, path: str) -> None:
        """Load the weights of a file.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            with without_advice():
                self.load(path, checkpointables=[])
        except CheckpointError as error:
            text = str(error)
            raise CheckpointError(text if path in text else f"{path}: {text}") from error
        except Exception as error:  # whatever unpickling or a download raises
            raise CheckpointError(
                f"{path}: cannot be read as a checkpoint: {explain_unreadable(error)}"
            ) from error
        self._check_matches(path)

    def _check_matches(self, path: str) -> None:
        """Refuse weights of which nothing fits the model; say how much does."""
        own = {name for name, value in self.model.state_dict().items() if value.is_floating_point()}
        wrong = {name for name, *_ in self.incompatible.incorrect_shapes}
        unmatched = sorted(own & {*self.incompatible.missing_keys, *wrong})
        if own and len(unmatched) == len(own):
            foreign = ", ".join(sorted(self.incompatible.unexpected_keys)[:3]) or "none"
            raise CheckpointError(
                f"{path}: its parameters do not fit: not one of the model's {len(own)} is in it; "
                f"{foreign} are, where {', '.join(sorted(own)[:3])} are expected. {_AS_TRAINED} "
                "To start from nothing, set MODEL.WEIGHTS ''"
            )
        if unmatched:
            logger.warning(
                "%s: %d of the model's %d parameters are in this file; the other %d start from "
                "random numbers, such as %s",
                *(path, len(own) - len(unmatched), len(own), len(unmatched)),
                ", ".join(unmatched[:3]),
            )

    def _convert_ndarray_to_tensor(self, state_dict: dict[str, Any]) -> None:
        """fvcore calls this with the weights before it copies them: here they are looked at."""
        strange = [name for name, value in state_dict.items() if not _is_array(value)]
        if strange:
            kind = type(state_dict[strange[0]]).__name__
            raise CheckpointError(
                f"its {strange[0]} is {kind} and no array of numbers; expected weights by name, "
                'or {"model": weights by name}'
            )
        super()._convert_ndarray_to_tensor(state_dict)
        named = {name.removeprefix("module."): value for name, value in state_dict.items()}
        check_tensors(named, self.model.state_dict())

    def _load_file(self, f: str) -> Any:
        if is_zip(f):
            with open_zip(f):  # unpacked it is no bomb
                pass
        bundle = locate_bundle(f)
        if bundle is not None:
            opened = open_bundle(bundle)
            trained = TrainedConfig(opened.read_config().tree, opened.card.classes)
            return {"model": opened.read_weights(), ENTRY: trained.to_entry()}
        if f.endswith(".pkl"):
            _refuse_code(f)  # an installed Detectron2 would run it
        return super()._load_file(f)

    def _load_model(self, checkpoint: Any) -> Any:
        self.trained = TrainedConfig.from_entry(checkpoint.get(ENTRY))
        self.incompatible = super()._load_model(checkpoint)
        return self.incompatible


def _refuse_code(path: str) -> None:
    """Refuse a pickle that names anything but arrays and plain containers."""
    with open(path, "rb") as stream:
        unpickler = ArraysOnly(stream, encoding="latin1")
        unpickler.load()
    if unpickler.others:
        raise CheckpointError(
            f"{path}: holds more than weights and might run code: it names "
            f"{', '.join(sorted(unpickler.others))}. Expected arrays in dicts and lists; take a "
            "file from elsewhere, or have its author save a .pth with tensors alone"
        )


def check_use(trained: TrainedConfig, cfg: CfgNode, path: str, *, is_start: bool = False) -> None:
    """Compare the config that weights were trained with and the one that they are used with.

    Keys of how images come to the network may differ for good reasons, and are told of. With
    others than its own anchors, mean or classes a network finds nothing: an error.

    Args:
        trained: what the file of weights carries.
        cfg: what they are used with.
        path: of the file, for messages.
        is_start: a training begins with them and may learn what differs: it is told of alone.

    Raises:
        CheckpointError: they make no sense with this config.
    """
    departures = find_departures(trained, cfg)
    wrong = [*departures.network, *_find_other_classes(trained, cfg)]
    told = list(departures.images)
    if is_start:
        wrong, told = [], [*wrong, *told]
    if told:
        header = f"{path}: used with another config than in training"
        logger.warning("%s", collect_problems(header, told))
    if wrong:
        header = f"{path}: these weights belong to another config, and would find nothing right"
        raise CheckpointError(collect_problems(header, wrong, _OWN_CONFIG))


def _find_other_classes(trained: TrainedConfig, cfg: CfgNode) -> Iterator[str]:
    """Data sets that have the classes of the weights in another order."""
    for name in dict.fromkeys((*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)):
        if name not in DatasetCatalog.list():
            continue
        classes = tuple(MetadataCatalog.get(name).get("thing_classes") or ())
        if classes != trained.classes and sorted(classes) == sorted(trained.classes):
            yield (
                f"the classes of {name} are {', '.join(classes)}, in this order; the weights were "
                f"trained with {', '.join(trained.classes)}"
            )


@checked(
    model=of_type(nn.Module, "a model"),
    path=either(PATH, TEXT),
    partial=FLAG,
    cfg=of_type(CfgNode, "a config, as load_config gives it"),
)
def load_weights(
    model: nn.Module, path: str | Path, *, partial: bool = False, cfg: CfgNode | None = None
) -> None:
    """Load a checkpoint of `tools/train_net.py`, a bundle, a `state_dict` or a model-zoo file.

    Args:
        model: a model of the engine, or a `MaskRCNN`; changed in place.
        path: `.pth` or `.pkl`; a path, or a URL that Detectron2's path manager knows; or a model
            bundle: its folder, its zip or its name.
        partial: allow parameters that the file does not hold in their shape, as fine-tuning with
            other classes needs; they keep their values and are logged.
        cfg: what `model` was built from; checkpoints of cellseg carry the config of their training,
            which is compared with it: see `check_use`. Files of others are not compared.

    Raises:
        CheckpointError: the file is missing or cannot be read; its weights belong to another config
            (with `partial`: a warning); it lacks parameters of the model, or has them in another
            shape (with `partial`: all of them). The model may then hold some of the file's values.
    """
    path = find_weights_file(str(path))
    checkpointer = WeightsCheckpointer(model)
    register_downloads()  # for models that no configuration file was read for
    register_torchvision_weights()
    checkpointer.read(path)
    trained = checkpointer.trained if cfg is not None else None
    problems = _describe_misfits(checkpointer.incompatible)
    departures = find_departures(trained, cfg).network if trained is not None else ()
    if len(problems) > (len(model.state_dict()) - 1 if partial else 0):
        raise CheckpointError(
            collect_problems(
                f"{path}: parameters that do not fit the model",
                problems,
                "\n".join([_AS_TRAINED, *departures]),
            )
        )
    if trained is not None and cfg is not None:
        check_use(trained, cfg, path, is_start=partial)


def find_weights_file(weights: str) -> str:
    """The file that a value of `MODEL.WEIGHTS` means.

    Args:
        weights: a path, a URL, or what names a bundle; see `load_weights`.

    Returns:
        `weights` as given where it is a file; that of a bundle. URLs are left to the path manager.

    Raises:
        CheckpointError: it is empty, or there is no such file.
    """
    file = weights.partition("?")[0]  # behind it: options of Detectron2's checkpointer
    if "://" in file:
        return weights
    bundle = locate_bundle(file) if file else None
    if bundle is not None:
        return str(bundle_file(bundle))
    if file and Path(file).is_dir():
        raise CheckpointError(
            f"{weights}: is a folder: no such checkpoint file or model bundle; expected a file as "
            "<OUTPUT_DIR>/model_final.pth"
        )
    if not Path(file).is_file():
        hint = suggest_model(file) if file else ""
        raise CheckpointError(
            f"{weights or 'MODEL.WEIGHTS is empty'}: no such checkpoint file or model bundle "
            f"(current folder: {Path.cwd()}); a trained model is in <OUTPUT_DIR>/model_final.pth"
            f"{hint and f'; {hint}'}"
        )
    return weights


def start_from(model: nn.Module, cfg: CfgNode) -> None:
    """Load the weights that a training starts from; what does not fit is logged.

    Args:
        model: of the trainer; changed in place.
        cfg: of the training; `MODEL.WEIGHTS` is empty to start from nothing. Where it departs from
            the config that the weights were trained with, that is logged.

    Raises:
        CheckpointError: it names no file, one that cannot be read, or a bundle that cannot be used.
    """
    if not cfg.MODEL.WEIGHTS:
        return
    path, checkpointer = find_weights_file(cfg.MODEL.WEIGHTS), WeightsCheckpointer(model)
    checkpointer.read(path)
    if checkpointer.trained is not None:
        check_use(checkpointer.trained, cfg, path, is_start=True)


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
    )


def _describe_misfits(incompatible: Any) -> list[str]:
    wrong_shapes = {
        name: f"{name}: {list(found)} in the file, {list(expected)} in the model"
        for name, found, expected in incompatible.incorrect_shapes
    }
    missing = [name for name in incompatible.missing_keys if name not in wrong_shapes]
    return [*wrong_shapes.values(), *(f"{name}: not in the file" for name in missing)]
