"""What a worker process does, and what it tells about itself."""

import random
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from socket import socket
from typing import Any

import numpy as np

from flambeau.engine.generator import default_generator
from flambeau.engine.runtime import backend
from flambeau.utils.data.fetch import CollateFunction, Fetcher, IterableFetcher, MapFetcher
from flambeau.utils.data.transport import Channel

__all__ = ["WorkerInfo", "get_worker_info"]


@dataclass(slots=True)
class WorkerInfo:
    """Who a worker is; `get_worker_info` gives it inside the worker."""

    id: int
    num_workers: int
    seed: int
    dataset: Any
    rng: Any = None
    worker_method: str = "multiprocessing"


class _Here:
    """This process as a worker: None in the loading process."""

    info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker process, its `WorkerInfo`; None elsewhere."""
    return _Here.info


@dataclass(frozen=True)
class WorkerPlan:
    """What every worker of one loader is told when it starts."""

    dataset: Any
    iterable: bool
    batched: bool
    collate_fn: CollateFunction
    drop_last: bool
    base_seed: int
    worker_init_fn: Callable[[int], Any] | None
    num_workers: int

    def make_fetcher(self) -> Fetcher:
        return make_fetcher(
            self.iterable, self.dataset, self.batched, self.collate_fn, self.drop_last
        )


def make_fetcher(
    iterable: bool, dataset: Any, batched: bool, collate_fn: CollateFunction, drop_last: bool
) -> Fetcher:
    """The fetcher for a data set of either kind."""
    if iterable:
        return IterableFetcher(dataset, batched, collate_fn, drop_last)
    return MapFetcher(dataset, batched, collate_fn)


@dataclass(frozen=True)
class Task:
    """Load the batch of these indices."""

    index: Any


@dataclass(frozen=True)
class Restart:
    """Begin the next epoch: iterate over the data set anew."""


@dataclass(frozen=True)
class Restarted:
    """Answers `Restart`; what came before belongs to the old epoch."""


@dataclass(frozen=True)
class Batch:
    """Answers `Task`."""

    data: Any


@dataclass(frozen=True)
class Exhausted:
    """Answers `Task`: this worker's iterable has ended."""


class ExceptionText(str):
    """A message that shows its line breaks even where only its ``repr`` is printed (KeyError)."""

    def __repr__(self) -> str:
        return str(self)


class ExceptionWrapper:
    """Answers `Task`: an exception with the traceback it had in the worker."""

    def __init__(self, exc_info: Any = None, where: str = "in background") -> None:
        kind, error, trace = sys.exc_info() if exc_info is None else exc_info
        self.exc_type = kind
        self.exc_name = kind.__name__
        self.exc_msg = "".join(traceback.format_exception(kind, error, trace))
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_exception, (self.exc_type, self.exc_name, self.exc_msg, self.where)

    def reraise(self) -> None:
        """Raise the same type of exception here, or RuntimeError if it takes no plain message."""
        message = f"Caught {self.exc_name} {self.where}.\nOriginal {self.exc_msg}"
        if issubclass(self.exc_type, KeyError):
            message = ExceptionText(message)
        elif getattr(self.exc_type, "message", None):
            # Such exceptions keep their text there and want it by name.
            raise self.exc_type(message=message)
        try:
            error = self.exc_type(message)
        except Exception:
            raise RuntimeError(message) from None
        raise error


def _restore_exception(kind: type, name: str, message: str, where: str) -> ExceptionWrapper:
    wrapper = ExceptionWrapper.__new__(ExceptionWrapper)
    wrapper.exc_type = kind
    wrapper.exc_name = name
    wrapper.exc_msg = message
    wrapper.where = where
    return wrapper


def worker_main(plan: WorkerPlan, connection: socket, worker_id: int) -> None:
    """Answer tasks until the loader closes its end."""
    try:
        _serve(plan, Channel(connection), worker_id)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The loader is gone or needs no more.
        pass
    except KeyboardInterrupt:
        # Ctrl-C reaches every process of the terminal; the loader reports it.
        pass


def _serve(plan: WorkerPlan, channel: Channel, worker_id: int) -> None:
    where = f"in DataLoader worker process {worker_id}"
    failure: ExceptionWrapper | None = None
    fetcher: Fetcher | None = None
    try:
        _become_worker(plan, worker_id)
        fetcher = plan.make_fetcher()
    except Exception:
        failure = ExceptionWrapper(where=where)
    while True:
        request = channel.receive()
        if isinstance(request, Restart):
            try:
                fetcher = plan.make_fetcher()
            except Exception:
                failure = ExceptionWrapper(where=where)
            channel.send(Restarted())
        elif failure is not None:
            _send_failure(channel, failure)
            failure = None
        else:
            _answer(channel, fetcher, request, where)


def _become_worker(plan: WorkerPlan, worker_id: int) -> None:
    backend.set_num_threads(1)
    seed = plan.base_seed + worker_id
    random.seed(seed)
    default_generator.manual_seed(seed)
    low, high = plan.base_seed & 0xFFFFFFFF, plan.base_seed >> 32
    # Another generator with the same seed must not give related numbers: numpy mixes these well.
    np.random.seed(np.random.SeedSequence([worker_id, low, high, 0]).generate_state(4))
    _Here.info = WorkerInfo(worker_id, plan.num_workers, seed, plan.dataset)
    if plan.worker_init_fn is not None:
        plan.worker_init_fn(worker_id)


def _answer(channel: Channel, fetcher: Fetcher | None, request: Task, where: str) -> None:
    if fetcher is None:
        # Making it failed, which has been reported: the iterable is empty.
        channel.send(Exhausted())
        return
    try:
        channel.send(Batch(fetcher.fetch(request.index)))
    except StopIteration:
        if isinstance(fetcher, IterableFetcher):
            fetcher.ended = True
            channel.send(Exhausted())
        else:
            _send_failure(channel, ExceptionWrapper(where=where))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception:
        _send_failure(channel, ExceptionWrapper(where=where))


def _send_failure(channel: Channel, failure: ExceptionWrapper) -> None:
    try:
        channel.send(failure)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception:
        # A class that cannot be pickled (one defined in a function) leaves its name only.
        failure.exc_type = RuntimeError
        channel.send(failure)
