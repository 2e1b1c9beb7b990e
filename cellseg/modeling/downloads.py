"""Files from the web, for weights: encrypted or with a hash, once, into a folder of the user's own.

`register_downloads()` has Detectron2's path manager take web addresses from here. An address may
end in the SHA-256 of the file, `https://lab.org/cells.pth#sha256=9f86...`, which is then checked
each time that it is used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from cellseg.errors import CheckpointError
from cellseg.files import cache_root, write_whole
from cellseg.limits import ANSWER_S
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler, file_lock

_MOST_BYTES = 16 * 2**30  # no weights of this kind are larger: a server that never ends
_HASH = re.compile(r"sha256=([0-9a-f]{8,64})", re.IGNORECASE)
_NAME_LENGTH = 100
_WAY_OUT = "Fetch the file with a browser and name its path in MODEL.WEIGHTS"

logger = logging.getLogger(__name__)


class DownloadHandler(PathHandler):
    """Gives `https://...` as a local file, downloaded once.

    `http://` is taken only with a hash: everybody on the way can change what comes. The file lies
    in `downloads/` of cellseg's cache, in a folder by the whole address, so that a file of that
    name from elsewhere is another one.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        address, digits = split_hash(path)
        key = hashlib.sha256(address.encode()).hexdigest()[:16]
        target = cache_root() / "downloads" / key / _file_name(address)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with file_lock(str(target)):  # of several processes, one downloads
            if force or not target.is_file() or not _has_hash(target, digits):
                fetch_file(address, target, digits)
        return str(target)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return open(self._get_local_path(path), mode, buffering, **kwargs)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return True

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return True


def register_downloads() -> None:
    """Have Detectron2's path manager take web addresses from here; repeating it is harmless."""
    PathManager.register_handler(DownloadHandler(), allow_override=True)


def split_hash(address: str) -> tuple[str, str]:
    """An address, and the hexadecimal digits that the file's SHA-256 begins with; "" for none.

    Raises:
        CheckpointError: something else stands behind the `#`.

    Example:
        >>> split_hash("https://lab.org/cells.pth#sha256=9F86D081")
        ('https://lab.org/cells.pth', '9f86d081')
    """
    plain, mark, behind = address.partition("#")
    if not mark:
        return plain, ""
    found = _HASH.fullmatch(behind)
    if found is None:
        raise CheckpointError(f"{address}: behind # expected sha256= and 8 to 64 digits 0-9, a-f")
    return plain, found[1].lower()


def fetch_file(address: str, target: Path, digits: str = "", way_out: str = _WAY_OUT) -> None:
    """Download a file.

    Args:
        address: `https://...`; `http://...` with `digits` alone.
        target: where it goes; there only when it is whole and the right one.
        digits: hexadecimal, what its SHA-256 begins with; "" where that is not known.
        way_out: what to do where it cannot be downloaded, for the message.

    Raises:
        CheckpointError: the address may not be used, the server does not answer, or what comes is
            not the file. The message says what to do without it.
    """
    scheme = urlsplit(address).scheme
    if scheme != "https" and not digits:
        raise CheckpointError(
            f"{address}: not encrypted, so anybody on the way can change it; expected https://, or "
            f"the SHA-256 behind the address (#sha256=...). {way_out}"
        )
    logger.info("Downloading %s", address)
    try:
        with write_whole(target) as partial:
            _receive(address, partial)
            _check_hash(address, partial, digits)
    except OSError as error:
        if not isinstance(error, urllib.error.URLError | TimeoutError | ConnectionError):
            raise  # of the disk
        reason = getattr(error, "reason", None) or error
        raise CheckpointError(
            f"{address}: cannot be downloaded: {reason}. {way_out}, or start without weights "
            "(MODEL.WEIGHTS '')"
        ) from error
    if not digits:
        logger.info("Its SHA-256 is %s; %s#sha256=... takes no other", _hash(target), address)


class _StayEncrypted(urllib.request.HTTPRedirectHandler):
    """Does not follow a server of https:// that sends to http://."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"it sends to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _receive(address: str, target: Path) -> None:
    opener = urllib.request.build_opener(_StayEncrypted)
    with opener.open(address, timeout=ANSWER_S.value) as answer, target.open("wb") as file:
        expected = _announced_bytes(answer.headers)
        _check_room(target, expected or 0)
        received = 0
        while block := answer.read(2**20):
            file.write(block)
            received += len(block)
            if received > _MOST_BYTES:
                raise urllib.error.URLError(f"more than {_MOST_BYTES >> 30} GiB come")
    if not received or (expected is not None and received != expected):
        raise urllib.error.URLError(
            f"{received} bytes came; expected {expected or 'some'}: try once more"
        )


def _announced_bytes(headers: Message) -> int | None:
    said = headers.get("Content-Length", "")
    return int(said) if said.isdecimal() else None


def _check_room(target: Path, size: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if size > min(free, _MOST_BYTES):
        raise urllib.error.URLError(
            f"it is {size / 1e6:,.0f} MB, and {target.parent} has room for {free / 1e6:,.0f} MB"
        )


def _has_hash(file: Path, digits: str) -> bool:
    """Whether a file's SHA-256 begins with some digits; a large file is not read for none."""
    return not digits or _hash(file).startswith(digits)


def _check_hash(address: str, file: Path, digits: str) -> None:
    if not _has_hash(file, digits):
        raise CheckpointError(
            f"{address}: the SHA-256 of what came is {_hash(file)}; expected {digits}: it was "
            "damaged on the way, or it is another file. Nothing was kept; try once "
            "more, or check the address"
        )


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _file_name(address: str) -> str:
    """A name for the disk, with the ending that says how weights are read."""
    name = os.path.basename(unquote(urlsplit(address).path))
    plain = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "file"
    return plain[-_NAME_LENGTH:]
