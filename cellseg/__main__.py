"""`python -m cellseg`: the command `cellseg`."""

import sys

from cellseg.interrupts import ignore_signals, watched


def main() -> int:
    """The command, and how a signal ends it from the first import on."""
    with watched():
        from cellseg import cli

        status = cli.main()
    if status > 128:  # interrupted: whoever asks again does not hit Python tidying up
        ignore_signals()
    return status


if __name__ == "__main__":
    sys.exit(main())
