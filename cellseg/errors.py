"""What a user of cellseg can do something about.

    CellsegError
    ├── ConfigError       a key, a value or a combination in the configuration   (ValueError)
    ├── DatasetError      a declaration, a tree on disk, an annotation           (ValueError)
    ├── LabelError        a label image, a mask or a set of cells in memory      (ValueError)
    ├── ImageReadError    one image file                                         (OSError)
    │   └── ImageChoiceError  several channels, pages or scenes, none of them chosen
    ├── InputValueError   a value given to the model                             (ValueError)
    ├── InputTypeError    a type given to the model                              (TypeError)
    ├── PluginError       user code named by CELLSEG.PLUGINS                     (ImportError)
    ├── LibraryError      a library that is missing or cannot be loaded          (ImportError)
    ├── CheckpointError   a weights file                                         (RuntimeError)
    ├── TrainingError     a training that cannot go on                           (RuntimeError)
    ├── CorrectionError   corrections of cells, and the folder they are kept in  (ValueError)
    │   └── CorrectionsInUseError  another window corrects in that folder
    ├── ExportError       a model that cannot be written for other programs      (RuntimeError)
    └── ClusterError      machines that work together                            (RuntimeError)

Every message names the file or key, what was found, what was expected and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_PROBLEMS_LISTED = 50
_NAMES_BREAK, _SHOWN_BREAK = re.compile(r"\n(?! )"), r"\\n"


class CellsegError(Exception):
    """Base of all errors that cellseg raises for reasons a user can mend."""


class ConfigError(CellsegError, ValueError):
    """A configuration file, key or value cannot be used."""


class DatasetError(CellsegError, ValueError):
    """A dataset declaration or the files behind it cannot be used."""


class LabelError(CellsegError, ValueError):
    """A label image, a mask or a set of cells is inconsistent."""


class ImageReadError(CellsegError, OSError):
    """An image file cannot be read."""


class ImageChoiceError(ImageReadError):
    """A file holds several channels, pages or scenes, and nobody said which one is meant."""


class InputValueError(CellsegError, ValueError):
    """A value, shape or range given to the model cannot be used."""


class InputTypeError(CellsegError, TypeError):
    """A type or dtype given to the model cannot be used."""


class PluginError(CellsegError, ImportError):
    """Code named by CELLSEG.PLUGINS cannot be imported."""


class LibraryError(CellsegError, ImportError):
    """A library that cellseg needs is not installed, or cannot be loaded on this machine."""


class CheckpointError(CellsegError, RuntimeError):
    """A weights file cannot be loaded."""


class TrainingError(CellsegError, RuntimeError):
    """A training cannot begin or go on: no finite losses, no room, or a folder that is in use."""


class CorrectionError(CellsegError, ValueError):
    """A correction cannot be made, or a folder of corrections cannot be used."""


class CorrectionsInUseError(CorrectionError):
    """A folder of corrections is open in another window."""


class ExportError(CellsegError, RuntimeError):
    """A model cannot be written for other programs, or would not be the same there."""


class ClusterError(CellsegError, RuntimeError):
    """A scheduler of work does not answer, or one of its workers cannot do the work."""


def collect_problems(header: str, problems: Sequence[str], hint: str = "") -> str:
    """One message for many offenders.

    Args:
        header: what went wrong, without a final colon.
        problems: one line per offender, each naming its file.
        hint: what to do about it; left out when empty.

    Returns:
        `header (N):`, one indented line per problem (at most 50, then `... and K more`), then
        the hint. A line break in a name is shown as `\\n`, so that nothing looks like a line of
        the list that is none.
    """
    header = _NAMES_BREAK.sub(_SHOWN_BREAK, header)
    listed = [
        f"  - {_NAMES_BREAK.sub(_SHOWN_BREAK, problem)}"
        for problem in problems[:MAX_PROBLEMS_LISTED]
    ]
    if len(problems) > MAX_PROBLEMS_LISTED:
        listed.append(f"  ... and {len(problems) - MAX_PROBLEMS_LISTED} more")
    return "\n".join([f"{header} ({len(problems)}):", *listed, *([hint] if hint else [])])
