"""Going on with a training whose config has changed: what is kept, what is new, what is refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from cellseg.config.runs import LAST_FILE
from cellseg.config.trained import ENTRY, TrainedConfig, list_changes
from cellseg.errors import CheckpointError, collect_problems
from cellseg.modeling.weights import check_use
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


def find_last_checkpoint(output_dir: str | Path) -> Path | None:
    """The checkpoint that a training into a folder would resume from; None where there is none.

    Raises:
        CheckpointError: `last_checkpoint` names a file that is gone.
    """
    note = Path(output_dir) / LAST_FILE
    if not note.is_file():
        return None
    name = note.read_text("utf-8").strip()
    path = note.with_name(name)
    if not name or not path.is_file():
        there = sorted(each.name for each in note.parent.glob("*.pth"))
        raise CheckpointError(
            f"{note} names {name!r}, and there is no such file; found "
            f"{', '.join(there) or 'no checkpoint'}. Write the name of the one to resume from into "
            f"{note}, or remove that file to begin anew"
        )
    return path


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
        content = DetectionCheckpointer(nn.Identity())._load_file(str(path))
        shapes = {name: tuple(value.shape) for name, value in content["model"].items()}
    except Exception as error:  # whatever unpickling raises
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint: {type(error).__name__}: {error}. Resume from "
            f"an earlier one: write its name into {path.with_name(LAST_FILE)}"
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
