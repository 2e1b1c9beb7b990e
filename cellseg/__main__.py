"""`python -m cellseg`: the command `cellseg`."""

import sys

from cellseg.interrupts import starting, watched


def main() -> int:
    """The command, and how a signal ends it from the first import on."""
    with watched():
        with starting():
            from cellseg import cli
        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
