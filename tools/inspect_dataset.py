#!/usr/bin/env python
"""The command `cellseg inspect`, from a checkout; `--help` says what it does."""

import sys

from cellseg.cli.inspect import main

if __name__ == "__main__":
    sys.exit(main())
