"""The config node: YAML files with `_BASE_`, type-checked merging, freezing."""

from __future__ import annotations

import logging
from typing import IO, Any

from detectron2.config.compat import (
    LATEST_VERSION,
    downgrade_config,
    guess_version,
    upgrade_config,
)
from detectron2.utils.file_io import PathManager
from fvcore.common.config import CfgNode as FvcoreCfgNode


class CfgNode(FvcoreCfgNode):
    """fvcore's config node that opens files through `PathManager` and heeds `VERSION`."""

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[Any]:
        return PathManager.open(filename, "r")

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Merge a YAML file, and the files that its `_BASE_` names, into this config.

        A file for an older `VERSION` of the keys is merged into them; the result is as new as
        before.

        Args:
            cfg_filename: path or URL; relative `_BASE_` paths start at the file's own folder.
            allow_unsafe: also read YAML tags that build Python objects. Such a file can run
                any code: read it before merging it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file was written for a later `VERSION` of the keys, or a value has
                another type than the default.
            KeyError: a key does not exist.
        """
        if not PathManager.isfile(cfg_filename):
            raise FileNotFoundError(f"Config file {cfg_filename!r} does not exist")
        content = self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe) or {}
        loaded = type(self)(content)
        version = loaded.get("VERSION")
        if version is None:
            version = guess_version(loaded, cfg_filename)
        if version > LATEST_VERSION:
            raise ValueError(
                f"{cfg_filename} has VERSION {version}; the newest known is {LATEST_VERSION}"
            )
        if version == LATEST_VERSION:
            self.merge_from_other_cfg(loaded)
        else:
            self._merge_older(loaded, version, cfg_filename)

    def _merge_older(self, loaded: FvcoreCfgNode, version: int, cfg_filename: str) -> None:
        logging.getLogger(__name__).warning(
            "%s has VERSION %d; its keys are read as those of VERSION %d",
            cfg_filename,
            version,
            LATEST_VERSION,
        )
        older = downgrade_config(self, version)
        older.merge_from_other_cfg(loaded)
        merged = upgrade_config(older)
        self.clear()
        self.update(merged)


global_cfg = CfgNode()
"""A config that any code can reach; filled by `set_global_cfg`."""


def set_global_cfg(cfg: CfgNode) -> None:
    """Replace the content of `global_cfg`, which stays the same object, by that of `cfg`."""
    global_cfg.clear()
    global_cfg.update(cfg)
