"""What users and fate do to cellseg ends well; see README.md.

Kinds without signals, full disks and timers run with the other tests; all of them where
$CELLSEG_TRIALS is "all", for they need a machine that has nothing else to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALWAYS = (1, 9, 10)
KINDS = sorted({int(path.stem.split("_")[1]) for path in HERE.glob("kind_*.py")})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and looked at in /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_every_trial_ends_well(kind: int) -> None:
    if kind not in ALWAYS and os.environ.get("CELLSEG_TRIALS") != "all":
        pytest.skip("set CELLSEG_TRIALS to all for trials of every kind")
    words = [sys.executable, str(HERE), "--kind", str(kind), "--processes", "1"]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=850)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
