"""What is kept of an iteration whose loss or gradient is not finite, and how to repeat it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from cellseg.errors import TrainingError
from detectron2.utils import comm
from PIL import Image
from torch import nn

FOLDER = "non_finite"
_ADVICE = (
    "Look at these images and their targets first. If they are as they should be, lower "
    "SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or set SOLVER.CLIP_GRADIENTS.ENABLED True; "
    "--resume goes on from the last checkpoint, which was not touched (docs/optimizer.md)"
)
_MOST_FILES = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepInputs:
    """All that the losses of an iteration depend on, beside the weights.

    Attributes:
        parts: the batch, in the parts that were given to the model one after the other.
        random_state: of PyTorch when the iteration began, by device type.
        precision: of the mixed precision; None without.
    """

    iteration: int
    parts: Sequence[Any]
    random_state: Mapping[str, torch.Tensor]
    precision: torch.dtype | None

    @property
    def images(self) -> list[Mapping[str, Any]]:
        """The entries of the batch, as far as it is made of Detectron2's dicts."""
        entries = [entry for part in self.parts if isinstance(part, list) for entry in part]
        return [entry for entry in entries if isinstance(entry, Mapping)]


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """PyTorch's random state, as far as a model on `device` draws from it."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def stop_training(
    inputs: StepInputs,
    model: nn.Module,
    reason: str,
    *,
    losses: Mapping[str, float],
    output_dir: str | Path | None,
    together: bool = True,
) -> NoReturn:
    """Write what is needed to look into it, and raise.

    Args:
        model: with the weights from before the update.
        reason: what was found not to be finite, in words.
        losses: as far as they are known.
        output_dir: the files go into a folder of their own in `non_finite/` below it; None: none
            are written.
        together: all processes of the run call this; the error then speaks of all of them.

    Raises:
        TrainingError: always.
    """
    model = getattr(model, "module", model)
    mine = _describe_stop(inputs, reason, losses)
    if output_dir is not None:
        folder = (
            Path(output_dir) / FOLDER / f"iteration_{inputs.iteration:07d}_rank{comm.get_rank()}"
        )
        mine += f" {_try_to_write(folder, inputs, model, reason, losses, together)}"
    # nobody ends before all have written: the end of one process ends the others
    everyone = comm.all_gather(mine) if together else [mine]
    raise TrainingError("\n".join([f"Iteration {inputs.iteration}:", *everyone, _ADVICE]))


def _describe_stop(inputs: StepInputs, reason: str, losses: Mapping[str, float]) -> str:
    files = [str(image.get("file_name", "an image without a name")) for image in inputs.images]
    more = f", and {len(files) - _MOST_FILES} more" if len(files) > _MOST_FILES else ""
    who = f"process {comm.get_rank()}: " if comm.get_world_size() > 1 else ""
    values = ", ".join(f"{name} {value:.6g}" for name, value in losses.items()) or "not computed"
    return f"{who}{reason}. Losses: {values}. Images: {', '.join(files[:_MOST_FILES])}{more}."


def _try_to_write(folder: Path, *arguments: Any) -> str:
    try:
        _write_step(folder, *arguments)
    except Exception as error:  # whatever it is: the reason of the stop is what has to be told
        logger.exception("%s could not be written", folder)
        return f"The batch could not be saved: {error}."
    return f"Saved in {folder}."


def _write_step(
    folder: Path,
    inputs: StepInputs,
    model: nn.Module,
    reason: str,
    losses: Mapping[str, float],
    together: bool,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "iteration": inputs.iteration,
        "reason": reason,
        "losses": {name: str(value) for name, value in losses.items()},
        "parameters_not_finite": _names_not_finite(model, of_gradients=False),
        "gradients_not_finite": _names_not_finite(model, of_gradients=True),
        "images": [_describe_image(image) for image in inputs.images],
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    for number, image in enumerate(inputs.images):
        if isinstance(image.get("image"), torch.Tensor):
            _to_picture(image["image"]).save(folder / f"image_{number}.png")
    torch.save(vars(inputs), folder / "batch.pth")
    if comm.is_main_process() or not together:  # they are the same in all processes
        torch.save({"model": model.state_dict()}, folder / "model.pth")


def _names_not_finite(model: nn.Module, *, of_gradients: bool) -> list[str]:
    tensors = {n: p.grad if of_gradients else p for n, p in model.named_parameters()}
    return [n for n, t in tensors.items() if t is not None and not bool(t.isfinite().all())]


def _describe_image(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Names, size, range and targets; boxes in pixels of the network's image."""
    found = {key: str(entry[key]) for key in ("file_name", "image_id") if key in entry}
    pixels = entry.get("image")
    described: dict[str, Any] = dict(found)
    if isinstance(pixels, torch.Tensor):
        values = pixels.double()
        described |= {
            "image_hw": list(pixels.shape[-2:]),
            "range": [str(float(values.min())), str(float(values.max()))],
            "pixels_not_finite": int((~values.isfinite()).sum()),
        }
    if "instances" in entry:
        targets = entry["instances"]
        described["boxes_xyxy"] = targets.gt_boxes.tensor.tolist()
        described["classes"] = targets.gt_classes.tolist()
    return described


def _to_picture(image: torch.Tensor) -> Image.Image:
    """[C, H, W], 0 to 255, as it was given to the model: colours in the order of INPUT.FORMAT."""
    pixels = np.nan_to_num(image.float().cpu().numpy()).clip(0, 255).astype(np.uint8)
    pixels = np.moveaxis(pixels, 0, -1)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] != 3 else pixels)


def replay_step(model: nn.Module, folder: str | Path) -> list[dict[str, float]]:
    """Compute the losses of a saved iteration again, without their gradients.

    Args:
        model: of the same config; takes the weights of `model.pth` in `folder`, if that is there
            (one process of a run writes it), and is put into training mode.
        folder: one of those in `non_finite/`. It is unpickled: open only what you trust.

    Returns:
        The losses of each part of the batch.

    Raises:
        FloatingPointError: the model itself finds that it has diverged.
    """
    from detectron2.utils.events import EventStorage

    folder = Path(folder)
    if (folder / "model.pth").is_file():
        weights = torch.load(folder / "model.pth", map_location="cpu", weights_only=True)
        model.load_state_dict(weights["model"])
    saved = StepInputs(**torch.load(folder / "batch.pth", map_location="cpu", weights_only=False))
    device = next(model.parameters()).device
    model.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), EventStorage():
        torch.set_rng_state(saved.random_state["cpu"])
        if device.type == "cuda" and "cuda" in saved.random_state:
            torch.cuda.set_rng_state(saved.random_state["cuda"], device)
        with torch.no_grad(), mixed_precision(device.type, saved.precision):
            return [_to_numbers(model(part)) for part in saved.parts]


def mixed_precision(device_type: str, precision: torch.dtype | None) -> torch.autocast:
    """PyTorch's context for a forward pass; without a precision it changes nothing."""
    return torch.autocast(device_type, dtype=precision, enabled=precision is not None)


def _to_numbers(losses: Any) -> dict[str, float]:
    named = {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses
    return {name: float(value) for name, value in named.items()}


def find_not_finite(losses: Mapping[str, float], gradient_norm: float) -> str:
    """Which of the values are not finite, in words; empty if all are."""
    names = [name for name, value in losses.items() if not math.isfinite(value)]
    if names:
        return f"not finite: {', '.join(names)}"
    return "" if math.isfinite(gradient_norm) else "the gradient is not finite, the losses are"
