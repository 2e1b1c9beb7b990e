"""detectron2.utils.logger."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.utils.logger import (
    create_small_table,
    log_every_n,
    log_every_n_seconds,
    log_first_n,
    setup_logger,
)

_numbers = itertools.count()


@pytest.fixture
def name() -> Iterator[str]:
    """A logger of its own for each test, without handlers afterwards."""
    fresh = f"test_logger_{next(_numbers)}"
    yield fresh
    logger = logging.getLogger(fresh)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def test_lines_on_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    logger = setup_logger(name=name)
    logger.getChild("part").debug("fine")
    logger.warning("careful")
    logger.error("broken")
    first, second, third = capsys.readouterr().out.splitlines()
    assert f"{name}.part]: " in first
    assert first.endswith("fine")
    assert "WARNING" in second
    assert "careful" in second
    assert "ERROR" in third


@pytest.mark.parametrize(
    ("abbreviation", "expected"), [(None, "{name}.part"), ("short", "short.part"), ("", "part")]
)
def test_abbreviated_names(
    name: str, capsys: pytest.CaptureFixture[str], abbreviation: str | None, expected: str
) -> None:
    setup_logger(name=name, abbrev_name=abbreviation).getChild("part").info("text")
    assert f" {expected.format(name=name)}]:" in capsys.readouterr().out


def test_without_colour(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logger(name=name, color=False).warning("text")
    assert f"{name} WARNING: text" in capsys.readouterr().out


def test_repeated_calls_do_not_repeat_lines(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        logger = setup_logger(str(tmp_path), name=name)
    logger.info("once")
    assert capsys.readouterr().out.count("once") == 1
    assert (tmp_path / "log.txt").read_text("utf-8").count("once") == 1


@pytest.mark.embedded_only
def test_a_file_can_be_added_later(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logger(name=name)
    setup_logger(tmp_path, name=name).info("once")
    assert capsys.readouterr().out.count("once") == 1
    assert (tmp_path / "log.txt").read_text("utf-8").count("once") == 1


def test_file_names(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logger(str(tmp_path / "folder"), 0, name=name).info("main")
    setup_logger(str(tmp_path / "named.log"), 0, name=name + ".named").info("named")
    setup_logger(str(tmp_path / "folder"), 3, name=name + ".other").info("third")
    assert "main" in (tmp_path / "folder" / "log.txt").read_text("utf-8")
    assert "named" in (tmp_path / "named.log").read_text("utf-8")
    assert "third" in (tmp_path / "folder" / "log.txt.rank3").read_text("utf-8")
    assert "third" not in capsys.readouterr().out  # only process 0 writes to the terminal
    for child in ("named", "other"):
        for handler in list(logging.getLogger(f"{name}.{child}").handlers):
            logging.getLogger(f"{name}.{child}").removeHandler(handler)
            handler.close()


def test_two_loggers_share_a_file(name: str, tmp_path: Path) -> None:
    first = setup_logger(str(tmp_path), name=name, configure_stdout=False)
    second = setup_logger(str(tmp_path), name=name + "_b", configure_stdout=False)
    for number in range(3):
        first.info("first %d", number)
        second.info("second %d", number)
    lines = (tmp_path / "log.txt").read_text("utf-8").splitlines()
    assert [line[-7:].split()[-1] for line in lines] == ["0", "0", "1", "1", "2", "2"]
    for handler in list(second.handlers):
        second.removeHandler(handler)
        handler.close()


def test_propagation_and_silence(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not setup_logger(name=name).propagate
    other = setup_logger(name=name + "_p", enable_propagation=True, configure_stdout=False)
    assert other.propagate
    assert other.handlers == []
    other.info("nowhere")
    assert "nowhere" not in capsys.readouterr().out


def test_log_first_n(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for number in range(5):
            log_first_n(logging.INFO, f"by line {number}", n=2)
        for number in range(6):
            log_first_n(logging.INFO, f"by text {number % 2}", key="message")
        for number in range(6):
            log_first_n(logging.INFO, f"by both {number % 3}", key=("caller", "message"))
    assert caplog.messages == [
        "by line 0",
        "by line 1",
        "by text 0",
        "by text 1",
        "by both 0",
        "by both 1",
        "by both 2",
    ]
    assert {record.name for record in caplog.records} == {__name__}


def test_log_every_n(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for number in range(7):
            log_every_n(logging.INFO, str(number), n=3, name="another")
        for number in range(2):
            log_every_n(logging.INFO, f"each {number}")
    assert caplog.messages == ["0", "3", "6", "each 0", "each 1"]
    assert caplog.records[0].name == "another"


def test_log_every_n_seconds(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for number in range(3):
            log_every_n_seconds(logging.INFO, f"rare {number}", n=1000)
        for number in range(2):
            log_every_n_seconds(logging.INFO, f"always {number}", n=0)
    assert caplog.messages == ["rare 0", "always 0", "always 1"]


def test_small_table() -> None:
    head, line, body = create_small_table({"AP": 12.34567, "AP50": 100.0}).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["AP", "AP50"]
    assert [cell.strip() for cell in body.strip("|").split("|")] == ["12.346", "100.000"]
    assert set(line) <= set("|:-")
