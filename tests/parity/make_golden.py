"""Write what Detectron2 computes for every scenario, one JSON file each.

    python tests/parity/make_golden.py [--output FOLDER]

Runs with an installed Detectron2 only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cellseg
from comparison import GOLDEN, write_tree
from scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=GOLDEN, help="folder; default %(default)s")
    folder = parser.parse_args().output
    engine = cellseg.engine_info()
    if engine.name != "detectron2":
        print(
            f"Golden files come from an installed Detectron2, and here runs the {engine}. "
            "Nothing was written; put Detectron2's folder on PYTHONPATH.",
            file=sys.stderr,
        )
        return 1
    print(engine)
    for name, scenario in SCENARIOS.items():
        path = folder / f"{name}.json"
        write_tree(scenario(), path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
