"""Going on with a training whose config has changed: what is kept, what is new, what is refused."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from cellseg.config.runs import LAST_FILE, read_last_name
from cellseg.config.trained import ENTRY, TrainedConfig, list_changes
from cellseg.engine.run_folder import list_checkpoints
from cellseg.errors import CheckpointError, collect_problems
from cellseg.limits import is_zip
from cellseg.modeling.weights import check_use
from cellseg.models.explaining import explain_unreadable, without_advice
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from torch import nn

_START_ANEW = (
    "Nothing was changed. To go on with this training set the config back. To begin another one "
    "from these weights, of which what fits is kept: MODEL.WEIGHTS {path}, another OUTPUT_DIR, "
    "and no --resume"
)
_SWITCHES = {  # of how an optimizer computes, or of one version of torch: not which one it is
    *("params", "param_names", "initial_lr", "foreach", "fused", "capturable", "differentiable"),
    *("maximize", "decoupled_weight_decay"),
}

logger = logging.getLogger(__name__)

State = dict[str, Any]


class _Reader(DetectionCheckpointer):
    """Gives what a file holds, the weights too, and loads nothing."""

    def _load_model(self, checkpoint: Any) -> None:
        return None


def find_last_checkpoint(output_dir: str | Path) -> Path | None:
    """The checkpoint that a training into a folder would resume from; None where there is none.

    It is the one that `last_checkpoint` names. Where that file is gone or names nothing that can
    be read, it is the newest whole checkpoint, which is logged.

    Raises:
        CheckpointError: there are checkpoints, or a note of one, and none is whole.
    """
    folder = Path(output_dir)
    name = read_last_name(folder)
    named = [folder / name] if name else []
    others = [path for path in list_checkpoints(folder) if path not in named]
    if not named and not others and not (folder / LAST_FILE).exists():
        return None
    wrong = [] if named else [f"{folder / LAST_FILE}: {_describe_note(folder)}"]
    for path in (*named, *sorted(others, key=_iteration_of, reverse=True)):
        problem = find_damage(path)
        if not problem:
            for line in wrong:
                logger.warning("%s. Going on from %s, the newest whole checkpoint", line, path.name)
            return path
        wrong.append(f"{path}: {problem}")
    raise CheckpointError(
        collect_problems(
            f"{folder}: no whole checkpoint to resume from",
            wrong,
            "Copy one back from where you keep copies, or begin anew: --overwrite instead of "
            "--resume, or another OUTPUT_DIR",
        )
    )


def _describe_note(folder: Path) -> str:
    path = folder / LAST_FILE
    return "names no file" if path.is_file() else "is gone"


def find_damage(path: Path) -> str:
    """Why a file is no checkpoint to resume from, every byte of it read; "" where it is one."""
    if not path.is_file():
        return "there is no such file"
    try:
        if is_zip(path):
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken is not None:
                return f"damaged: {broken} in it is not what was written"
        known = isinstance(_read(path).get("trainer", {}).get("iteration"), int)
        return "" if known else "it holds weights alone, and no training"
    except Exception as error:  # whatever unpickling raises
        return f"damaged, or no checkpoint: {explain_unreadable(error)}"


def _read(path: Path) -> Any:
    """What a file holds, of whose tensors none is read where that can be."""
    with without_advice():
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
        except pickle.UnpicklingError:  # older ones may hold numbers of NumPy, which engines know
            return _Reader(nn.Identity()).load(str(path), checkpointables=[])


def _iteration_of(path: Path) -> int:
    try:
        return int(_read(path)["trainer"]["iteration"])
    except Exception:  # it is damaged: the others first
        return -1


def check_resumable(path: Path, model: nn.Module, cfg: CfgNode) -> None:
    """Refuse to resume from a checkpoint of another model; what else has changed is logged.

    Args:
        path: the checkpoint; read, and not loaded.
        model: as `cfg` builds it; not changed.
        cfg: of the training that is to go on.

    Raises:
        CheckpointError: it cannot be read, or its weights do not fit the model, or mean something
            else in it.
    """
    advice = _START_ANEW.format(path=path)
    try:
        content = _Reader(nn.Identity()).load(str(path), checkpointables=[])
        shapes = {name: tuple(value.shape) for name, value in content["model"].items()}
    except Exception as error:  # whatever unpickling raises
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint: {explain_unreadable(error)}. To resume from "
            f"an earlier one write its name into {path.with_name(LAST_FILE)}"
        ) from error
    trained = TrainedConfig.from_entry(content.get(ENTRY))
    if trained is not None:
        try:
            check_use(trained, cfg, str(path))
        except CheckpointError as error:
            raise CheckpointError(f"{error}\n{advice}") from error
        for change in list_changes(trained, cfg):
            logger.info("Changed since %s: %s", path.name, change)
    wrong = [
        f"{name}: {list(shapes[name]) if name in shapes else 'nothing'} in the file, "
        f"{list(value.shape)} in the model"
        for name, value in model.state_dict().items()
        if shapes.get(name) != tuple(value.shape)
    ]
    if wrong:
        raise CheckpointError(
            collect_problems(f"{path}: the checkpoint of another model", wrong, advice)
        )


def fit_trainer_state(
    saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, base_lrs: Sequence[float]
) -> State:
    """The state of a `DefaultTrainer` for another optimizer or other settings of it.

    Learning rates and all other settings are those of the config now; Detectron2 goes on with those
    of the checkpoint, whatever the config says. What the optimizer has learned is kept if it is of
    the same kind over the same parameters; else it begins anew, which is logged.

    Args:
        saved: as the checkpoint has it; not changed.
        optimizer: of the training that goes on, as it was built.
        base_lrs: its learning rates before any schedule, one per group.
    """
    inner = dict(saved["_trainer"])
    inner["optimizer"] = _fit_optimizer(inner["optimizer"], optimizer.state_dict(), base_lrs)
    hooks = dict(saved.get("hooks", {}))
    if "base_lrs" in hooks.get("LRScheduler", {}):
        hooks["LRScheduler"] = {**hooks["LRScheduler"], "base_lrs": list(base_lrs)}
    return {**saved, "_trainer": inner, **({"hooks": hooks} if hooks else {})}


def _fit_optimizer(saved: State, fresh: State, base_lrs: Sequence[float]) -> State:
    first = saved["param_groups"][0]
    factor = first["lr"] / first["initial_lr"] if first.get("initial_lr") else 1.0
    groups = []
    for number, (group, base) in enumerate(zip(fresh["param_groups"], base_lrs)):
        then = saved["param_groups"][number] if number < len(saved["param_groups"]) else {}
        same = then.get("initial_lr") == base  # to the bit as it was
        groups.append({**group, "initial_lr": base, "lr": then["lr"] if same else base * factor})
    reason = _why_anew(saved, fresh)
    if reason:
        logger.warning(
            "The optimizer begins anew: %s. Weights and iteration are those of the checkpoint",
            reason,
        )
    return {"state": {} if reason else saved["state"], "param_groups": groups}


def _why_anew(saved: State, fresh: State) -> str:
    """Why the state of one optimizer is none for another; "" where it is."""
    then, now = saved["param_groups"], fresh["param_groups"]
    kinds = [{*groups[0]} - _SWITCHES for groups in (then, now)]
    if kinds[0] != kinds[1]:
        only = [", ".join(sorted(one - other)) for one, other in (kinds, kinds[::-1])]
        return f"another one is set (the checkpoint's has {only[0]}, now it is {only[1]})"
    if [len(group["params"]) for group in then] != [len(group["params"]) for group in now]:
        return "it has other groups of parameters (frozen parts, factors of learning rates)"
    return ""
