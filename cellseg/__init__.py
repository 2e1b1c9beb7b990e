"""cellseg: instance segmentation of cells in microscopy images with Mask R-CNN on Detectron2.

Importing cellseg makes `detectron2` importable: the installed one where there is one, else the
embedded engine. Names that need torch are loaded on first use, so that reading labels, scoring
and exporting work without it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

_is_command = os.path.basename(sys.argv[0] if sys.argv else "") in ("-m", "cellseg")
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # until `cellseg.interrupts` is there, Ctrl-C ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from cellseg.bootstrap import EngineInfo, engine_info, ensure_detectron2, watch_imports  # noqa: E402

__version__ = "0.2.0"

ensure_detectron2()
watch_imports()

_LAZY = {
    "MaskRCNN": "cellseg.modeling",
    "binarize": "cellseg.modeling",
    "maskrcnn_resnet50_fpn": "cellseg.modeling",
    "load": "cellseg.engine.loading",
    "load_config": "cellseg.engine.setup",
    "add_cellseg_config": "cellseg.config",
    "CellInstances": "cellseg.cells.instances",
}

__all__ = ["EngineInfo", "__version__", "engine_info", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'cellseg' has no attribute {name!r}")
