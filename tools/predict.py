#!/usr/bin/env python
"""The command `cellseg predict`, from a checkout; `--help` says what it does."""

import sys

from cellseg.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
