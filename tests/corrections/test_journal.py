"""Journals: what was returned for is there, damage is said, and nothing is lost on the way."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from cellseg.corrections.journal import DamagedJournalError, Journal
from cellseg.errors import CorrectionError


@pytest.fixture
def written(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "deep" / "a.jsonl")
    for word in "abc":
        journal.append({"what": word})
    return journal.path


def words(path: Path) -> list[str]:
    return [line["what"] for line in Journal(path).read()]


def test_lines_come_back_in_their_order(written: Path) -> None:
    assert written.read_text().splitlines()[1] == '{"n": 1, "what": "b"}'
    again = Journal(written)
    assert [line["n"] for line in again.read()] == [0, 1, 2]
    again.append({"what": "d"}, {"what": "e"})
    assert words(written) == list("abcde")


def test_no_file_is_no_line(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none.jsonl").read() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", range(1, 22))
def test_a_last_line_that_is_cut_off_is_dropped_with_a_word(
    written: Path, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = written.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    assert len(last) == 22
    written.write_bytes(whole[: -len(last)] + last[:kept])
    with caplog.at_level(logging.WARNING):
        journal = Journal(written)
        assert [line["what"] for line in journal.read()] == ["a", "b"]
    assert "a.jsonl: the last line was not written to its end" in caplog.text
    journal.append({"what": "d"})
    assert words(written) == ["a", "b", "d"]


def test_whoever_only_looks_changes_nothing(written: Path) -> None:
    written.write_bytes(written.read_bytes() + b'{"n": 3, "wh')
    before = written.read_bytes()
    assert len(Journal(written, is_writable=False).read()) == 3
    assert written.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "line", "reason"),
    [
        (lambda lines: [lines[0], lines[1][:9] + b"\0\0\n", lines[2]], 2, "no JSON"),
        (lambda lines: [lines[0], lines[2]], 2, "expected the one with n 1; found 2"),
        (lambda lines: [b"\n", *lines], 1, "no JSON"),
        (lambda lines: [*lines, b"[1]\n"], 4, "found no object"),
        (lambda lines: [*lines, lines[2]], 4, "found 2"),
    ],
)
def test_damage_is_said_with_its_line_and_nothing_is_touched(
    written: Path, damage, line: int, reason: str
) -> None:
    damaged = b"".join(damage(written.read_bytes().splitlines(keepends=True)))
    written.write_bytes(damaged)
    journal = Journal(written)
    with pytest.raises(DamagedJournalError, match=f"a.jsonl: line {line} is broken: .*{reason}"):
        journal.read()
    assert written.read_bytes() == damaged
    aside = journal.cut(line)
    assert aside.read_bytes() == damaged
    assert aside.name.startswith("a.jsonl.broken-")
    assert words(written) == list("abc")[: line - 1]


def test_a_line_that_cannot_be_written_is_not_there(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(written)
    journal.read()
    before = written.read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CorrectionError, match=r"a.jsonl: cannot be written: No space left"):
            journal.append({"what": "d"})
    assert written.read_bytes() == before
    journal.append({"what": "e"})
    assert words(written) == list("abce")


def test_a_file_that_somebody_else_has_changed_is_left_alone(written: Path) -> None:
    one, other = Journal(written), Journal(written)
    one.read(), other.read()
    other.append({"what": "d"})
    with pytest.raises(CorrectionError, match="another program has changed it"):
        one.append({"what": "e"})
    assert words(written) == list("abcd")
    written.unlink()
    with pytest.raises(CorrectionError, match="has 0 bytes"):
        other.append({"what": "e"})
    assert not written.exists()


def test_the_file_and_its_name_are_on_the_disk_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def note(number: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{number}"))
        real(number)

    if not Path("/proc/self/fd").exists():
        pytest.skip("files are named by their numbers on Linux only")
    monkeypatch.setattr(os, "fsync", note)
    journal = Journal(tmp_path / "new" / "a.jsonl")
    journal.append({"what": "a"})
    assert synced == [str(tmp_path / "new" / "a.jsonl"), str(tmp_path / "new"), str(tmp_path)]
    journal.append({"what": "b"})
    assert synced[3:] == [str(tmp_path / "new" / "a.jsonl")]
