"""Stand-in for Detectron2: the part of its API that instance segmentation of cells uses.

Found by `import detectron2` only where no Detectron2 is installed. Parts that are left out have
names, whose use is an error that says that the full Detectron2 is needed.
"""

import os

from detectron2._missing import explain_missing_modules

__version__ = "0.6+cellseg"

explain_missing_modules()

if os.environ.get("DETECTRON2_ENV_MODULE"):
    from detectron2.utils.env import setup_environment

    setup_environment()
