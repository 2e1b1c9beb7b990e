"""Try what users and fate do to cellseg, and say how each trial ended.

    python tests/trials [--kind N ...] [--name PART] [--json FILE] [--cellseg FOLDER]

Every trial runs in a scratch folder, in a process forked from this one. The table counts how they
ended, by kind: well, or in a traceback, in words that do not help, in a silent wrong result, with
something lost, in a hang, or with memory beyond bounds. `--cellseg` tries another checkout with the
same trials. Exit status: 0 all went well, 1 some did not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import pkgutil
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    args = _parse_arguments()
    sys.path.insert(0, str(args.cellseg.resolve()))
    os.environ["PYTHONPATH"] = str(args.cellseg.resolve())
    os.environ["OMP_NUM_THREADS"] = "1"
    scratch = Path(tempfile.mkdtemp(prefix="trials_"))
    start = time.monotonic()
    try:
        endings = run_trials(find_trials(args.kind, args.name), scratch, args.processes)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for one in endings:
        if one["result"] != "well":
            print(f"{one['result'].upper()} {one['kind']} {one['name']}: {one['why']}")
            print("".join(f"    {line}\n" for line in one["output"].splitlines()[-args.lines :]))
    print(format_table(endings))
    print(f"{len(endings)} trials in {time.monotonic() - start:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(endings, indent=1), "utf-8")
    return int(any(one["result"] != "well" for one in endings))


def _parse_arguments() -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--kind", type=int, nargs="+", default=[], help="these kinds alone")
    parser.add_argument("--name", default="", help="trials with this in their name alone")
    parser.add_argument("--processes", type=int, default=2, help="trials at a time")
    parser.add_argument("--json", type=Path, help="write every ending to this file")
    parser.add_argument("--lines", type=int, default=8, help="of the output of each fault")
    parser.add_argument("--cellseg", type=Path, default=REPOSITORY, help="the checkout to try")
    return parser.parse_args()


def find_trials(kinds: Sequence[int] = (), name: str = "") -> list:
    """The trials of all `kind_*.py` beside this file.

    Raises:
        ValueError: two of them have one name.
    """
    folder = Path(__file__).parent
    sys.path.insert(0, str(folder))
    modules = [one.name for one in pkgutil.iter_modules([str(folder)])]
    trials = [
        trial
        for module in sorted(modules)
        if module.startswith("kind_")
        for trial in importlib.import_module(module).TRIALS
    ]
    twice = [one for one, count in Counter(trial.name for trial in trials).items() if count > 1]
    if twice:
        raise ValueError(f"several trials have one name: {', '.join(twice)}")
    return [one for one in trials if (not kinds or one.kind in kinds) and name in one.name]


def run_trials(trials: Sequence, scratch: Path, processes: int) -> list[dict]:
    """Run trials, several at a time; their endings in the order of the trials."""
    import harness
    import stock

    program = scratch / "cellseg"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cellseg "$@"\n', "utf-8")
    program.chmod(0o755)
    home = scratch / "home"
    home.mkdir()
    given = {"HOME": str(home), "CELLSEG_CACHE": str(scratch / "cache"), "COLUMNS": "100"}
    place = harness.Place(scratch, scratch / "stock", program, given)
    os.environ.update(given)
    os.environ.pop("DETECTRON2_DATASETS", None)
    import_everything()
    place.stock.mkdir()
    _in_a_fork(stock.make_stock, place.stock)
    parts = [
        _start(_run_part, trials[number::processes], place, scratch / f"endings_{number}.json")
        for number in range(processes)
    ]
    for part in parts:
        part.join()
    if any(part.exitcode for part in parts):
        raise RuntimeError("a process of the trials failed; see above")
    ran = [json.loads((scratch / f"endings_{n}.json").read_text()) for n in range(processes)]
    by_name = {one["name"]: one for part in ran for one in part}
    return [by_name[trial.name] for trial in trials]


def import_everything() -> None:
    """Import what commands import when they are called, so that forked processes need not."""
    import torch
    from cellseg.cli import command_names

    torch.set_num_threads(1)
    for name in command_names():
        importlib.import_module(f"cellseg.cli.{name.replace('-', '_')}")


def _start(work, *given) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=work, args=given)
    process.start()
    return process


def _in_a_fork(work, *given) -> None:
    """Run `work` apart from this process, whose state other forks will have."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        process = _start(_run_quietly, said.fileno(), work, *given)
        process.join()
        if process.exitcode:
            said.seek(0)
            raise RuntimeError(f"{work.__name__} failed:\n{said.read()}")


def _run_quietly(said: int, work, *given) -> None:
    os.dup2(said, 1)
    os.dup2(said, 2)
    work(*given)


def _run_part(trials: Sequence, place, into: Path) -> None:
    import harness

    endings = []
    for trial in trials:
        ending = harness.run_trial(trial, place)
        kept = ("result", "why", "output", "seconds", "status", "mebibytes")
        endings.append(
            {"kind": trial.kind, "name": trial.name, **{one: getattr(ending, one) for one in kept}}
        )
    into.write_text(json.dumps(endings), "utf-8")


def format_table(endings: Sequence[dict]) -> str:
    """Markdown: a row for each kind, a column for each way to end."""
    import harness

    rows = [["kind", "trials", *harness.RESULTS], ["---"] + ["--:"] * (1 + len(harness.RESULTS))]
    for kind in [*sorted({one["kind"] for one in endings}), "all"]:
        counts = Counter(one["result"] for one in endings if kind in ("all", one["kind"]))
        rows.append([str(kind), str(counts.total()), *(str(counts[n]) for n in harness.RESULTS)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
