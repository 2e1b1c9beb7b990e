"""Paths that can be local files, web addresses or `detectron2://` names of published weights."""

from __future__ import annotations

from typing import IO, Any

from iopath.common.file_io import HTTPURLHandler, PathHandler
from iopath.common.file_io import PathManager as IopathPathManager

__all__ = ["PathHandler", "PathManager"]

PathManager = IopathPathManager()
"""The engine's own path manager: handlers added by other libraries do not reach it."""


class Detectron2Handler(PathHandler):
    """Files published by the Detectron2 project, `detectron2://<path>`; downloaded once."""

    PREFIX = "detectron2://"
    PUBLIC_FOLDER = "https://dl.fbaipublicfiles.com/detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _web_address(self, path: str) -> str:
        return self.PUBLIC_FOLDER + path.removeprefix(self.PREFIX)

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return PathManager.get_local_path(self._web_address(path), force=force, **kwargs)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return PathManager.open(self._web_address(path), mode, buffering, **kwargs)


for _handler in (HTTPURLHandler(), Detectron2Handler()):
    PathManager.register_handler(_handler)
