"""Workers of a Dask cluster, on other machines or on this one, and the tasks that they have."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from cellseg.errors import ClusterError
from cellseg.inference.cluster_worker import UnfitWorkerError

INSTALL_DASK = "pip install 'dask[distributed]', or pip install 'cellseg[dask]'"
ANSWER_WITHIN_S = 10
"""How long a scheduler may take to answer."""
TASKS_PER_WORKER = 4
"""How many tasks are under way for each worker: one at work, and the next ones at hand."""
COUNT_WORKERS_EVERY_S = 2.0
_TELLING = (
    "cluster_worker",
    "limits",
    "magnification",
    "model",
)  # modules whose log comes from workers

logger = logging.getLogger(__name__)


class Over(BaseException):
    """Ends all that is under way; nobody takes it for the failure of an image."""


class WorkersDiedError(ClusterError):
    """Each worker that had a task died. It may have died of another task that it had."""


@dataclass
class Cluster:
    """Workers, and the tasks that they have.

    Attributes:
        client: `distributed.Client`.
        fatal: what ended all work, if something did.
    """

    client: Any
    fatal: ClusterError | None = field(default=None, init=False)
    _is_over: bool = field(default=False, init=False)
    _futures: set[Any] = field(default_factory=set, init=False)
    _limit: int = field(default=0, init=False)
    _counted_at: float = field(default=float("-inf"), init=False)

    def map(
        self, do: Callable[[Any], Any], items: Iterable[Any], at_once: int | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Each item and what `do` gives for it, or the error that it ends with, in any order.

        Only a few are under way at a time, and items are taken as they are needed. Several threads
        may do this.

        Args:
            do: may be pickled, as items may.
            items: any number of them.
            at_once: how many are under way; by default a few for each worker.
        """
        from distributed import as_completed

        waiting, items = as_completed(loop=self.client.loop), iter(items)
        mine: dict[Any, Any] = {}
        try:
            while True:
                limit = min(self._count_tasks(), at_once or sys.maxsize)
                for item in islice(items, max(limit - len(mine), 0)):
                    future = self.client.submit(do, item, pure=False)
                    mine[future] = item
                    self._futures.add(future)
                    waiting.add(future)
                if not mine:
                    return
                future = next(waiting)
                self._futures.discard(future)
                yield mine.pop(future), self._result_of(future)
                del future
        finally:
            self._futures.difference_update(mine)
            self.client.cancel(list(mine))

    def call(self, do: Callable[[Any], Any], item: Any) -> Any:
        """What `do` gives for one item, on some worker.

        Raises:
            Exception: what it ends with.
        """
        ((_, result),) = self.map(do, [item])
        if isinstance(result, Exception):
            raise result
        return result

    def stop(self) -> None:
        """End what is under way, in all threads."""
        self._is_over = True
        self.client.cancel(list(self._futures))

    @property
    def most_on_one_machine(self) -> int:
        """The largest number of workers on one machine; at least 1."""
        hosts = [worker["host"] for worker in self._workers().values()]
        return max(map(hosts.count, hosts), default=1)

    def _workers(self) -> dict[str, Any]:
        """Address of each worker and what the scheduler knows of it."""
        try:
            workers: dict[str, Any] = self.client.scheduler_info()["workers"]
        except (OSError, RuntimeError, CancelledError) as error:
            raise self._end(_describe_loss(error)) from error
        return workers

    def _count_tasks(self) -> int:
        """How many tasks may be under way; workers come and go."""
        if self._is_over:
            raise Over
        if time.monotonic() - self._counted_at > COUNT_WORKERS_EVERY_S:
            self._limit = max(len(self._workers()), 1) * TASKS_PER_WORKER
            self._counted_at = time.monotonic()
        return self._limit

    def _result_of(self, future: Any) -> Any:
        from distributed import KilledWorker

        try:
            return future.result()
        except UnfitWorkerError as error:
            raise self._end(error) from error
        except KilledWorker as error:
            return WorkersDiedError(
                f"each worker that looked at it died ({error.allowed_failures + 1} of them), most "
                "likely for want of memory; give them more, or look at it in smaller tiles (--tile)"
            )
        except CancelledError as error:
            raise self._end(_describe_loss(error)) from error
        except Exception as error:
            return error

    def _end(self, error: ClusterError) -> Over:
        if not self._is_over:
            self.fatal = error
        return Over()


def _describe_loss(error: BaseException) -> ClusterError:
    return ClusterError(
        f"the scheduler no longer answers ({type(error).__name__}); what is done is kept: start it "
        "again and go on with --resume"
    )


@contextmanager
def open_cluster(scheduler: str | None = None, workers: int = 1) -> Iterator[Cluster]:
    """The workers of a scheduler, or workers of our own on this machine.

    Args:
        scheduler: address of a Dask scheduler such as `tcp://10.0.0.1:8786`, or the file that
            `dask scheduler --scheduler-file` wrote; None for workers on this machine.
        workers: how many of those; they share its cores, and end with the context.

    Raises:
        ClusterError: `distributed` is not installed, or nobody answers.
    """
    distributed = _import_distributed()
    with ExitStack() as stack:
        if scheduler is None:
            cluster: Any = stack.enter_context(_start_workers(distributed, workers))
            client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
            client.run(_ignore_interrupts)
        else:
            client = stack.enter_context(_connect(distributed, scheduler))
        for module in _TELLING:
            client.forward_logging(f"cellseg.inference.{module}", logging.INFO)
        yield Cluster(client)


def _import_distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ClusterError(
            f"--scheduler and --workers need the package distributed: {INSTALL_DASK}"
        ) from error


def _start_workers(distributed: Any, workers: int) -> Any:
    from dask.system import CPU_COUNT

    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=max(CPU_COUNT // workers, 1),
        memory_limit=0,  # a worker that is paused at a limit would never go on: the model stays
        dashboard_address="127.0.0.1:0",  # any free port: there may be several of us
        silence_logs=logging.ERROR,
    )


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to workers as well, to the process that began it all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _within_time(make: Callable[[], Any]) -> Any:
    """What `make` gives; a TimeoutError where it waits for a server that says nothing.

    The limit of Dask's own counts until there is a connection, and not until it is answered.
    """
    found: Future[Any] = Future()

    def run() -> None:
        try:
            found.set_result(make())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, name="connect", daemon=True).start()
    return found.result(timeout=2 * ANSWER_WITHIN_S)


def _connect(distributed: Any, scheduler: str) -> Any:
    is_file = Path(scheduler).is_file()
    place = {"scheduler_file": scheduler} if is_file else {"address": scheduler}
    try:
        client = _within_time(
            partial(distributed.Client, **place, timeout=ANSWER_WITHIN_S, set_as_default=False)
        )
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or "it takes the connection and says nothing"
        raise ClusterError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({reason}); expected an "
            "address such as tcp://10.0.0.1:8786, as `dask scheduler` shows it when it starts, or "
            "the file of its option --scheduler-file"
        ) from error
    if not client.scheduler_info()["workers"]:
        logger.warning("--scheduler %s has no worker yet; waiting for the first", scheduler)
    return client
