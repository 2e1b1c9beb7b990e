"""The table of keys as a page of the documentation."""

from __future__ import annotations

from itertools import groupby

from cellseg.config.engine_keys import ENGINE_RULES
from cellseg.config.keys import KEYS, Key

_HEAD = """# Keys below CELLSEG

<!-- Written by `python -m cellseg.config` from cellseg/config/keys.py; changes belong there. -->

All of cellseg's keys stand below `CELLSEG`, beside Detectron2's own. A value that cannot be used is
an error before any work, which names the key, what was found and what was expected. A key is set in
a file (`CELLSEG: {TEST: {MASK_NMS: 0.1}}`) or on the command line (`CELLSEG.TEST.MASK_NMS 0.1`);
how files are put together is described in [recipes.md](../recipes.md).
"""

_ENGINE_HEAD = """## Detectron2's own keys that are checked

Detectron2 looks at types alone. Of these keys a value that cannot work is an error before any work,
too; what they do is described in
[its documentation](https://detectron2.readthedocs.io/en/latest/modules/config.html).

| key | may be |
| --- | --- |"""

_ABOUT = {
    "": "Of a run as a whole; how to write plug-ins: [custom_parts.md](../custom_parts.md).",
    "DATASETS": "How data sets are declared: [datasets/README.md](../../datasets/README.md).",
    "INPUT": "How images are read, in training, evaluation and prediction alike: "
    "[images.md](../images.md). For `SCALE` see [recipes.md](../recipes.md).",
    "AUGMENTATION": "Changes of training images beside Detectron2's own, applied in this order; "
    "all are off by default: [augmentation.md](../augmentation.md).",
    "MASK_HEAD": "The mask head: [custom_head.md](../custom_head.md).",
    "MASK_IOU": "A mask head that judges its own masks; it has the keys of MASK_HEAD too.",
    "BOX_HEAD": "The box head of cellseg's region heads.",
    "CELL_TYPE": "Several types of cells: [cell_types.md](../cell_types.md).",
    "SOLVER": "Optimizer, precision, freezing, time: [optimizer.md](../optimizer.md).",
    "TRAIN": "Best checkpoint, early stopping, validation loss, averaged weights: "
    "[training.md](../training.md).",
    "TEST": "Evaluation and prediction. The first ten, of which each is one value or a list with "
    "one per class, say which detections are cells and with which pixels, in the order in which "
    "they act: [thresholds.md](../thresholds.md). Metrics: [metrics.md](../metrics.md).",
}


def keys_to_markdown() -> str:
    """The page docs/reference/keys.md: a table for each node below CELLSEG, in their order, and
    Detectron2's keys that have a rule."""
    parts = [_HEAD]
    for node, keys in groupby(KEYS.values(), _node_of):
        title = f"CELLSEG.{node}" if node else "CELLSEG"
        parts.append(f"## {title}\n\n{_ABOUT[node]}\n\n{_table(list(keys), node)}")
    rows = [f"| `{path}` | {rule.expected} |" for path, rule in ENGINE_RULES.items()]
    return "\n".join([*parts, _ENGINE_HEAD, *rows, ""])


def _node_of(key: Key) -> str:
    """The first node below CELLSEG, "" for a key that stands there by itself."""
    first, dot, _ = key.name.partition(".")
    return first if dot else ""


def _table(keys: list[Key], node: str) -> str:
    lines = ["| key | default | may be | what it does |", "| --- | --- | --- | --- |"]
    for key in keys:
        name = key.name.removeprefix(f"{node}.")
        default = f'`"{key.default}"`' if isinstance(key.default, str) else f"`{key.default}`"
        says = key.says
        if key.read_by:
            says += f" Read by {key.read_by}."
        lines.append(f"| `{name}` | {default} | {key.rule.expected} | {says} |")
    return "\n".join(lines) + "\n"
