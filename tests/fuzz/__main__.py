"""Change files at random, and see that readers and loaders end in cellseg's own errors.

    python tests/fuzz [--minutes 10] [--target PART] [--keep FOLDER]

Every kind of file that cellseg reads is a target: images, labels, annotations, configs, cards,
checkpoints, bundles, results. libFuzzer, by way of atheris (`pip install atheris`), changes whole
files (`seeds.py`) such that more and more branches of cellseg's code are reached. A fault is any
exception that is no `CellsegError`, a crash, more than 10 s, or more than 3 GiB. Files that lead to
one are kept, with the traceback. Exit status: 0 no fault, 1 some.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS_FOR_ONE = 10
MEBIBYTES = 3072
LONGEST = 60_000  # bytes of a file


def main() -> int:
    args = _parse_arguments()
    sys.path.insert(0, str(HERE.parents[1]))
    if args.run is not None:
        return run_target(args.run, args.seconds, args.keep)
    args.keep.mkdir(parents=True, exist_ok=True)
    names = [one for one in _list_names() if args.target in one]
    seconds = max(2, round(60 * args.minutes / len(names)))
    total = 0
    for name in names:
        words = ["--run", name, "--seconds", str(seconds), "--keep", str(args.keep)]
        done = subprocess.run(
            [sys.executable, str(HERE), *words], capture_output=True, text=True, errors="replace"
        )
        tried = re.findall(r"stat::number_of_executed_units: (\d+)|^#(\d+)\s", done.stderr, re.M)
        count = max((int(a or b) for a, b in tried), default=0)
        total += count
        ended = "" if done.returncode == 0 else f", ended with {done.returncode}"
        print(f"{name}: {count} files{ended}", flush=True)
        if done.returncode:
            print("\n".join(done.stderr.splitlines()[-15:]), flush=True)
    faults = sorted(args.keep.glob("*.txt")) + sorted(args.keep.glob("*-crash-*"))
    faults += sorted(args.keep.glob("*-timeout-*")) + sorted(args.keep.glob("*-oom-*"))
    for one in faults:
        print(f"\n{one.name}")
        if one.suffix == ".txt":
            print("\n".join(one.read_text("utf-8").splitlines()[-8:]))
    print(f"\n{len(names)} targets, {total} files, {len(faults)} faults")
    return int(bool(faults))


def _parse_arguments() -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--minutes", type=float, default=10, help="in all, shared by the targets")
    parser.add_argument("--target", default="", help="targets with this in their name alone")
    kept = Path(tempfile.gettempdir()) / "cellseg_fuzz"
    parser.add_argument("--keep", type=Path, default=kept, help="folder for files of faults")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _list_names() -> list[str]:
    done = subprocess.run(
        [sys.executable, str(HERE), "--run", "", "--seconds", "0"], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout.splitlines()[-1].split()


def run_target(name: str, seconds: int, keep: Path) -> int:
    """Fuzz one target in this process, which ends with it; without a name print all names."""
    import atheris

    with atheris.instrument_imports(include=["cellseg"]):
        import cellseg  # noqa: F401
        import seeds
        from cellseg.errors import CellsegError

        scratch = Path(tempfile.mkdtemp(prefix="fuzz_"))
        targets = {one.name: one for one in seeds.list_targets(scratch)}
    if not name:
        print(*targets)
        return 0
    target = targets[name]
    os.chdir(scratch)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    place = seeds.place_of(target, scratch / "place")
    corpus = scratch / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
        place.write_bytes(seed)

    def try_bytes(content: bytes) -> None:
        place.write_bytes(content)
        try:
            target.read(place)
        except CellsegError:
            pass
        except Exception as error:
            _keep_fault(keep, name, content, error)

    options = [
        *(f"-max_total_time={seconds}", f"-timeout={SECONDS_FOR_ONE}", f"-max_len={LONGEST}"),
        *(f"-rss_limit_mb={MEBIBYTES}", f"-artifact_prefix={keep}/{name}-", "-print_final_stats=1"),
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], try_bytes)
    atheris.Fuzz()
    return 0


def _keep_fault(keep: Path, name: str, content: bytes, error: Exception) -> None:
    """One file for each place that errors come from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f"{one.filename}:{one.lineno}" for one in frames if "/cellseg/" in one.filename]
    key = hashlib.sha1(f"{name}{type(error)}{own[-1:]}".encode()).hexdigest()[:10]
    told = "".join(traceback.format_exception(error))
    (keep / f"{name}-{key}.txt").write_text(told, "utf-8")
    (keep / f"{name}-{key}.input").write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
