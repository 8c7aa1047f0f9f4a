"""One pass over a DataLoader: in this process, or with worker processes."""

import itertools
import multiprocessing
import warnings
import weakref
from collections import deque
from typing import Any

from flambeau.utils.data.pool import WorkerPool
from flambeau.utils.data.sampler import draw_seed
from flambeau.utils.data.worker import (
    ExceptionWrapper,
    Exhausted,
    Task,
    WorkerPlan,
    make_fetcher,
)


class _DatasetKind:
    """How a data set is read: by index or by iteration."""

    Map = 0
    Iterable = 1


class _BaseDataLoaderIter:
    """What both ways share: the sampler, the seed of this pass, and counting batches."""

    def __init__(self, loader: Any) -> None:
        self._dataset = loader.dataset
        self._dataset_kind = loader._dataset_kind
        self._IterableDataset_len_called = loader._IterableDataset_len_called
        self._auto_collation = loader._auto_collation
        self._drop_last = loader.drop_last
        self._index_sampler = loader._index_sampler
        self._num_workers = loader.num_workers
        _warn_about_pinning(loader)
        self._pin_memory = False
        self._timeout = loader.timeout
        self._collate_fn = loader.collate_fn
        # PyTorch's order of draws: the sampler's __iter__ first, then the seed of the workers.
        self._sampler_iter = iter(self._index_sampler)
        self._base_seed = draw_seed(loader.generator)
        self._persistent_workers = loader.persistent_workers
        self._num_yielded = 0

    def __iter__(self) -> "_BaseDataLoaderIter":
        return self

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """Begin a pass (again, with persistent workers)."""
        self._sampler_iter = iter(self._index_sampler)
        self._num_yielded = 0
        self._IterableDataset_len_called = loader._IterableDataset_len_called

    def _next_index(self) -> Any:
        return next(self._sampler_iter)

    def _next_data(self) -> Any:
        raise NotImplementedError

    def __next__(self) -> Any:
        data = self._next_data()
        self._num_yielded += 1
        promised = self._IterableDataset_len_called
        if (
            self._dataset_kind == _DatasetKind.Iterable
            and promised is not None
            and self._num_yielded > promised
        ):
            self._warn_about_length(promised)
        return data

    def _warn_about_length(self, promised: int) -> None:
        text = (
            f"Length of IterableDataset {self._dataset} was reported to be {promised}"
            f"(when accessing len(dataloader)), but {self._num_yielded} samples have been fetched. "
        )
        if self._num_workers > 0:
            text += (
                "For multiprocessing data-loading, this could be caused by not properly "
                "configuring the IterableDataset replica at each worker. Please see "
                "https://pytorch.org/docs/stable/data.html#torch.utils.data.IterableDataset for "
                "examples."
            )
        warnings.warn(text, stacklevel=3)

    def __len__(self) -> int:
        return len(self._index_sampler)

    def __getstate__(self) -> Any:
        raise NotImplementedError("{} cannot be pickled", type(self).__name__)


class _SingleProcessDataLoaderIter(_BaseDataLoaderIter):
    """Loads each batch when it is asked for."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        if self._timeout != 0:
            raise AssertionError("_SingleProcessDataLoaderIter requires timeout == 0")
        if self._num_workers != 0:
            raise AssertionError("_SingleProcessDataLoaderIter requires num_workers == 0")
        self._dataset_fetcher = make_fetcher(
            self._dataset_kind == _DatasetKind.Iterable,
            self._dataset,
            self._auto_collation,
            self._collate_fn,
            self._drop_last,
        )

    def _next_data(self) -> Any:
        return self._dataset_fetcher.fetch(self._next_index())


class _MultiProcessingDataLoaderIter(_BaseDataLoaderIter):
    """Loads batches ahead in worker processes.

    Batch ``n`` is asked of the next worker in turn, and at most ``prefetch_factor * num_workers``
    are on their way.  Each worker answers in order, so with ``in_order`` the next batch is always
    the next answer of a known worker, and nothing need be set aside.
    """

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self._prefetch_factor = loader.prefetch_factor
        self._in_order = loader.in_order
        if self._num_workers <= 0:
            raise AssertionError(
                "num_workers must be greater than 0 for MultiProcessingDataLoaderIter"
            )
        if self._prefetch_factor <= 0:
            raise AssertionError(
                "prefetch_factor must be greater than 0 for MultiProcessingDataLoaderIter"
            )
        plan = WorkerPlan(
            dataset=self._dataset,
            iterable=self._dataset_kind == _DatasetKind.Iterable,
            batched=self._auto_collation,
            collate_fn=self._collate_fn,
            drop_last=self._drop_last,
            base_seed=self._base_seed,
            worker_init_fn=loader.worker_init_fn,
            num_workers=self._num_workers,
        )
        context = loader.multiprocessing_context or multiprocessing
        self._pool = WorkerPool(plan, context)
        # Runs when this iterator is dropped, and at the latest when the interpreter ends.
        self._shutdown_workers = weakref.finalize(self, self._pool.close)
        self._reset(loader, first_iter=True)

    @property
    def _workers(self) -> list[Any]:
        return [worker.process for worker in self._pool.workers]

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        super()._reset(loader, first_iter)
        # The workers that owe an answer, in the order of the batches.
        self._owing: deque[int] = deque()
        self._debts = [0] * self._num_workers
        self._active = [True] * self._num_workers
        self._turns = itertools.cycle(range(self._num_workers))
        if not first_iter:
            self._pool.restart()
        for _ in range(self._prefetch_factor * self._num_workers):
            self._request_batch()

    def _request_batch(self) -> None:
        """Ask the next worker for the next batch, if there is one of either."""
        try:
            index = self._next_index()
        except StopIteration:
            return
        worker_id = self._next_worker()
        if worker_id is None:
            return
        self._pool.submit(worker_id, Task(index))
        self._owing.append(worker_id)
        self._debts[worker_id] += 1

    def _next_worker(self) -> int | None:
        share = self._prefetch_factor * self._num_workers // max(1, sum(self._active))
        for worker_id in itertools.islice(self._turns, self._num_workers):
            if self._active[worker_id] and (self._in_order or self._debts[worker_id] < share):
                return worker_id
        return None

    def _next_data(self) -> Any:
        while self._owing:
            expected = [self._owing[0]] if self._in_order else sorted(set(self._owing))
            worker_id, answer = self._pool.receive(expected, self._timeout)
            self._owing.remove(worker_id)
            self._debts[worker_id] -= 1
            if isinstance(answer, Exhausted):
                self._active[worker_id] = False
            self._request_batch()
            if isinstance(answer, ExceptionWrapper):
                answer.reraise()
            if not isinstance(answer, Exhausted):
                return answer.data
        if not self._persistent_workers:
            self._shutdown_workers()
        raise StopIteration


def _warn_about_pinning(loader: Any) -> None:
    if not loader.pin_memory:
        return
    if loader.pin_memory_device:
        warnings.warn(
            "pin_memory_device is deprecated, the current accelerator will be used as the device,"
            f"ignore pin_memory_device='{loader.pin_memory_device}'.",
            stacklevel=5,
        )
    warnings.warn(
        "'pin_memory' argument is set as true but no accelerator is found, then device pinned "
        "memory won't be used.",
        stacklevel=5,
    )
