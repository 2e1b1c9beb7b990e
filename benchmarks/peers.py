"""What it takes to run another program in a Python of its own."""

from __future__ import annotations

import os

OWN = ("PYTHONPATH", "VIRTUAL_ENV")
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def environment_of_peer(threads: int) -> dict[str, str]:
    """This process's environment without what names its own packages, with so many threads."""
    plain = {key: value for key, value in os.environ.items() if key not in OWN}
    return plain | dict.fromkeys(THREADS, str(threads))
