"""What is asked before anything is allocated."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest
import regex
from cellseg import limits
from cellseg.errors import ConfigError
from cellseg.json_text import parse_json, read_json
from cellseg.limits import (
    CEILINGS,
    LimitError,
    check_claim,
    check_memory,
    check_planes,
    gunzip,
    open_zip,
    search_within_time,
)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_memory", lambda: 10 * 2**30)
    check_memory(6 * 2**30, "an image")
    with pytest.raises(LimitError, match=r"an image would take 8\.0 GiB of memory; 10\.0 GiB"):
        check_memory(8 * 2**30, "an image")
    monkeypatch.setenv("CELLSEG_MAX_MEMORY_SHARE", "0.9")
    check_memory(8 * 2**30, "an image")


def test_little_is_never_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_memory", lambda: 0)
    check_memory(2**28, "an image")
    check_claim(2**28, 1, "an image")


def test_what_is_far_larger_than_it_is_stored_is_refused() -> None:
    check_claim(2**28 + 1000, 10, "a file")
    with pytest.raises(LimitError, match="of which 9 bytes are stored"):
        check_claim(2**28 + 1000, 9, "a file")


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
def test_a_limit_is_a_number_above_0(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("CELLSEG_MAX_PLANES", text)
    with pytest.raises(ConfigError, match="CELLSEG_MAX_PLANES"):
        check_planes(3)


def test_files_of_a_zip_count_together(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(30):
            archive.writestr(f"{number}.roi", bytes(10 * 2**20))
    with pytest.raises(LimitError, match="the 30 files in it would take 300"), open_zip(path):
        pass


def test_gzip_of_several_pieces_is_unpacked() -> None:
    assert gunzip(gzip.compress(b"one ") + gzip.compress(b"two")) == b"one two"
    with pytest.raises(EOFError):
        gunzip(gzip.compress(b"one" * 1000)[:-9])


def test_gzip_that_is_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(LimitError, match="its content would take"):
        gunzip(gzip.compress(bytes(400 * 2**20), 9))


def test_a_pattern_that_searches_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLSEG_MAX_SEARCH", "0.1")
    with pytest.raises(LimitError, match=r"\(a\|aa\)\+\$"):
        search_within_time(regex.compile("(a|aa)+$"), "a" * 60 + "!")
    found = search_within_time(regex.compile(r"(\w+)_\d"), "plate_7", whole=True)
    assert found is not None
    assert found[1] == "plate"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1,\n2", "line 2, column 2"),
        ("[" * 100_000, "brackets"),
        (f"[1,\n{'9' * 5000}]", "line 2: a whole number beyond 64 bits"),
        (str(2**63), "beyond 64 bits"),
        (b"\xff", "byte 0"),
    ],
)
def test_json_that_cannot_be_read_says_where(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_json(text)


def test_json_that_can_be_read(tmp_path: Path) -> None:
    content = {"a": [2**63 - 1, -(2**63), 0.5, "1" * 40]}
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    assert read_json(path) == content


def test_the_page_names_every_limit() -> None:
    page = (Path(__file__).parent.parent / "docs" / "limits.md").read_text("utf-8")
    for ceiling in CEILINGS:
        assert f"| `{ceiling.name}` | {ceiling.default:g} |" in page
