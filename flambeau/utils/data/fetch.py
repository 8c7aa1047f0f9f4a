"""From the indices of a batch to the batch."""

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core.dtype import int64
from flambeau.interchange import tensor_from_data
from flambeau.ops.indexing import take_slices
from flambeau.tensor import Tensor
from flambeau.utils.data.collate import collate_tensor_fn, default_collate, default_collate_fn_map
from flambeau.utils.data.dataset import Subset, TensorDataset, add_sample_note, fetch_samples

CollateFunction = Callable[[Any], Any]


class MapFetcher:
    """Loads samples by index; ``batched`` says whether an "index" is a list of them."""

    def __init__(self, dataset: Any, batched: bool, collate_fn: CollateFunction) -> None:
        self.dataset = dataset
        self.batched = batched
        self.collate_fn = collate_fn

    def fetch(self, index: Any) -> Any:
        if not self.batched:
            return self.collate_fn(self._load(index))
        if self.collate_fn is default_collate:
            batch = gather_batch(self.dataset, index)
            if batch is not None:
                return batch
        return self.collate_fn(fetch_samples(self.dataset, index))

    def _load(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            add_sample_note(error, self.dataset, index)
            raise


class IterableFetcher:
    """Takes samples off an iterator; StopIteration when there are no more."""

    def __init__(
        self, dataset: Any, batched: bool, collate_fn: CollateFunction, drop_last: bool
    ) -> None:
        self.iterator = iter(dataset)
        self.batched = batched
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self.ended = False

    def fetch(self, index: Any) -> Any:
        """The next batch; ``index`` matters only for its length."""
        if self.ended:
            raise StopIteration
        if not self.batched:
            return self.collate_fn(next(self.iterator))
        samples = []
        for _ in index:
            try:
                samples.append(next(self.iterator))
            except StopIteration:
                self.ended = True
                break
        if not samples or (self.drop_last and len(samples) < len(index)):
            raise StopIteration
        return self.collate_fn(samples)


Fetcher = MapFetcher | IterableFetcher


def gather_batch(dataset: Any, indices: Sequence[Any]) -> list[Tensor] | None:
    """The default batch of a `TensorDataset` by one gather per tensor, or None if it must be slow.

    Stands for loading every sample and stacking; anything that could tell the difference (another
    class, a subclass, an index that is not plain and in range, a graph) takes the slow way.
    """
    while type(dataset) is Subset:
        source = dataset.indices
        try:
            indices = [source[i] for i in indices]
        except (IndexError, TypeError):
            return None
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset or not dataset.tensors:
        return None
    if default_collate_fn_map.get(Tensor) is not collate_tensor_fn:
        return None
    if not indices or any(type(i) is not int for i in indices):
        return None
    if min(indices) < 0 or max(indices) >= min(len(column) for column in dataset.tensors):
        return None
    if any(type(column) is not Tensor or column.requires_grad for column in dataset.tensors):
        return None
    index = tensor_from_data(indices, int64)
    return [take_slices(column, 0, index) for column in dataset.tensors]
