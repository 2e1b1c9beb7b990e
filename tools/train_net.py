#!/usr/bin/env python
"""The command `cellseg train`, from a checkout; `--help` says what it does."""

import sys

from cellseg.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("train"))
