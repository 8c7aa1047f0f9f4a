"""Uses of data sets, samplers and loaders, against a namespace that is PyTorch's or ours."""

import random
import warnings
from collections import OrderedDict, namedtuple
from types import ModuleType
from typing import Any

import numpy as np

Point = namedtuple("Point", ["x", "y"])


class Squares:
    """A data set in the least form: what PyTorch accepts, with no base class."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return index * index


class Draws:
    """Samples that show the random state of the worker that loads them."""

    def __init__(self, torch: ModuleType) -> None:
        self.torch = torch

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> list[Any]:
        info = self.torch.utils.data.get_worker_info()
        if info is None:
            return [index, random.random(), np.random.rand()]
        low = self.torch.randint(1000, ()).item()
        return [index, info.id, info.num_workers, info.seed, random.random(), np.random.rand(), low]


def counting(torch: ModuleType) -> Any:
    """An iterable data set that its workers share out."""

    class Counting(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            info = torch.utils.data.get_worker_info()
            start, step = (0, 1) if info is None else (info.id, info.num_workers)
            return iter(range(start, 11, step))

        def __len__(self) -> int:
            return 11

    return Counting()


def plain(value: Any) -> Any:
    """Tensors and arrays as lists, structures with their type's name."""
    if hasattr(value, "tolist"):
        return [type(value).__name__, str(getattr(value, "dtype", "")), value.tolist()]
    if isinstance(value, dict):
        items = {str(key): plain(item) for key, item in value.items()}
        return [type(value).__name__, items]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, [plain(item) for item in value]]
    return value


def tensors(torch: ModuleType, length: int = 10) -> Any:
    x = torch.arange(length * 3).reshape(length, 3)
    return torch.utils.data.TensorDataset(x, torch.arange(length) * 10)


def epochs(loader: Any, count: int = 2) -> Any:
    return [plain(list(loader)) for _ in range(count)]


def _loader(torch: ModuleType, *args: Any, **options: Any) -> Any:
    return torch.utils.data.DataLoader(*args, **options)


def _shuffled_twice(torch: ModuleType) -> Any:
    torch.manual_seed(7)
    loader = _loader(torch, Squares(9), batch_size=4, shuffle=True)
    return [epochs(loader), torch.randint(1000, (3,)).tolist()]


def _shuffled_with_generator(torch: ModuleType) -> Any:
    generator = torch.Generator()
    generator.manual_seed(3)
    loader = _loader(torch, Squares(9), batch_size=4, shuffle=True, generator=generator)
    return [epochs(loader), torch.randint(1000, (3,), generator=generator).tolist()]


def _sampler(torch: ModuleType, name: str, *args: Any, **options: Any) -> Any:
    torch.manual_seed(11)
    sampler = getattr(torch.utils.data, name)(*args, **options)
    return [list(sampler), list(sampler), len(sampler), torch.randint(1000, (2,)).tolist()]


def _seeded_sampler(torch: ModuleType, name: str, *args: Any, **options: Any) -> Any:
    generator = torch.Generator()
    generator.manual_seed(5)
    return _sampler(torch, name, *args, generator=generator, **options)


def _workers(torch: ModuleType, **options: Any) -> Any:
    torch.manual_seed(1)
    loader = _loader(torch, Draws(torch), num_workers=2, collate_fn=list, **options)
    return [epochs(loader), torch.randint(1000, (2,)).tolist()]


def _persistent_shuffle(torch: ModuleType) -> Any:
    torch.manual_seed(2)
    loader = _loader(
        torch, tensors(torch), batch_size=3, shuffle=True, num_workers=2, persistent_workers=True
    )
    return [epochs(loader, 3), torch.randint(1000, (2,)).tolist()]


def _split(torch: ModuleType, lengths: list[Any]) -> Any:
    generator = torch.Generator()
    generator.manual_seed(42)
    parts = torch.utils.data.random_split(range(10), lengths, generator=generator)
    return [list(part) for part in parts]


def _distributed(torch: ModuleType, size: int, **options: Any) -> Any:
    result = []
    for rank in range(3):
        sampler = torch.utils.data.DistributedSampler(range(size), 3, rank, **options)
        sampler.set_epoch(2)
        result.append([list(sampler), len(sampler)])
    return result


def _stack(torch: ModuleType, **by_name: Any) -> Any:
    data = torch.utils.data
    parts = [Squares(5), tensors(torch, 5)]
    stacked = (
        data.StackDataset(*parts) if not by_name else data.StackDataset(a=parts[0], b=parts[1])
    )
    return [plain(stacked[3]), plain(stacked.__getitems__([0, 2])), len(stacked)]


def _concat(torch: ModuleType) -> Any:
    joined = torch.utils.data.ConcatDataset([Squares(3), Squares(4)])
    return [[joined[k] for k in range(-7, 7)], len(joined), joined.cumulative_sizes]


def _chain(torch: ModuleType) -> Any:
    chain = counting(torch) + counting(torch)
    return [list(chain), len(chain)]


def _subset(torch: ModuleType) -> Any:
    subset = torch.utils.data.Subset(tensors(torch), [4, 2, 9])
    inner = torch.utils.data.Subset(subset, [2, 0])
    loader = _loader(torch, inner, batch_size=2)
    return [plain(subset[1]), plain(subset.__getitems__([0, 1])), epochs(loader, 1)]


CASES = {
    "sequential": lambda t: epochs(_loader(t, Squares(7), batch_size=3)),
    "drop last": lambda t: epochs(_loader(t, Squares(7), batch_size=3, drop_last=True)),
    "single samples": lambda t: epochs(_loader(t, Squares(3), batch_size=None)),
    "arrays unbatched": lambda t: epochs(_loader(t, [np.ones(2), {"a": 1}], batch_size=None)),
    "tensors": lambda t: epochs(_loader(t, tensors(t), batch_size=4)),
    "tensors, negative": lambda t: epochs(_loader(t, tensors(t), batch_sampler=[[-1, 0], [3]])),
    "tensor subset": _subset,
    "batch sampler": lambda t: epochs(_loader(t, Squares(5), batch_sampler=[[1, 2], [4]])),
    "sampler": lambda t: epochs(_loader(t, Squares(5), sampler=[4, 0], batch_size=2)),
    "iterable": lambda t: epochs(_loader(t, counting(t), batch_size=4)),
    "iterable drop last": lambda t: epochs(_loader(t, counting(t), batch_size=4, drop_last=True)),
    "iterable single": lambda t: epochs(_loader(t, counting(t), batch_size=None)),
    "lengths": lambda t: [
        len(_loader(t, Squares(7), batch_size=3)),
        len(_loader(t, Squares(7), batch_size=3, drop_last=True)),
        len(_loader(t, Squares(7), batch_size=None)),
        len(_loader(t, counting(t), batch_size=3)),
        len(_loader(t, counting(t), batch_size=3, drop_last=True)),
    ],
    "shuffle": _shuffled_twice,
    "shuffle with generator": _shuffled_with_generator,
    "workers": _workers,
    "workers in batches": lambda t: _workers(t, batch_size=2, shuffle=True),
    "workers persistent": lambda t: _workers(t, persistent_workers=True, prefetch_factor=1),
    "workers tensors": lambda t: epochs(_loader(t, tensors(t), batch_size=3, num_workers=2)),
    "workers iterable": lambda t: epochs(_loader(t, counting(t), batch_size=2, num_workers=2)),
    "workers persistent shuffle": _persistent_shuffle,
    "random": lambda t: _sampler(t, "RandomSampler", range(10)),
    "random generator": lambda t: _seeded_sampler(t, "RandomSampler", range(10)),
    "random more": lambda t: _sampler(t, "RandomSampler", range(4), num_samples=10),
    "random replacement": lambda t: _sampler(
        t, "RandomSampler", range(5), replacement=True, num_samples=70
    ),
    "subset random": lambda t: _sampler(t, "SubsetRandomSampler", [3, 1, 4, 1, 5]),
    "subset random generator": lambda t: _seeded_sampler(t, "SubsetRandomSampler", [3, 1, 4]),
    "weighted": lambda t: _sampler(t, "WeightedRandomSampler", [0.1, 0.7, 0.2], 12),
    "weighted once": lambda t: _sampler(
        t, "WeightedRandomSampler", [0.1, 0.7, 0.2, 3.0], 3, replacement=False
    ),
    "batches": lambda t: [
        list(t.utils.data.BatchSampler(range(7), 3, drop)) for drop in (False, True)
    ],
    "split": lambda t: _split(t, [7, 3]),
    "split fractions": lambda t: _split(t, [0.25, 0.25, 0.5]),
    "distributed": lambda t: _distributed(t, 10),
    "distributed drop": lambda t: _distributed(t, 10, drop_last=True, shuffle=False),
    "distributed few": lambda t: _distributed(t, 2, seed=3),
    "stack": _stack,
    "stack by name": lambda t: _stack(t, named=True),
    "concat": _concat,
    "chain": _chain,
}

COLLATED = {
    "ints": [1, 2, 3],
    "floats": [1.5, 2.0],
    "bools": [True, False],
    "strings": ["a", "b"],
    "bytes": [b"a", b"b"],
    "arrays": [np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)],
    "array of ints": [np.arange(3), np.arange(3)],
    "numpy scalars": [np.float32(1), np.float32(2)],
    "numpy bools": [np.bool_(True), np.bool_(False)],
    "numpy int8": [np.int8(1), np.int8(-2)],
    "dicts": [{"a": 1, "b": [1.0, 2.0]}, {"a": 3, "b": [4.0, 5.0]}],
    "ordered": [OrderedDict(a=1), OrderedDict(a=2)],
    "named tuples": [Point(1, 2.0), Point(3, 4.0)],
    "tuples": [(1, "a"), (2, "b")],
    "lists": [[1, 2], [3, 4]],
    "nested": [({"a": (1, [2])},), ({"a": (3, [4])},)],
}


def describe_case(torch: ModuleType, name: str) -> Any:
    """What a use of the library gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CASES[name](torch)


def describe_collated(torch: ModuleType, name: str) -> Any:
    """A batch, and the first sample converted alone."""
    data = torch.utils.data
    batch = COLLATED[name]
    return [plain(data.default_collate(batch)), plain(data.default_convert(batch[0]))]


def _data(torch: ModuleType, name: str, *args: Any, **options: Any) -> Any:
    return getattr(torch.utils.data, name)(*args, **options)


def _set_after(torch: ModuleType) -> None:
    _loader(torch, Squares(3)).batch_size = 2


def _subset_without_batches(torch: ModuleType) -> None:
    class Half(torch.utils.data.Subset):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index)

    Half(Squares(3), [1])


ERRORS = {
    "workers negative": lambda t: _loader(t, Squares(3), num_workers=-1),
    "timeout negative": lambda t: _loader(t, Squares(3), timeout=-1),
    "prefetch without workers": lambda t: _loader(t, Squares(3), prefetch_factor=2),
    "prefetch negative": lambda t: _loader(t, Squares(3), prefetch_factor=-2, num_workers=1),
    "persistent without workers": lambda t: _loader(t, Squares(3), persistent_workers=True),
    "iterable shuffle": lambda t: _loader(t, counting(t), shuffle=True),
    "iterable sampler": lambda t: _loader(t, counting(t), sampler=[1]),
    "iterable batch sampler": lambda t: _loader(t, counting(t), batch_sampler=[[1]]),
    "sampler and shuffle": lambda t: _loader(t, Squares(3), sampler=[1], shuffle=True),
    "batch sampler and size": lambda t: _loader(t, Squares(3), batch_sampler=[[1]], batch_size=2),
    "drop without batches": lambda t: _loader(t, Squares(3), batch_size=None, drop_last=True),
    "batch size zero": lambda t: _loader(t, Squares(3), batch_size=0),
    "drop last type": lambda t: _loader(t, Squares(3), drop_last=1),
    "empty shuffle": lambda t: _loader(t, [], shuffle=True),
    "context without workers": lambda t: _loader(t, Squares(3), multiprocessing_context="fork"),
    "context name": lambda t: _loader(
        t, Squares(3), multiprocessing_context="thread", num_workers=1
    ),
    "context type": lambda t: _loader(t, Squares(3), multiprocessing_context=3, num_workers=1),
    "set after": _set_after,
    "single timeout": lambda t: iter(_loader(t, Squares(3), timeout=1)),
    "random replacement": lambda t: _data(t, "RandomSampler", [1], replacement=3),
    "random count": lambda t: _data(t, "RandomSampler", [1], num_samples=-1),
    "weighted count": lambda t: _data(t, "WeightedRandomSampler", [1.0], 0),
    "weighted replacement": lambda t: _data(t, "WeightedRandomSampler", [1.0], 1, replacement=3),
    "weighted shape": lambda t: _data(t, "WeightedRandomSampler", [[1.0, 2.0]], 1),
    "tensor sizes": lambda t: _data(t, "TensorDataset", t.zeros(2), t.zeros(3)),
    "stack none": lambda t: _data(t, "StackDataset"),
    "stack both": lambda t: _data(t, "StackDataset", Squares(2), a=Squares(2)),
    "stack sizes": lambda t: _data(t, "StackDataset", Squares(2), Squares(3)),
    "concat none": lambda t: _data(t, "ConcatDataset", []),
    "concat iterable": lambda t: _data(t, "ConcatDataset", [counting(t)]),
    "concat index": lambda t: _data(t, "ConcatDataset", [Squares(2)])[-3],
    "chain map": lambda t: list(_data(t, "ChainDataset", [Squares(2)])),
    "subset override": _subset_without_batches,
    "split sum": lambda t: _data(t, "random_split", range(4), [1, 2]),
    "split fraction": lambda t: _data(t, "random_split", range(4), [1.5, -0.5]),
    "dataset": lambda t: _data(t, "Dataset")[0],
    "distributed rank": lambda t: _data(t, "DistributedSampler", range(4), 2, 2),
    "collate object": lambda t: _data(t, "default_collate", [object()]),
    "collate none": lambda t: _data(t, "default_collate", [None]),
    "collate sizes": lambda t: _data(t, "default_collate", [[1, 2], [1]]),
    "collate string arrays": lambda t: _data(t, "default_collate", [np.array(["a"])]),
}


def describe_error(torch: ModuleType, name: str) -> list[str]:
    """Type and text of the exception that a bad call raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ERRORS[name](torch)
        except Exception as error:
            return [type(error).__name__, str(error)]
    return ["no error", ""]
