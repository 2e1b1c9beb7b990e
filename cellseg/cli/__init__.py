"""The command `cellseg`: one frame around the modules of this folder.

A module is a command, `find_lr.py` for instance `cellseg find-lr`; names with a leading underscore
are no commands. It has a docstring, which is what `--help` shows (its first line also stands in
`cellseg --help`), and two functions:

- `add_arguments(parser)` adds its arguments to a `CommandParser`;
- `run(args)` does the work and returns the exit status.

`run` may raise a `CellsegError`: the frame says it in one line and ends with status 1. Modules are
imported when their command is called, so that commands which need no torch do not load it.
`tools/*.py` are doors to the same commands.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import cellseg
from cellseg.cli._ending import end_well
from cellseg.cli._parser import CommandParser, named_plugins
from cellseg.interrupts import running
from cellseg.plugins import import_plugins

__all__ = ["command_names", "main", "parse_command", "run_command"]


def command_names() -> list[str]:
    """Names of all commands, as they are typed."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `cellseg`.

    Args:
        arguments: the words behind `cellseg`; those of the command line by default.

    Returns:
        Exit status of the command.

    Raises:
        SystemExit: `--help` or `--version` (0), or bad usage (2), as argparse does.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)

    def run() -> int:
        name = _outer_parser().parse_args(words[:1] or ["--help"]).command
        return run_command(name, words[1:], prog=f"cellseg {name}")

    return end_well(run)


def run_command(
    name: str, arguments: Sequence[str] | None = None, *, prog: str | None = None
) -> int:
    """Parse the arguments of one command and run it.

    Args:
        name: one of `command_names()`.
        arguments: the words behind the command; those of the command line by default.
        prog: what usage and help call it; the script's name by default.

    Returns:
        What the command's `run` returns; 1 after a `CellsegError` or an error of the system, such
        as a full disk, whose text went to the error stream; 130 after Ctrl-C, 143 after SIGTERM,
        129 after SIGHUP (see `cellseg.interrupts`), 141 where the reader of the output has gone.

    Raises:
        SystemExit: `--help` (0) or bad usage (2), as argparse does.
    """
    _silence_future_warnings()

    def run() -> int:
        args = parse_command(name, arguments, prog=prog)
        command = _import_command(name)
        with running():
            return int(command.run(args))

    return end_well(run)


def parse_command(
    name: str, arguments: Sequence[str] | None = None, *, prog: str | None = None
) -> argparse.Namespace:
    """The arguments of one command; see `run_command`.

    Raises:
        PluginError: what `--plugin` names cannot be imported.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    import_plugins(named_plugins(words))
    command = _import_command(name)
    parser = CommandParser(command.__doc__ or "", prog)
    command.add_arguments(parser)
    return parser.parse(words)


def _import_command(name: str):  # type: ignore[no-untyped-def]  # its two functions are duck-typed
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def _outer_parser() -> argparse.ArgumentParser:
    """A parser for the first word, which is a command or asks for help."""
    names = command_names()
    listed = "\n".join(f"  {name:<14}{_read_summary(name)}" for name in names)
    parser = argparse.ArgumentParser(
        prog="cellseg",
        usage="cellseg COMMAND [ARGUMENTS ...]",
        description=f"{(cellseg.__doc__ or '').partition(chr(10))[0]}\n\ncommands:\n{listed}",
        epilog="`cellseg COMMAND --help` describes a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cellseg {cellseg.__version__}")
    parser.add_argument("command", choices=names, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _read_summary(name: str) -> str:
    """First line of a command's docstring, without importing what the command needs."""
    path = Path(__file__).with_name(f"{name.replace('-', '_')}.py")
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return docstring.partition("\n")[0]


def _silence_future_warnings() -> None:
    """Keep torch's notes on its next version from those who only run a command.

    They are for whoever writes the code: `python -W default -m cellseg ...` shows them. Processes
    that the command starts inherit this through the environment.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore", FutureWarning)
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
