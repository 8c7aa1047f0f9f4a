"""Turning a list of samples into a batch."""

import copy
import re
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from flambeau.core.dtype import float64
from flambeau.interchange import from_numpy, tensor_from_data
from flambeau.ops.joining import stack
from flambeau.tensor import Tensor

__all__ = ["collate", "default_collate", "default_collate_fn_map", "default_convert"]

default_collate_err_msg_format = (
    "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"
)
# Arrays of strings and of Python objects, by the letter of their dtype.
np_str_obj_array_pattern = re.compile(r"[SaUO]")

CollateFunction = Callable[..., Any]


def default_convert(data: Any) -> Any:
    """``data`` with every numpy array in it, however deep, as a tensor sharing its memory."""
    kind = type(data)
    if isinstance(data, Tensor):
        return data
    if isinstance(data, (np.ndarray, np.generic)) and kind.__module__ == "numpy":
        return _convert_numpy(data)
    if isinstance(data, Mapping):
        return _rebuild_mapping(data, {key: default_convert(data[key]) for key in data})
    if isinstance(data, tuple):
        converted = [default_convert(item) for item in data]
        return kind(*converted) if hasattr(data, "_fields") else converted
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _rebuild_sequence(data, [default_convert(item) for item in data])
    return data


def as_tensor(data: np.ndarray | np.generic) -> Tensor:
    """A tensor that shares an array's memory, or holds a numpy number."""
    return from_numpy(data) if isinstance(data, np.ndarray) else tensor_from_data(data)


def _convert_numpy(data: np.ndarray | np.generic) -> Any:
    if isinstance(data, np.ndarray):
        unfit = np_str_obj_array_pattern.search(data.dtype.str)
    else:
        unfit = isinstance(data, np.str_)
    return data if unfit else as_tensor(data)


def collate(
    batch: Sequence[Any], *, collate_fn_map: dict[Any, CollateFunction] | None = None
) -> Any:
    """The samples of ``batch``, joined along a new first dimension, in the samples' own structure.

    ``collate_fn_map`` names, by type, functions ``f(batch, *, collate_fn_map)`` for the leaves.
    """
    first = batch[0]
    if collate_fn_map is not None:
        leaf = _find_function(first, collate_fn_map)
        if leaf is not None:
            return leaf(batch, collate_fn_map=collate_fn_map)
    if isinstance(first, Mapping):
        joined = {
            key: collate([sample[key] for sample in batch], collate_fn_map=collate_fn_map)
            for key in first
        }
        return _rebuild_mapping(first, joined)
    if isinstance(first, Sequence):
        return _collate_sequences(batch, collate_fn_map)
    raise TypeError(default_collate_err_msg_format.format(type(first)))


def _find_function(
    value: Any, collate_fn_map: dict[Any, CollateFunction]
) -> CollateFunction | None:
    exact = collate_fn_map.get(type(value))
    if exact is not None:
        return exact
    for kind, function in collate_fn_map.items():
        if isinstance(value, kind):
            return function
    return None


def _collate_sequences(
    batch: Sequence[Any], collate_fn_map: dict[Any, CollateFunction] | None
) -> Any:
    first = batch[0]
    named = isinstance(first, tuple) and hasattr(first, "_fields")
    if not named and any(len(sample) != len(first) for sample in batch):
        raise RuntimeError("each element in list of batch should be of equal size")
    columns = zip(*batch, strict=False)
    joined = [collate(column, collate_fn_map=collate_fn_map) for column in columns]
    if named:
        return type(first)(*joined)
    if isinstance(first, tuple):
        return joined
    return _rebuild_sequence(first, joined)


def _rebuild_mapping(original: Mapping, items: dict[Any, Any]) -> Any:
    """``items`` as a mapping of the type of ``original``, or a dictionary if it refuses."""
    try:
        if isinstance(original, MutableMapping):
            # A copy keeps what else the object carries.
            rebuilt = copy.copy(original)
            rebuilt.update(items)
            return rebuilt
        return type(original)(items)
    except TypeError:
        return items


def _rebuild_sequence(original: Sequence, items: list[Any]) -> Any:
    """``items`` as a sequence of the type of ``original``, or a list if it refuses."""
    try:
        if isinstance(original, MutableSequence):
            rebuilt = copy.copy(original)
            for index, item in enumerate(items):
                rebuilt[index] = item
            return rebuilt
        return type(original)(items)
    except TypeError:
        return items


def collate_tensor_fn(batch: Sequence[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    """Tensors of one shape, stacked."""
    return stack(list(batch), 0)


def collate_numpy_array_fn(batch: Sequence[np.ndarray], *, collate_fn_map: Any = None) -> Any:
    """Arrays of one shape, stacked as tensors."""
    first = batch[0]
    if np_str_obj_array_pattern.search(first.dtype.str):
        raise TypeError(default_collate_err_msg_format.format(first.dtype))
    return collate([as_tensor(array) for array in batch], collate_fn_map=collate_fn_map)


def collate_numpy_scalar_fn(batch: Sequence[np.generic], *, collate_fn_map: Any = None) -> Tensor:
    """Numpy's numbers, as a tensor of their dtype."""
    return tensor_from_data(np.asarray(batch))


def collate_float_fn(batch: Sequence[float], *, collate_fn_map: Any = None) -> Tensor:
    """Python's floats, as float64."""
    return tensor_from_data(batch, float64)


def collate_int_fn(batch: Sequence[int], *, collate_fn_map: Any = None) -> Tensor:
    """Python's integers, as int64 (or bool)."""
    return tensor_from_data(batch)


def collate_str_fn(batch: Sequence[str | bytes], *, collate_fn_map: Any = None) -> Any:
    """Strings stay as they are."""
    return batch


default_collate_fn_map: dict[Any, CollateFunction] = {
    Tensor: collate_tensor_fn,
    np.ndarray: collate_numpy_array_fn,
    (np.bool_, np.number, np.object_): collate_numpy_scalar_fn,
    float: collate_float_fn,
    int: collate_int_fn,
    str: collate_str_fn,
    bytes: collate_str_fn,
}


def default_collate(batch: Sequence[Any]) -> Any:
    """Join samples into a batch: tensors, arrays and numbers are stacked, structures kept.

    >>> default_collate([(0, "a"), (1, "b")])
    [tensor([0, 1]), ('a', 'b')]
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)
