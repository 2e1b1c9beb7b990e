"""What users and fate do to cellseg, done in scratch folders; see `python tests/trials --help`.

A `Trial` says what is tried and what is right. Each runs in a process forked from one that has
imported everything, so that hundreds of them take minutes. What nobody wants is found without
being asked for: a traceback, a hang, memory without bound, a file that is no longer what it was,
a partial file that is left or named, an exit status of 0 after nonsense.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALM = "well"
RESULTS = (CALM, "traceback", "words", "silent", "lost", "hang", "memory", "unprepared")
_TRACEBACK = re.compile(
    r"Traceback \(most recent call last\)|Exception ignored in|Fatal Python error|"
    r"^Segmentation fault|^Killed$",
    re.MULTILINE,
)
_PARTIAL = re.compile(r"(^|/)\.[0-9a-f]{6,32}\.(partial|old)")
_MEBIBYTE = 2**20


def nothing(folder: Path) -> None:
    """A trial that needs no files of its own."""


def fine(folder: Path) -> str:
    """A trial after which no file is looked at."""
    return ""


@dataclass(frozen=True)
class Trial:
    """One thing that is done, and what is right.

    Args:
        kind: 1 to 10, as tests/trials/README.md lists them.
        name: what is tried, in a few words; unique.
        words: of the command, without `cellseg`; "{data}" and the like as in `code`.
        code: Python to run instead of a command; errors of cellseg end it as they end a command.
        shell: a line for bash to run instead, in which `cellseg` is the command.
        prepare: makes files in the trial's folder, which is the working folder of the trial. It
            has a link or a copy of what `needs` names.
        needs: of "run" (a trained tiny model), "images", "data" (images and label images with a
            declaration), "results" (true and predicted cells), "bundle" (the run as a model
            bundle); see `stock.py`. They are copies.
        status: exit statuses that are right; 1 is an error that is said in words.
        says: regular expressions, each to be found in the output; letters' case does not matter.
        never: regular expressions that must not be there.
        changes: globs of the prepared files that may change; no other may.
        holds: looks at the folder afterwards; "" or what is wrong with it.
        seconds: a hang, after them.
        mebibytes: memory beyond all bounds, above them; added to what Python and torch take.
    """

    kind: int
    name: str
    words: tuple[str, ...] = ()
    code: str = ""
    shell: str = ""
    prepare: Callable[[Path], None] = nothing
    needs: tuple[str, ...] = ()
    status: tuple[int, ...] = (1,)
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    holds: Callable[[Path], str] = fine
    seconds: float = 60
    mebibytes: int = 1500


@dataclass
class Ending:
    """How a trial ended: one of `RESULTS`, why, and what was said."""

    trial: Trial
    result: str = CALM
    why: str = ""
    output: str = ""
    seconds: float = 0.0
    status: int = 0
    mebibytes: int = 0


@dataclass
class Place:
    """Where trials run: what they share, and the tree of cellseg that is tried."""

    scratch: Path
    stock: Path
    program: Path
    environment: dict[str, str] = field(default_factory=dict)


def run_trial(trial: Trial, place: Place) -> Ending:
    """Run one trial in a folder of its own, which is removed afterwards."""
    folder = place.scratch / re.sub(r"\W+", "_", f"{trial.kind}_{trial.name}")[:80]
    folder.mkdir()
    try:
        for name in trial.needs:
            shutil.copytree(place.stock / name, folder / name, symlinks=True)
        try:
            trial.prepare(folder)
        except Exception as error:  # of the trial itself, or of another checkout than its own
            return Ending(trial, "unprepared", f"{type(error).__name__}: {error}")
        before = _read_all(folder)
        ending = _run(trial, place, folder)
        after = _read_all(folder)
        _judge(ending, before, after, folder)
        return ending
    finally:
        _let_remove(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _run(trial: Trial, place: Place, folder: Path) -> Ending:
    said = place.scratch / f"{folder.name}.said"
    base = _resident(os.getpid())
    start = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_trial(trial, place, folder, said)
    ending = Ending(trial)
    status = None
    try:
        while status is None and not ending.why:
            pid, raw = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(raw) if pid else None
            ending.mebibytes = max(ending.mebibytes, (_resident(child) - base) // _MEBIBYTE)
            if time.monotonic() - start > trial.seconds:
                ending.result, ending.why = "hang", f"did not end in {trial.seconds:g} s"
            if ending.mebibytes > trial.mebibytes:
                ending.result, ending.why = "memory", f"took {ending.mebibytes} MiB"
            if status is None:
                time.sleep(0.01)
    finally:
        _end_group(child, reap=status is None)
    ending.seconds = time.monotonic() - start
    ending.status = -9 if status is None else status
    ending.output = said.read_text("utf-8", "backslashreplace")
    said.unlink()
    return ending


def _end_group(child: int, *, reap: bool) -> None:
    """End the trial and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if reap:
        os.waitpid(child, 0)


def _resident(pid: int) -> int:
    """Bytes of memory of a process and of its children's children; 0 for one that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def _be_trial(trial: Trial, place: Place, folder: Path, said: Path) -> None:
    """The forked process: run the trial and end."""
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.update(place.environment)
        os.environ.pop("PYTHONWARNINGS", None)
        os.environ["DETECTRON2_DATASETS"] = str(folder)
        for number, flags in ((0, os.O_RDONLY), (1, os.O_RDWR | os.O_CREAT)):
            name = os.devnull if number == 0 else said
            os.dup2(os.open(name, flags | os.O_APPEND, 0o666), number)
        os.dup2(1, 2)
        # What was started with nohup, or in the background, inherits signals that are ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        _obey_permissions()
        status = _do(trial, place)
    finally:
        # As the interpreter ends; a fork that went on would run the other trials too.
        try:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status if isinstance(status, int) and 0 <= status < 256 else 71)


def _do(trial: Trial, place: Place) -> int:
    if trial.shell:
        line = trial.shell.replace("cellseg ", f"{shlex.quote(str(place.program))} ")
        return subprocess.run(["bash", "-c", line], stdin=subprocess.DEVNULL).returncode
    from cellseg.cli import main
    from cellseg.errors import CellsegError

    try:
        if not trial.code:
            return main(list(trial.words))
        exec(compile(trial.code, "trial", "exec"), {"__name__": "__trial__"})
    except CellsegError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def _obey_permissions() -> None:
    """Let root obey the permissions of files, as everybody else has to."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(28, 0b11, 0, 0, 0)  # PR_SET_SECUREBITS: programs that are started have none either
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def _read_all(folder: Path) -> dict[str, str]:
    """Every path below a folder: what it holds, its mode, what a link points to."""
    return dict(_walk(folder))


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield name, f"link to {os.readlink(path)}"
        elif stat.S_ISREG(mode):
            yield name, f"{stat.filemode(mode)} {_digest(path)}"
        else:
            yield name, stat.filemode(mode)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha1(path.read_bytes()).hexdigest()
    except PermissionError:  # for whoever is not root
        return "may not be read"


def _let_remove(folder: Path) -> None:
    """Undo a mount and permissions that a trial's `prepare` has made."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for one in mounts:
        if one.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", one], check=False)
    for path, folders, _ in os.walk(folder):
        for name in (path, *(os.path.join(path, one) for one in folders)):
            if not os.path.islink(name):
                os.chmod(name, 0o700)


def _judge(ending: Ending, before: dict[str, str], after: dict[str, str], folder: Path) -> None:
    """Fill in `result` and `why`; the worst comes first."""
    if ending.why:
        return
    for result, why in _find_faults(ending, before, after, folder):
        if why:
            ending.result, ending.why = result, why
            return


def _find_faults(
    ending: Ending, before: dict[str, str], after: dict[str, str], folder: Path
) -> Iterator[tuple[str, str]]:
    trial, text = ending.trial, ending.output
    found = _TRACEBACK.search(text)
    yield "traceback", found[0] if found else ""
    unforeseen = ending.status < 0 and ending.status not in trial.status
    yield "traceback", f"ended by signal {-ending.status}" if unforeseen else ""
    yield "lost", _find_changes(trial, before, after)
    yield "lost", ", ".join(name for name in after if _PARTIAL.search(name) and name not in before)
    went_on = ending.status == 0 and 0 not in trial.status
    yield "silent", "ended with exit status 0" if went_on else ""
    wrong = _look(trial, folder)
    yield ("silent" if ending.status == 0 else "words"), wrong
    if ending.status not in trial.status:
        yield "words", f"exit status {ending.status}, not {' or '.join(map(str, trial.status))}"
    missing = [words for words in trial.says if not _find(words, text)]
    yield ("silent" if ending.status == 0 else "words"), "; ".join(f"no {one}" for one in missing)
    named = [words for words in (*trial.never, _PARTIAL.pattern) if _find(words, text)]
    yield "words", "; ".join(f"says {one}" for one in named)


def _look(trial: Trial, folder: Path) -> str:
    try:
        return trial.holds(folder)
    except Exception as error:  # what it looks for is not there, or is something else
        return f"{type(error).__name__}: {error}"


def _find(words: str, text: str) -> re.Match[str] | None:
    return re.search(words, text, re.IGNORECASE | re.MULTILINE | re.DOTALL)


def _find_changes(trial: Trial, before: dict[str, str], after: dict[str, str]) -> str:
    """Names of prepared files that are no longer what they were."""
    changed = [name for name, held in before.items() if after.get(name) != held]
    allowed = [name for name in changed if any(Path(name).match(one) for one in trial.changes)]
    return ", ".join(name for name in changed if name not in allowed)
