"""detectron2.utils.events: the storage and its writers."""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)

PRINTER_LOGGER = "detectron2.utils.events"


@pytest.fixture
def storage() -> Iterator[EventStorage]:
    with EventStorage() as running:
        yield running


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_innermost_storage_is_current() -> None:
    assert not has_event_storage()
    with pytest.raises(AssertionError):
        get_event_storage()
    with EventStorage() as outer:
        with EventStorage(5) as inner:
            assert get_event_storage() is inner
            assert inner.iter == 5
        assert get_event_storage() is outer
    assert not has_event_storage()


def test_a_block_that_fails_ends_as_well() -> None:
    with pytest.raises(ZeroDivisionError), EventStorage():
        raise ZeroDivisionError
    assert not has_event_storage()


def test_scalars_are_kept_with_their_iteration(storage: EventStorage) -> None:
    storage.put_scalar("a", torch.tensor(1.5))
    storage.step()
    storage.put_scalars(a=2, b=3, smoothing_hint=True)
    storage.put_scalar("late", 7.0, smoothing_hint=False, cur_iter=40)
    assert storage.latest() == {"a": (2.0, 1), "b": (3.0, 1), "late": (7.0, 40)}
    assert storage.history("a").values() == [(1.5, 0), (2.0, 1)]
    assert set(storage.histories()) == {"a", "b", "late"}
    assert storage.smoothing_hints() == {"a": True, "b": True, "late": False}
    assert storage.iter == storage.iteration == 1
    storage.iter = 10
    assert storage.iter == 10
    with pytest.raises(KeyError, match="unknown"):
        storage.history("unknown")
    with pytest.raises(AssertionError):
        storage.put_scalar("a", 1.0, smoothing_hint=False)


def test_name_scope(storage: EventStorage) -> None:
    with storage.name_scope("head/"):
        storage.put_scalar("loss", 1.0)
    storage.put_scalar("loss", 2.0)
    assert {name: value for name, (value, _) in storage.latest().items()} == {
        "head/loss": 1.0,
        "loss": 2.0,
    }


def test_smoothing_takes_the_median_over_iterations(storage: EventStorage) -> None:
    values = np.random.default_rng(0).random(60).tolist()
    for storage.iter, value in enumerate(values):
        storage.put_scalar("noisy", value)
        storage.put_scalar("exact", value, smoothing_hint=False)
        if storage.iter % 5 == 4:
            storage.put_scalar("seldom", value)
    smoothed = storage.latest_with_smoothing_hint(20)
    assert smoothed["noisy"] == (pytest.approx(median(values[-20:])), 59)
    assert smoothed["exact"] == (values[-1], 59)
    assert smoothed["seldom"] == (pytest.approx(median(values[44::5])), 59)
    assert storage.count_samples("noisy", 20) == 20
    assert storage.count_samples("seldom", 20) == 4
    assert storage.count_samples("noisy", 1000) == 60


def test_several_values_in_one_iteration_all_count(storage: EventStorage) -> None:
    for storage.iter in range(6):
        for value in range(3):
            storage.put_scalar("many", value)
    assert storage.count_samples("many", 2) == 6


def test_json_lines(tmp_path: Path, storage: EventStorage) -> None:
    writer = JSONWriter(str(tmp_path / "metrics.json"))
    for storage.iter in range(40):
        storage.put_scalar("lr", storage.iter / 2, smoothing_hint=False)
        if storage.iter == 3:
            storage.put_scalar("early", 1.0)
        if storage.iter % 20 == 19:
            writer.write()
            writer.write()  # nothing is new
    writer.close()
    lines = read_lines(tmp_path / "metrics.json")
    assert sorted(lines, key=lambda line: line["iteration"]) == [
        {"early": 1.0, "iteration": 3},
        {"iteration": 19, "lr": 9.5},
        {"iteration": 39, "lr": 19.5},
    ]


def test_json_is_on_disk_after_every_write(tmp_path: Path, storage: EventStorage) -> None:
    writer = JSONWriter(str(tmp_path / "metrics.json"))
    storage.put_scalar("loss", float("nan"))
    storage.put_scalar("other", 1.0)
    writer.write()
    text = (tmp_path / "metrics.json").read_text("utf-8")
    assert text == '{"iteration": 0, "loss": NaN, "other": 1.0}\n'
    writer.close()


def test_json_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    for start in (0, 1):
        with EventStorage(start) as storage:
            writer = JSONWriter(str(path), window_size=1)
            storage.put_scalar("loss", start)
            writer.write()
            writer.close()
    assert read_lines(path) == [{"iteration": 0, "loss": 0.0}, {"iteration": 1, "loss": 1.0}]


@pytest.mark.embedded_only
def test_json_goes_on_below_a_line_that_was_cut(tmp_path: Path, storage: EventStorage) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 0}\n{"iterat', encoding="utf-8")
    writer = JSONWriter(str(path))
    storage.put_scalar("loss", 1.0)
    writer.write()
    writer.close()
    lines = path.read_text("utf-8").splitlines()
    assert lines[1] == '{"iterat'
    assert json.loads(lines[2]) == {"iteration": 0, "loss": 1.0}
    empty = tmp_path / "empty.json"
    empty.touch()
    JSONWriter(str(empty)).close()
    assert empty.read_text("utf-8") == ""


def printed(caplog: pytest.LogCaptureFixture, printer: CommonMetricPrinter) -> dict[str, str]:
    """The fields of the line that `write` logs."""
    caplog.clear()
    with caplog.at_level("INFO", logger=PRINTER_LOGGER):
        printer.write()
    assert len(caplog.messages) == 1
    return dict(re.findall(r"(\S+): (\S+)", caplog.messages[0]))


def test_printed_line(caplog: pytest.LogCaptureFixture, storage: EventStorage) -> None:
    for storage.iter in range(30):
        storage.put_scalars(total_loss=storage.iter, loss_mask=0.123456, other=5.0)
        storage.put_scalar("[metric]dice", 0.75)
        storage.put_scalars(time=2.0, data_time=float(storage.iter))
        storage.put_scalar("lr", 0.0001234567, smoothing_hint=False)
    fields = printed(caplog, CommonMetricPrinter(max_iter=100))
    fields.pop("max_mem", None)  # on a GPU only
    assert fields == {
        "eta": "0:02:20",  # 70 iterations of 2 s
        "iter": "29",
        "total_loss": "19.5",
        "loss_mask": "0.1235",
        "[metric]dice": "0.75",
        "time": "2.0000",
        "last_time": "2.0000",
        "data_time": "19.5000",
        "last_data_time": "29.0000",
        "lr": "0.00012346",
    }
    assert storage.latest()["eta_seconds"] == (140.0, 29)


def test_printed_line_of_the_first_iterations(
    caplog: pytest.LogCaptureFixture, storage: EventStorage
) -> None:
    storage.put_scalar("total_loss", 1.0)
    printer = CommonMetricPrinter(max_iter=100)
    first = printed(caplog, printer)
    assert first["lr"] == "N/A"
    assert not {"eta", "time", "data_time"} & set(first)
    storage.iter = 50
    assert printed(caplog, printer)["eta"] == "0:00:00"  # from the clock: no time between the two


def test_printed_line_without_a_known_end(
    caplog: pytest.LogCaptureFixture, storage: EventStorage
) -> None:
    storage.put_scalars(time=1.0, total_loss=1.0)
    assert "eta" not in printed(caplog, CommonMetricPrinter())


@pytest.mark.embedded_only
def test_printing_twice_in_one_iteration(
    caplog: pytest.LogCaptureFixture, storage: EventStorage
) -> None:
    printer = CommonMetricPrinter(max_iter=100)
    assert "eta" not in printed(caplog, printer)
    assert "eta" not in printed(caplog, printer)


def test_nothing_is_printed_after_the_end(
    caplog: pytest.LogCaptureFixture, storage: EventStorage
) -> None:
    storage.iter = 100
    with caplog.at_level("INFO", logger=PRINTER_LOGGER):
        CommonMetricPrinter(max_iter=100).write()
    assert caplog.messages == []


def test_tensorboard_files(tmp_path: Path, storage: EventStorage) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "board"
    writer = TensorboardXWriter(str(folder))
    assert not folder.exists()
    for storage.iter in range(3):
        storage.put_scalar("loss", storage.iter, smoothing_hint=False)
        writer.write()
    storage.put_image("cells", torch.zeros(3, 4, 4, dtype=torch.uint8))
    storage.put_histogram("weights", torch.tensor([0.0, 1.0, 1.0, 4.0]), bins=4)
    writer.write()
    writer.write()  # pictures and histograms are written once
    writer.close()

    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (0, 0.0),
        (1, 1.0),
        (2, 2.0),
    ]
    assert [event.step for event in events.Images("cells")] == [2]
    (histogram,) = events.Histograms("weights")
    value = histogram.histogram_value
    assert (value.min, value.max, value.num, value.sum, value.sum_squares) == (0, 4, 4, 6, 18)
    assert list(value.bucket_limit) == [1, 2, 3, 4]
    assert list(value.bucket) == [1, 2, 0, 1]


def test_a_tensorboard_writer_that_never_wrote_leaves_nothing(tmp_path: Path) -> None:
    TensorboardXWriter(str(tmp_path / "board")).close()
    assert not (tmp_path / "board").exists()


@pytest.mark.embedded_only
def test_missing_tensorboard_is_named(
    tmp_path: Path, storage: EventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def without_tensorboard(name: str, *args: Any, **kwargs: Any) -> Any:
        if "tensorboard" in name:
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    storage.put_scalar("loss", 1.0)
    monkeypatch.setattr(builtins, "__import__", without_tensorboard)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorboardXWriter(str(tmp_path)).write()
