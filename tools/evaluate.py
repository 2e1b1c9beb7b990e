#!/usr/bin/env python
"""The command `cellseg evaluate`, from a checkout; `--help` says what it does."""

import sys

from cellseg.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
