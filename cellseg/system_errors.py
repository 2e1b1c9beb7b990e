"""What the system, PyTorch or a library could not do, in words for whoever can do something.

Errors that are no `CellsegError` cross the outer door as tracebacks: they are bugs. Those of a full
disk, a folder that may not be written or a port that is taken are none: here they become one line
with what was found and what to do.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

_NO_SPACE = "free some space there, or choose a folder on another disk"
_NOT_ALLOWED = "choose another folder, or have the permissions changed"
_NO_FOLDER = "a file is where a folder is expected, or the other way round: choose another name"
_OTHER = "the system refuses: try another file, folder or disk"
_FROM_WORKER = re.compile(
    r"Caught (?P<name>\w+) in DataLoader worker process \d+\.\nOriginal Traceback.*"
    r"\n(?P<module>(\w+\.)*)(?P=name): ",
    re.DOTALL,
)
_ADVICE = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: _NO_SPACE,
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: _NOT_ALLOWED,
    errno.ENOENT: "check the name and the current folder",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EISDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.ENAMETOOLONG: "choose a shorter name, or an output folder nearer to the root",
    errno.EMFILE: "too many files are open: raise the limit (`ulimit -n 4096`)",
    errno.ENFILE: "too many files are open on this machine: close other programs",
    errno.EIO: "the disk, or the connection to it, fails: try once more, or copy the files",
    errno.ESTALE: "the connection to a network folder was lost: try once more",
    errno.ENOTCONN: "the connection to a network folder was lost: try once more",
    errno.ENOMEM: "close other programs, or choose smaller tiles, images or batches",
    errno.ELOOP: "links lead in a circle: choose another name",
    errno.ENXIO: "nobody reads what is written there: start the reader of the pipe first",
    errno.EADDRINUSE: "another program has the port: end it, or give another --dist-url",
}
_MOST = 300  # letters of a message that are worth showing
_WORDS = (
    (
        r"shared memory|/dev/shm|bus error",
        "the loader's processes have too little shared memory: set DATALOADER.NUM_WORKERS 0, or "
        "give the container more (docker run --shm-size 8g)",
    ),
    (
        r"address already in use|eaddrinuse",
        "another training has the port: wait for its end, or give another one, such as --dist-url "
        "tcp://127.0.0.1:29511 (torchrun: --master-port)",
    ),
    (
        r"out of memory|can't allocate memory|not enough memory",
        "set SOLVER.IMS_PER_BATCH lower or CELLSEG.SOLVER.ACCUMULATE higher to train, "
        "CELLSEG.TEST.TILE lower to predict, or end other programs that use the device",
    ),
    (
        r"pytorchstreamwriter failed|unexpected pos \d+",
        f"a checkpoint could not be written: the disk is full or was taken away; {_NO_SPACE}",
    ),
    (
        r"dataloader worker .* (exited unexpectedly|is killed by signal)",
        "a process that reads images was ended, mostly for want of memory: set "
        "DATALOADER.NUM_WORKERS lower, or 0",
    ),
    (r"too many open files", _ADVICE[errno.EMFILE]),
    (
        r"(cuda|hip) (error: (?!device-side)|driver)|nccl error|cublas_|cudnn_",
        "the GPU or its driver failed: try once more, or MODEL.DEVICE cpu",
    ),
)


def explain_system_error(error: BaseException) -> str:
    """One line with what went wrong, of which file, and what to do.

    Args:
        error: as it was caught; what it was raised from is looked at, too.

    Returns:
        "" where it is no error of the system, and probably one of a program.

    Example:
        >>> explain_system_error(FileExistsError(errno.EEXIST, "File exists", "cells"))[:21]
        'cells: File exists; a'
        >>> explain_system_error(KeyError("momentum"))
        ''
    """
    for one in _with_causes(error):
        if isinstance(one, OSError) and one.errno is not None and one.strerror:
            names = [str(name) for name in (one.filename, one.filename2) if name is not None]
            place = " -> ".join(names)
            return f"{place and f'{place}: '}{one.strerror}; {_ADVICE.get(one.errno, _OTHER)}"
        if isinstance(one, MemoryError):
            return f"out of memory; {_ADVICE[errno.ENOMEM]}"
        if isinstance(one, OSError | RuntimeError):
            for words, advice in _WORDS:
                lines = [line for line in str(one).splitlines() if re.search(words, line.lower())]
                if lines:
                    return f"{lines[-1].strip()[:_MOST]}; {advice}"
    return ""


def strip_worker_traceback(text: str) -> str:
    """An error's own text, without the traceback that a loader's process puts before it.

    Example:
        >>> strip_worker_traceback(
        ...     "Caught DatasetError in DataLoader worker process 0.\\nOriginal Traceback (most "
        ...     "recent call last):\\n  File ...\\ncellseg.errors.DatasetError: a.png: no mask\\n"
        ... )
        'a.png: no mask'
    """
    caught = _FROM_WORKER.match(text)
    if caught is None:
        return text
    _, found, own = text.rpartition(f"\n{caught['module']}{caught['name']}: ")
    return own.rstrip("\n") if found else text


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
