"""The checkpointer of detection models: reads the model zoo's files, and runs no code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.checkpoint.safe_pickle import NUMPY_SCALARS, load_weights_pickle
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from torch import nn

_UNREADABLE = (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, AttributeError, KeyError)


class DetectionCheckpointer(Checkpointer):
    """Loads `.pth` files and the model zoo's `.pkl` files; saves as fvcore does.

    A path may end in `?matching_heuristics=True`: names are then matched by their endings (see
    `align_and_update_state_dicts`). No file that is loaded can run code.

    Args:
        model: module whose weights are loaded and saved.
        save_dir: folder of the checkpoints; empty to save nothing.
        save_to_disk: None lets only the main process save.
        **checkpointables: further objects with `state_dict` and `load_state_dict`.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager
        self._match_by_ending = False

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a file into the model and the checkpointables.

        Args:
            path: local path or URL, with an optional query (see the class); empty for nothing.
            *args: names of the checkpointables to load, all by default, as in fvcore.
            **kwargs: the same by name (`checkpointables`).

        Returns:
            What the file holds besides.

        Raises:
            FileNotFoundError: there is no such file.
            RuntimeError: the file is damaged, or it tries to run code.
            ValueError: an unknown query.
        """
        if not path:
            return super().load(path, *args, **kwargs)
        file, self._match_by_ending = _split_query(path)
        local = self.path_manager.get_local_path(file)
        if not os.path.isfile(local):
            raise FileNotFoundError(f"Checkpoint {file} not found")
        if local != path:
            self.logger.info("%s is read from %s", path, local)
        try:
            return super().load(local, *args, **kwargs)
        finally:
            self._match_by_ending = False

    def _load_file(self, f: str) -> dict[str, Any]:
        try:
            loaded = self._read_pkl(f) if f.endswith(".pkl") else self._torch_load(f)
        except _UNREADABLE as error:
            raise RuntimeError(
                f"Checkpoint {f} cannot be loaded: it is damaged, or it holds more than weights "
                f"and plain values and might run code ({error})"
            ) from error
        if not isinstance(loaded, dict):
            raise RuntimeError(f"Checkpoint {f} holds a {type(loaded).__name__}, not a dict")
        if "model" not in loaded:
            loaded = {"model": loaded}
        if self._match_by_ending:
            loaded["matching_heuristics"] = True
        return loaded

    def _torch_load(self, f: str) -> Any:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            return torch.load(f, map_location="cpu", weights_only=True)

    def _read_pkl(self, f: str) -> Any:
        with self.path_manager.open(f, "rb") as file:
            content = load_weights_pickle(file)
        if "model" in content and "__author__" in content:
            self.logger.info("The file was made by %s", content["__author__"])
            return content
        # A file of Caffe2: detectors keep their weights under "blobs", classifiers on top.
        blobs = content.get("blobs", content)
        weights = {name: blob for name, blob in blobs.items() if not name.endswith("_momentum")}
        return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}

    def _load_model(self, checkpoint: Any) -> Any:
        weights = checkpoint["model"]
        if checkpoint.get("matching_heuristics"):
            is_caffe2 = checkpoint.get("__author__") == "Caffe2"
            self._convert_ndarray_to_tensor(weights)
            weights = align_and_update_state_dicts(self.model.state_dict(), weights, is_caffe2)
            checkpoint["model"] = weights
        incompatible = super()._load_model(checkpoint)
        # Neither is worth a warning: mean and std come from the config where an old file lacks
        # them, and anchors, which old files have, are computed.
        from_config = {"pixel_mean", "pixel_std"}.intersection(self.model._buffers)
        _drop(incompatible.missing_keys, lambda key: key in from_config)
        _drop(incompatible.unexpected_keys, lambda key: "anchor_generator.cell_anchors" in key)
        return incompatible


def _drop(keys: list[str], is_unwanted: Callable[[str], bool]) -> None:
    keys[:] = [key for key in keys if not is_unwanted(key)]


def _split_query(path: str) -> tuple[str, bool]:
    """Path without its query, and whether names are to be matched by their endings."""
    path, _, fragment = path.partition("#")
    file, _, query = path.partition("?")
    file += fragment and f"#{fragment}"
    options = parse_qs(query)
    match_by_ending = options.pop("matching_heuristics", ["False"]) == ["True"]
    if options:
        raise ValueError(f"Unknown option {sorted(options)} in checkpoint path {path}")
    return file, match_by_ending
