"""The config node: YAML files with `_BASE_`, type-checked merging, freezing."""

from __future__ import annotations

import logging
from typing import IO, Any

from detectron2._missing import FULL_ENGINE_HINT
from detectron2.utils.file_io import PathManager
from fvcore.common.config import CfgNode as FvcoreCfgNode

CONFIG_VERSION = 2
"""The only layout of keys that the embedded engine reads."""


class CfgNode(FvcoreCfgNode):
    """fvcore's config node that opens files through `PathManager` and checks `VERSION`."""

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[Any]:
        return PathManager.open(filename, "r")

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Merge a YAML file, and the files that its `_BASE_` names, into this config.

        Args:
            cfg_filename: path or URL; relative `_BASE_` paths start at the file's own folder.
            allow_unsafe: also read YAML tags that build Python objects. Such a file can run
                any code: read it before merging it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file was written for another `VERSION` of the keys, or a value has
                another type than the default.
            KeyError: a key does not exist.
        """
        if not PathManager.isfile(cfg_filename):
            raise FileNotFoundError(f"Config file {cfg_filename!r} does not exist")
        content = self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe) or {}
        if "VERSION" not in content:
            logging.getLogger(__name__).warning(
                "%s has no VERSION; reading it as VERSION %d", cfg_filename, CONFIG_VERSION
            )
        elif content["VERSION"] != CONFIG_VERSION:
            raise ValueError(
                f"{cfg_filename} has VERSION {content['VERSION']}; the embedded engine reads "
                f"VERSION {CONFIG_VERSION} only. To convert older files, {FULL_ENGINE_HINT}."
            )
        self.merge_from_other_cfg(type(self)(content))


global_cfg = CfgNode()
"""A config that any code can reach; filled by `set_global_cfg`."""


def set_global_cfg(cfg: CfgNode) -> None:
    """Replace the content of `global_cfg`, which stays the same object, by that of `cfg`."""
    global_cfg.clear()
    global_cfg.update(cfg)
