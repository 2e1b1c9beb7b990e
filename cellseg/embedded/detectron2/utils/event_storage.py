"""The numbers that training produces, and the storage that code anywhere puts them into."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import torch
from fvcore.common.history_buffer import HistoryBuffer

_active: list[EventStorage] = []


def has_event_storage() -> bool:
    """Whether the code runs inside a `with EventStorage(...)` block."""
    return bool(_active)


def get_event_storage() -> EventStorage:
    """The storage of the innermost `with EventStorage(...)` block.

    Raises:
        AssertionError: there is no such block.
    """
    assert _active, "this needs to run inside a 'with EventStorage(...)' block"
    return _active[-1]


class EventStorage:
    """What happened during training: scalars with their history, pictures, histograms.

    Scalars that are put with `smoothing_hint` are noisy; writers show their median.
    """

    def __init__(self, start_iter: int = 0) -> None:
        self._iter = start_iter
        self._prefix = ""
        self._histories: defaultdict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._latest: dict[str, tuple[float, int]] = {}
        self._smoothing_hints: dict[str, bool] = {}
        self._images: list[tuple[str, Any, int]] = []
        self._histograms: list[dict[str, Any]] = []

    def __enter__(self) -> EventStorage:
        _active.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert _active[-1:] == [self], "EventStorage blocks end in another order"
        _active.pop()

    @property
    def iter(self) -> int:
        """The current iteration, from 0; what is put now belongs to it."""
        return self._iter

    @iter.setter
    def iter(self, val: int) -> None:
        self._iter = int(val)

    @property
    def iteration(self) -> int:
        """The same as `iter`."""
        return self._iter

    def step(self) -> None:
        """Go on to the next iteration."""
        self._iter += 1

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Inside the block, names of scalars begin with `name/`."""
        outer, self._prefix = self._prefix, name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._prefix = outer

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Note one number.

        Args:
            name: of the scalar.
            value: anything that `float` takes.
            smoothing_hint: whether writers shall smooth it; always the same for one name.
            cur_iter: the iteration it belongs to, if not the current one.

        Raises:
            AssertionError: the name was put with the other `smoothing_hint` before.
        """
        name = self._prefix + name
        hint = self._smoothing_hints.setdefault(name, smoothing_hint)
        assert hint == smoothing_hint, f"scalar {name!r} was put with smoothing_hint={hint} before"
        iteration = self._iter if cur_iter is None else cur_iter
        self._latest[name] = (float(value), iteration)
        self._histories[name].update(*self._latest[name])

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: Any
    ) -> None:
        """Note several numbers, each given as `name=value`."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint, cur_iter)

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Keep an RGB picture [3, H, W], uint8 or float in [0, 1], for TensorBoard."""
        self._images.append((img_name, img_tensor, self._iter))

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Keep the distribution of all numbers of a tensor, in `bins` steps, for TensorBoard."""
        low, high = (float(limit) for limit in hist_tensor.aminmax())
        edges = torch.linspace(low, high, bins + 1, dtype=torch.float32)
        self._histograms.append(
            {
                "tag": hist_name,
                "global_step": self._iter,
                "min": low,
                "max": high,
                "num": len(hist_tensor),
                "sum": float(hist_tensor.sum()),
                "sum_squares": float(hist_tensor.square().sum()),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": torch.histc(hist_tensor, bins).tolist(),
            }
        )

    def images(self) -> list[tuple[str, Any, int]]:
        """(name, picture, iteration) of the pictures that were not cleared yet."""
        return self._images

    def histograms(self) -> list[dict[str, Any]]:
        """Arguments of `SummaryWriter.add_histogram_raw` that were not cleared yet."""
        return self._histograms

    def clear_images(self) -> None:
        """Forget the pictures; a writer does so once it has written them."""
        self._images = []

    def clear_histograms(self) -> None:
        """Forget the histograms; a writer does so once it has written them."""
        self._histograms = []

    def history(self, name: str) -> HistoryBuffer:
        """All values of one scalar; KeyError if it was never put."""
        if name not in self._histories:
            raise KeyError(f"no scalar {name!r}; there are: {', '.join(self._histories)}")
        return self._histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """All values of every scalar, by name."""
        return self._histories

    def smoothing_hints(self) -> dict[str, bool]:
        """Whether to smooth, by name."""
        return self._smoothing_hints

    def latest(self) -> dict[str, tuple[float, int]]:
        """(value, iteration) that was put last, by name."""
        return self._latest

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """As `latest`, with the median over the last iterations for scalars to smooth.

        Args:
            window_size: iterations (not values) before the newest value that count.
        """
        return {
            name: (self._median(name, window_size) if smooth else self._latest[name][0], iteration)
            for name, smooth in self._smoothing_hints.items()
            for iteration in [self._latest[name][1]]
        }

    def _median(self, name: str, window_size: int) -> float:
        return self._histories[name].median(self.count_samples(name, window_size))

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """Number of the newest values that lie within `window_size` iterations."""
        newest_first = [iteration for _, iteration in reversed(self.history(name).values())]
        oldest_allowed = newest_first[0] - window_size + 1
        return len(list(takewhile(lambda iteration: iteration >= oldest_allowed, newest_first)))
