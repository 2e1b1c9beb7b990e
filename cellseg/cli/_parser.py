"""The arguments that commands share, and how they are parsed alike."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cellseg
from cellseg.rules import Rule, number

# `SOLVER.MAX_ITER`, `SEED`; not `IMAGE.TIF` where such a file exists.
_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+|OUTPUT_DIR|SEED")


class CommandParser(argparse.ArgumentParser):
    """A parser whose positional arguments may stand between and behind the options.

    Args:
        description: shown as it is; a command's docstring.
        prog: what usage and help call the command; the script's name where None.
    """

    def __init__(self, description: str, prog: str | None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=form)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # -1e-3 too is no option
        self._takes_several_configs = False
        version = f"cellseg {cellseg.__version__}"
        self.add_argument("--version", action="version", version=version)
        self.add_argument(
            "--plugin",
            action="append",
            default=[],
            metavar="FILE",
            help="module or .py file of yours, imported before all else, whose formats and metrics "
            "are then known; may be given several times",
        )

    def add_config_option(self, *, required: bool = True) -> None:
        """Add `--config-file`; its value is the list of files, later ones over earlier ones.

        Args:
            required: whether it has to be given; None is the value where it is not.
        """
        self._takes_several_configs = True
        self.add_argument(
            "--config-file",
            action="append",
            required=required,
            metavar="FILE",
            help="YAML config, or the name of a recipe (`cellseg info` lists them) or a model "
            "(`cellseg info --models`); of several (FILE FILE ...) the later ones win",
        )

    def add_model_options(self) -> None:
        """Add `--model`, and `--config-file` for a model that is no folder of a run."""
        self.add_config_option(required=False)
        self.add_argument(
            "--model",
            metavar="MODEL",
            help="OUTPUT_DIR of a run of `cellseg train`, a checkpoint in one, or a model bundle: "
            "its folder, its zip, or its name (`cellseg info --models`); --config-file changes its "
            "settings",
        )

    def add_overrides(self) -> None:
        """Add `KEY VALUE ...`, which `--opts` takes too; to be called after other positionals."""
        self.add_argument(
            "opts",
            nargs="*",
            default=[],
            metavar="KEY VALUE",
            help="config keys and values; they win over the config files",
        )
        self._add_opts()

    def add_inputs_and_overrides(self, what: str) -> None:
        """Add `INPUT ... KEY VALUE ...`: `inputs` holds the words before the first config key.

        Args:
            what: what the inputs are, for the help.
        """
        self.add_argument(
            "inputs",
            nargs="*",
            default=[],
            metavar="INPUT",
            help=f"{what}; behind them KEY VALUE ..., config keys and values that win over the "
            "config files",
        )
        self.add_argument("--input", nargs="+", default=[], help=argparse.SUPPRESS)
        self._add_opts()

    def _add_opts(self) -> None:
        self.add_argument(
            "--opts",
            dest="more_opts",
            nargs="*",
            default=[],
            metavar="KEY VALUE",
            help="the same; it may stand before other options",
        )

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse `words`; where there are overrides, `opts` holds all of them in their order."""
        args = self.parse_intermixed_args(
            _repeat_config_option(words) if self._takes_several_configs else list(words)
        )
        if hasattr(args, "inputs"):
            args.inputs, args.opts = split_off_overrides([*args.input, *args.inputs])
        if hasattr(args, "opts"):
            args.opts = [*args.opts, *args.more_opts]
        return args


def number_in(rule: Rule, *, whole: bool = False) -> Callable[[str], Any]:
    """The `type` of an argument that is a number which a rule accepts.

    Args:
        rule: of `cellseg.rules`.
        whole: 3 and not 3.0.

    Example:
        >>> number_in(number(1, whole=True), whole=True)("0")
        Traceback (most recent call last):
        ...
        argparse.ArgumentTypeError: '0': expected a whole number, 1 or more
    """

    def parse(text: str) -> Any:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = None
        if not rule.accepts(value):
            raise argparse.ArgumentTypeError(f"{text!r}: expected {rule.expected}")
        return value

    return parse


def at_least(low: int) -> Callable[[str], Any]:
    """The `type` of an argument that is a whole number, this one or more."""
    return number_in(number(low, whole=True), whole=True)


def named_plugins(words: Sequence[str]) -> list[str]:
    """What `--plugin` names, found before a parser is built whose choices plug-ins add to.

    Example:
        >>> named_plugins(["--to", "yolo", "--plugin", "yolo_format.py"])
        ['yolo_format.py']
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--plugin", action="append", default=[])
    try:
        return list(parser.parse_known_args(list(words))[0].plugin)
    except argparse.ArgumentError:  # --plugin without a file: the command's parser says so
        return []


def split_off_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part `KEY VALUE ...` from the paths before it, which one option has taken all together.

    Args:
        words: paths, then perhaps config keys with their values.

    Returns:
        The paths, and the words from the first on that is a key and no file.

    Example:
        >>> split_off_overrides(["images", "SOLVER.MAX_ITER", "9"])
        (['images'], ['SOLVER.MAX_ITER', '9'])
    """
    for place, word in enumerate(words):
        if _KEY.fullmatch(word) and not Path(word).exists():
            return list(words[:place]), list(words[place:])
    return list(words), []


def _repeat_config_option(words: Sequence[str]) -> list[str]:
    """Turn `--config-file A.yaml B.yaml` into `--config-file A.yaml --config-file B.yaml`.

    An option with any number of values would take the overrides behind it, too.
    """
    repeated: list[str] = []
    in_files = False
    for word in words:
        is_first = bool(repeated) and repeated[-1] == "--config-file"
        if in_files and not is_first and word.endswith((".yaml", ".yml")):
            repeated.append("--config-file")
        elif not is_first:
            in_files = word == "--config-file" or word.startswith("--config-file=")
        repeated.append(word)
    return repeated


def add_category_ids(parser: argparse.ArgumentParser) -> None:
    """`--category-ids`, for commands that read COCO results."""
    parser.add_argument(
        "--category-ids",
        nargs="+",
        metavar="HOW",
        help="how COCO results count classes where the file leaves it open: "
        "from-0, from-1, dataset (by the data set's own ids), or the id of each class",
    )
