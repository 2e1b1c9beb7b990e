"""The keys of the Correct widget: one table, from which they are bound and its help is written.

They hold while the layer of the cells is the selected one, and go before those that napari has for
any Labels layer. Of those, the digits change the tool, which letters do as well (E erase, P paint,
F fill, L pick, Z move); `M` takes the highest label plus one, which may be the number of a cell
that was there once; Ctrl+Z knows only what was painted since the layer was made. All others stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

NUM_CLASS_KEYS = 9


class Key(NamedTuple):
    """A key and what it does.

    Attributes:
        action: name of what it does; "class 1" gives the first class.
        keys: as napari writes them; the first one is shown.
        text: what it does, in words.
        replaces: what napari does with it otherwise; "" for nothing.
    """

    action: str
    keys: tuple[str, ...]
    text: str
    replaces: str = ""


KEYS = (
    Key("next", ("N",), "go to the next open cell"),
    Key("previous", ("Shift-N",), "go back to the one before"),
    Key("accept", ("A",), "it is right: accept, and go on"),
    Key("accept view", ("Shift-A",), "accept all open cells in the view"),
    Key("reject", ("R", "Delete", "Backspace"), "it is none: reject, and go on"),
    Key("merge", ("M",), "make one cell of those that are chosen", "new label"),
    Key("split", ("S",), "split: draw a line through the cell"),
    Key("new", ("D",), "draw a new cell with the brush"),
    Key("view done", ("W",), "all cells in the view are right"),
    Key("undo", ("Control-Z",), "undo", "undo what was painted"),
    Key("redo", ("Control-Shift-Z",), "redo", "redo what was painted"),
    *(
        Key(f"class {k}", (str(k),), f"class {k}", "a tool" if k <= 7 else "")
        for k in range(1, NUM_CLASS_KEYS + 1)
    ),
)

CLICKS = (
    ("click on a cell", "choose it"),
    ("Shift + click on a cell", "choose it as well, or no longer"),
    ("click beside cells", "take the detection below the threshold that is there"),
)


def bind_keys(layer: Any, actions: Mapping[str, Callable[[], None]]) -> None:
    """Bind the keys to what they do, for this layer alone.

    Args:
        layer: of napari.
        actions: what to call, by the name of the action; keys of others stay napari's.
    """
    for key in KEYS:
        if key.action in actions:
            for name in key.keys:
                layer.bind_key(name, _called(actions[key.action]), overwrite=True)


def _called(action: Callable[[], None]) -> Callable[[Any], None]:
    return lambda layer: action()


def describe_key(action: str) -> str:
    """The keys of an action, and what it does; "" where it has none."""
    found = [key for key in KEYS if key.action == action]
    return f"{_show(found[0])}: {found[0].text}" if found else ""


def _show(key: Key) -> str:
    return " or ".join(key.keys).replace("Control", "Ctrl").replace("-", "+")


def describe_keys() -> list[tuple[str, str]]:
    """What each key and click does, in words, for the widget's help."""
    keys = [(_show(key), key.text) for key in KEYS if not key.action.startswith("class ")]
    return [*keys, (f"1 … {NUM_CLASS_KEYS}", "give the class of that number"), *CLICKS]
