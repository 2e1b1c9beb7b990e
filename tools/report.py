#!/usr/bin/env python
"""The command `cellseg report`, from a checkout; `--help` says what it does."""

import sys

from cellseg.cli.report import main

if __name__ == "__main__":
    sys.exit(main())
