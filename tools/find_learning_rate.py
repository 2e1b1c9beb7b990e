#!/usr/bin/env python
"""The command `cellseg find-lr`, from a checkout; `--help` says what it does."""

import sys

from cellseg.cli.find_lr import main

if __name__ == "__main__":
    sys.exit(main())
