"""Weights from the web: the right file, from the right place, or a clear error."""

from __future__ import annotations

import hashlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cellseg.errors import CheckpointError
from cellseg.modeling import downloads
from cellseg.modeling.downloads import DownloadHandler, fetch_file, split_hash

CONTENT = b"weights of cells"
HASH = hashlib.sha256(CONTENT).hexdigest()


class Answers(BaseHTTPRequestHandler):
    """`/whole`, `/half` (less than is announced), `/huge` (announced), `/silent`, `/elsewhere`."""

    ended = threading.Event()

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name == "silent":
            self.ended.wait(20)
            return
        content = self.server.content  # type: ignore[attr-defined]
        size = {"half": 2 * len(content), "huge": 10**18}.get(name, len(content))
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], str]]:
    """Start a server of some content; its address without a path."""
    monkeypatch.setenv("CELLSEG_CACHE", str(tmp_path / "cache"))
    servers = []
    Answers.ended.clear()

    def start(content: bytes = CONTENT) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        server.content = content  # type: ignore[attr-defined]
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    Answers.ended.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def local(address: str) -> bytes:
    return Path(DownloadHandler()._get_local_path(address)).read_bytes()


def test_a_file_with_its_hash_is_downloaded_once(serve: Callable[[], str]) -> None:
    address = f"{serve()}/models/cells.pth#sha256={HASH}"
    path = Path(DownloadHandler()._get_local_path(address))
    assert (path.name, path.read_bytes()) == ("cells.pth", CONTENT)
    before = path.stat().st_mtime_ns
    assert local(address) == CONTENT
    assert path.stat().st_mtime_ns == before


def test_a_changed_copy_is_downloaded_again(serve: Callable[[], str]) -> None:
    address = f"{serve()}/cells.pth#sha256={HASH}"
    Path(DownloadHandler()._get_local_path(address)).write_bytes(b"changed")
    assert local(address) == CONTENT


def test_one_name_on_two_servers_is_two_files(serve: Callable[..., str]) -> None:
    other = b"weights of leaves"
    digits = hashlib.sha256(other).hexdigest()
    assert local(f"{serve()}/cells.pth#sha256={HASH}") == CONTENT
    assert local(f"{serve(other)}/cells.pth#sha256={digits}") == other


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/cells.pth", "not encrypted"),
        ("/cells.pth#sha256=00000000", "expected 00000000"),
        (f"/half#sha256={HASH}", "bytes came"),
        (f"/huge#sha256={HASH}", "has room for"),
        ("/cells.pth#md5=00000000", "expected sha256="),
    ],
)
def test_what_is_not_the_file_is_not_kept(
    path: str, said: str, serve: Callable[[], str], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=said):
        local(serve() + path)
    assert not [one for one in tmp_path.rglob("*") if one.is_file() and one.suffix != ".lock"]


def test_a_server_that_says_nothing(
    serve: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLSEG_TIMEOUT", "0.2")
    with pytest.raises(CheckpointError, match="cannot be downloaded: timed out"):
        local(f"{serve()}/silent#sha256={HASH}")


def test_without_a_server_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be downloaded: .* name its path in MODEL"):
        fetch_file("https://127.0.0.1:9/cells.pth", tmp_path / "cells.pth")


def test_an_encrypted_address_does_not_lead_to_one_that_is_not() -> None:
    request = urllib.request.Request("https://lab.org/cells.pth")
    follow = downloads._StayEncrypted().redirect_request
    with pytest.raises(urllib.error.URLError, match="not encrypted"):
        follow(request, None, 302, "", {}, "http://lab.org/cells.pth")
    followed = follow(request, None, 302, "", {}, "https://mirror.org/cells.pth")
    assert followed is not None
    assert followed.full_url == "https://mirror.org/cells.pth"


def test_a_hash_is_of_hexadecimal_digits() -> None:
    assert split_hash(f"https://lab.org/a.pth#sha256={HASH.upper()}")[1] == HASH
    with pytest.raises(CheckpointError, match="8 to 64 digits"):
        split_hash("https://lab.org/a.pth#sha256=123")
