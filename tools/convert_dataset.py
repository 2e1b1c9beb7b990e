#!/usr/bin/env python
"""The command `cellseg convert`, from a checkout; `--help` says what it does."""

import sys

from cellseg.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
