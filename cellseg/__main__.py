"""`python -m cellseg`: the command `cellseg`."""

import sys

from cellseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
