#!/usr/bin/env python
"""The command `cellseg train`, from a checkout; `--help` says what it does."""

import sys

from cellseg.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
