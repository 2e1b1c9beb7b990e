#!/usr/bin/env python
"""The command `cellseg tune`, from a checkout; `--help` says what it does."""

import sys

from cellseg.cli.tune import main

if __name__ == "__main__":
    sys.exit(main())
