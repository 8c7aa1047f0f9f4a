"""Rows of a table summed, averaged or compared bag by bag."""

from __future__ import annotations

import math
import warnings

import numpy as np

from flambeau.core import dtype as types
from flambeau.graph import no_grad
from flambeau.interchange import tensor_from_array
from flambeau.nn.functional.layers import limit_rows
from flambeau.ops.combination import masked_fill
from flambeau.ops.creation import arange, zeros
from flambeau.ops.declare import operation_dtype
from flambeau.ops.embedding import embedding
from flambeau.ops.indexing import gather, index_add
from flambeau.ops.joining import cat
from flambeau.ops.pointwise import where
from flambeau.ops.scatter_reduce import scatter_reduce
from flambeau.tensor import Tensor


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Rows of ``weight`` by bag: ``"sum"``, ``"mean"`` or ``"max"`` of those that ``input`` names.

    A bag is a row of a 2-D ``input``, or begins at each of the ``offsets`` into a 1-D one.
    ``padding_idx`` takes no part; an empty bag gives zeros.
    """
    if weight.dtype is types.int64 and input.is_floating_point():
        warnings.warn(
            "Argument order of nn.functional.embedding_bag was changed. Usage "
            "`embedding_bag(weight, input, ...)` is deprecated, and should now be "
            "`embedding_bag(input, weight, ...)`.",
            stacklevel=2,
        )
        weight, input = input, weight
    _check_samples(input, per_sample_weights, mode)
    if weight.dim() != 2:
        raise ValueError(
            f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.dim()}"
        )
    bounds = _bounds(input, offsets, include_last_offset)
    _check_mode(mode, scale_grad_by_freq, sparse)
    padding = _padding(padding_idx, weight.shape[0])
    indices = input.reshape(-1)
    _check_indices(indices, weight, per_sample_weights)
    if max_norm is not None:
        with no_grad():
            limit_rows(weight.detach(), indices, max_norm, norm_type)
    rows = embedding(weight, indices, padding, scale_grad_by_freq, sparse)
    rows = rows.to(operation_dtype(rows.dtype))
    hidden = None if padding < 0 else (indices == padding).unsqueeze(1)
    bags = _numbers(np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)))
    rows = rows[: int(bounds[-1])]
    hidden = None if hidden is None else hidden[: int(bounds[-1])]
    if mode == "max":
        return _greatest(rows, hidden, bags, len(bounds) - 1).to(weight.dtype)
    if per_sample_weights is not None:
        factors = per_sample_weights.reshape(-1, 1)[: int(bounds[-1])]
        rows = rows * factors.to(rows.dtype)
    if hidden is not None:
        rows = masked_fill(rows, hidden, 0.0)
    sums = index_add(_empty(rows, len(bounds) - 1), 0, bags, rows)
    if mode == "mean":
        sums = sums / _counts(bounds, hidden, bags, rows)
    return sums.to(weight.dtype)


def _numbers(array: np.ndarray) -> Tensor:
    return tensor_from_array(array.astype(np.int64), types.int64)


def _empty(rows: Tensor, bags: int) -> Tensor:
    return zeros((bags, rows.shape[1]), dtype=rows.dtype)


def _counts(bounds: np.ndarray, hidden: Tensor | None, bags: Tensor, rows: Tensor) -> Tensor:
    """How many rows take part in each bag, at least 1, as a column."""
    if hidden is None:
        return _numbers(np.maximum(np.diff(bounds), 1)).to(rows.dtype).unsqueeze(1)
    seen = (~hidden).to(rows.dtype)
    return index_add(_empty(seen, len(bounds) - 1), 0, bags, seen).clamp(min=1)


def _greatest(rows: Tensor, hidden: Tensor | None, bags: Tensor, count: int) -> Tensor:
    """The greatest of each bag and column; the gradient goes to the first of equals."""
    number, width = rows.shape
    with no_grad():
        values = rows if hidden is None else masked_fill(rows, hidden, -math.inf)
        places = bags.unsqueeze(1).expand(number, width)
        lowest = zeros((count, width), dtype=rows.dtype) - math.inf
        greatest = scatter_reduce(lowest, 0, places, values, "amax")
        numbers = arange(number).unsqueeze(1)
        reached = gather(greatest, 0, places) == values
        if hidden is not None:
            reached = reached & ~hidden
        candidates = where(reached, numbers, number)
        nowhere = zeros((count, width), dtype=types.int64) + number
        first = scatter_reduce(nowhere, 0, places, candidates, "amin")
    return gather(cat([rows, _empty(rows, 1)]), 0, first)


def _bounds(input: Tensor, offsets: Tensor | None, include_last: bool) -> np.ndarray:
    """Where bags begin, and where the last one ends."""
    if input.dim() == 2:
        if offsets is not None:
            kind = "torch.Tensor" if isinstance(offsets, Tensor) else type(offsets).__name__
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch "
                f"of fixed length sequences. However, found offsets of type <class '{kind}'>"
            )
        bags, length = input.shape
        return np.arange(bags + 1) * length
    if input.dim() != 1:
        raise ValueError(
            f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.dim()}"
        )
    if not isinstance(offsets, Tensor):
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if offsets.dim() != 1:
        raise ValueError("offsets has to be a 1D Tensor")
    _check_type(offsets)
    return _read_bounds(offsets, input.numel(), include_last)


def _read_bounds(offsets: Tensor, length: int, include_last: bool) -> np.ndarray:
    starts = offsets.numpy().astype(np.int64)
    if include_last and not len(starts):
        raise RuntimeError("include_last_offset: number of offset should be at least 1")
    if not len(starts):
        return np.zeros(1, np.int64)
    if starts[0] != 0:
        raise RuntimeError(
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from "
            f"position 0. However, got {starts[0]}"
        )
    if starts[-1] > length:
        raise RuntimeError(
            f"offsets[-1] can not be greater than input's length {length} but got offsets[-1] of "
            f"{starts[-1]}"
        )
    if (np.diff(starts) < 0).any():
        raise RuntimeError(
            "Expected i < index_size to be true, but got false.  (Could this error message be "
            "improved?  If so, please report an enhancement request to PyTorch.)"
        )
    return starts if include_last else np.append(starts, length)


def _check_samples(input: Tensor, weights: Tensor | None, mode: str) -> None:
    if weights is None:
        return
    if input.shape != weights.shape:
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({weights.shape}) is not None, then it must "
            f"have the same shape as the input ({input.shape})"
        )
    if mode in ("mean", "max"):
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported "
            f"for mode='sum' (got mode='{mode}'). Please open a feature request on GitHub."
        )


def _check_mode(mode: str, scale_grad_by_freq: bool, sparse: bool) -> None:
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError("max mode does not support sparse weights")


def _padding(padding_idx: int | None, rows: int) -> int:
    """The row that takes no part, or -1."""
    if padding_idx is None:
        return -1
    if not -rows <= padding_idx < rows:
        raise RuntimeError(
            f"padding_idx must be within the number of embeddings, {-rows} through {rows - 1}, but "
            f"got {padding_idx}"
        )
    return padding_idx % rows


def _check_type(indices: Tensor) -> None:
    if indices.dtype not in (types.int64, types.int32):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: "
            f"Long, Int; but got torch.{indices.dtype.title}Tensor instead (while checking "
            "arguments for embedding_bag)"
        )


def _check_indices(indices: Tensor, weight: Tensor, factors: Tensor | None) -> None:
    _check_type(indices)
    if factors is not None and factors.dtype is not weight.dtype:
        raise RuntimeError(
            "Expected tensor for argument #1 'weight' to have the same type as tensor for argument "
            f"#1 'per_sample_weights'; but type torch.{weight.dtype.title}Tensor does not equal "
            f"torch.{factors.dtype.title}Tensor (while checking arguments for embedding_bag)"
        )
    numbers = indices.numpy()
    wrong = np.flatnonzero((numbers < 0) | (numbers >= weight.shape[0]))
    if len(wrong):
        raise RuntimeError(
            f"Index {wrong[0]} of input takes value {numbers[wrong[0]]} which is not in the valid "
            f"range [0, {weight.shape[0]})"
        )
