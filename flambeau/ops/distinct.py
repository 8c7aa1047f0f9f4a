"""Distinct values, places among sorted values, counts and quantiles."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from flambeau.compiler import kernel as k
from flambeau.core import dtype as types
from flambeau.core.dtype import promote_types
from flambeau.core.layout import Layout
from flambeau.interchange import item
from flambeau.ops.conversion import to_dtype
from flambeau.ops.creation import arange, filled
from flambeau.ops.declare import composite
from flambeau.ops.fused import FusedPointwise, dimension_position, row_positions
from flambeau.ops.joining import movedim
from flambeau.ops.pointwise import where
from flambeau.ops.reduction import any as any_
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.scan import cumsum
from flambeau.ops.scatter import bounds, scatter_along, scatter_rows
from flambeau.ops.selection import pick
from flambeau.ops.sorting import argsort, sort
from flambeau.ops.view import contiguous, expand, reshape, select, slice_, squeeze, unsqueeze
from flambeau.tensor import Tensor, wrap_dim

# -- distinct values -----------------------------------------------------------------------------

_CHANGES = FusedPointwise(
    "changes",
    lambda x, source, position, stride: k.where(
        position == 0, False, x != source(k.where(position == 0, 0, position - 1) * stride)
    ),
    results=lambda layouts, static: (types.bool_,),
    indexed=(1,),
    positions=lambda layouts, static: (dimension_position(layouts[0], layouts[0].shape, 0),),
)


def _runs(changes: Tensor) -> tuple[Tensor, int]:
    """The number of each element's run, given where a new one starts, and how many there are."""
    if not changes.numel():
        return filled(Layout.of((0,), types.int64), 0), 0
    numbers = cumsum(changes, 0)
    return numbers, int(item(select(numbers, 0, -1))) + 1


def _changes_of(ordered: Tensor) -> Tensor:
    """Where an element of a vector, or a row of a matrix, differs from the one before."""
    if ordered.ndim == 1:
        return _CHANGES((ordered, ordered), (ordered._layout.strides[0],))[0]
    before = contiguous(ordered.roll(1, 0))
    differs = any_(ordered != before, 1)
    return differs & (arange(ordered.shape[0]) != 0)


def _written(values: Tensor, places: Tensor, count: int, mode: str = "set") -> Tensor:
    """A new tensor of ``count`` elements or rows, with ``values`` written at ``places``."""
    length = values.numel() // max(values.shape[0], 1)
    shape = (count, *values.shape[1:])
    result = filled(Layout.of(shape, values.dtype), 0)
    if values.ndim == 1:
        scatter_along(result, 0, places, values, mode)
    else:
        scatter_rows(result, values, contiguous(places * length), mode, length)
    return result


def _grouped(ordered: Tensor, order: Tensor | None, want_inverse: bool, want_counts: bool):
    """Distinct rows of equal neighbours; for each element its group; the sizes of groups."""
    groups, count = _runs(_changes_of(ordered))
    distinct = _written(ordered, groups, count)
    inverse = counts = None
    if want_inverse:
        inverse = groups if order is None else _written(groups, order, groups.shape[0])
    if want_counts:
        ones = filled(groups._layout.contiguous(), 1)
        counts = _written(ones, groups, count, "sum")
    return distinct, inverse, counts


def _order_of_rows(rows: Tensor) -> Tensor:
    """The order of a matrix's rows by their first column, then the second and so on."""
    order = arange(rows.shape[0])
    for column in range(rows.shape[1] - 1, -1, -1):
        keys = pick(select(rows, 1, column), order, 0)
        order = pick(order, argsort(keys, stable=True), 0)
    return order


def _as_rows(self: Tensor, dim: int) -> tuple[Tensor, tuple[int, ...]]:
    moved = contiguous(movedim(self, dim, 0))
    length = moved.numel() // max(moved.shape[0], 1)
    return reshape(moved, (moved.shape[0], length)), moved.shape[1:]


def _results(distinct, inverse, counts) -> Any:
    found = tuple(t for t in (distinct, inverse, counts) if t is not None)
    return found if len(found) > 1 else distinct


@composite(
    "unique(Tensor self, bool sorted=True, bool return_inverse=False, bool return_counts=False, "
    "int? dim=None) -> Tensor",
    differentiable=False,
)
def unique(self, sorted, return_inverse, return_counts, dim):
    """Returns the distinct elements in order, or the distinct slices along ``dim``.

    With ``return_inverse`` also which of them each element is, with ``return_counts`` how often
    each occurs.
    """
    if dim is not None:
        return _unique_slices(self, wrap_dim(dim, self.ndim), return_inverse, return_counts)
    ordered, order = sort(reshape(self, (self.numel(),)))
    distinct, inverse, counts = _grouped(ordered, order, return_inverse, return_counts)
    inverse = None if inverse is None else reshape(inverse, self.shape)
    return _results(distinct, inverse, counts)


def _unique_slices(self: Tensor, dim: int, return_inverse: bool, return_counts: bool) -> Any:
    rows, rest = _as_rows(self, dim)
    order = _order_of_rows(rows)
    ordered = pick(rows, expand(unsqueeze(order, 1), rows.shape), 0)
    distinct, inverse, counts = _grouped(ordered, order, return_inverse, return_counts)
    distinct = movedim(reshape(distinct, (distinct.shape[0], *rest)), 0, dim)
    return _results(distinct, inverse, counts)


@composite(
    "unique_consecutive(Tensor self, bool return_inverse=False, bool return_counts=False, "
    "int? dim=None) -> Tensor",
    differentiable=False,
)
def unique_consecutive(self, return_inverse, return_counts, dim):
    """Returns the elements without repetitions of the one before, as :func:`unique` does."""
    if dim is not None:
        dim = wrap_dim(dim, self.ndim)
        rows, rest = _as_rows(self, dim)
        distinct, inverse, counts = _grouped(rows, None, return_inverse, return_counts)
        distinct = movedim(reshape(distinct, (distinct.shape[0], *rest)), 0, dim)
        return _results(distinct, inverse, counts)
    flat = contiguous(reshape(self, (self.numel(),)))
    distinct, inverse, counts = _grouped(flat, None, return_inverse, return_counts)
    inverse = None if inverse is None else reshape(inverse, self.shape)
    return _results(distinct, inverse, counts)


@composite(
    "bincount(Tensor self, Tensor? weights=None, int minlength=0) -> Tensor", differentiable=False
)
def bincount(self, weights, minlength):
    """Returns how often each number from 0 occurs, or the sums of ``weights`` for each."""
    if self.ndim != 1 or self.dtype.category != "integer":
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    if not self.numel():
        return filled(Layout.of((minlength,), types.int64), 0)
    least, greatest = bounds(self) or (0, -1)
    if least < 0:
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    count = max(greatest + 1, minlength)
    if weights is None:
        weights = expand(filled(Layout.of((), types.int64), 1), tuple(self.shape))
    elif weights.dtype is not types.float32:
        weights = to_dtype(weights, types.float64)
    return _written(weights, to_dtype(self, types.int64), count, "sum")


@composite(
    "histc(Tensor self, int bins=100, Scalar min=0, Scalar max=0) -> Tensor",
    variants="function method out",
    differentiable=False,
)
def histc(self, bins, min, max):
    """Returns how many elements fall into each of ``bins`` equal intervals from min to max.

    Between the least and the greatest element where ``min`` and ``max`` are equal; what lies
    outside is not counted.
    """
    if not self.dtype.is_floating_point:
        raise NotImplementedError(f"\"histogram_cpu\" not implemented for '{self.dtype.title}'")
    if bins <= 0:
        raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bins} for dimension 0")
    low, high = float(min), float(max)
    if low == high and self.numel():
        low, high = float(item(self.amin())), float(item(self.amax()))
    if low == high:
        low, high = low - 1, high + 1
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"torch.histc: range of [{low:g}, {high:g}] is not finite")
    if low > high:
        raise RuntimeError("torch.histc: max must be larger than min")
    flat = reshape(self, (self.numel(),))
    place = to_dtype((flat - low) * bins / (high - low), types.int64).clamp(max=bins - 1)
    place = where((flat >= low) & (flat <= high), place, bins)
    ones = expand(filled(Layout.of((), self.dtype), 1), tuple(flat.shape))
    return slice_(_written(ones, place, bins + 1, "sum"), 0, 0, bins, 1).clone()


# -- places among sorted values ------------------------------------------------------------------


@cache
def _search(steps: int, right: bool, int32: bool) -> FusedPointwise:
    """A binary search of ``steps`` halvings, written out."""

    def body(value, sequence, offset, length, stride):
        place = length - length
        for step in range(steps - 1, -1, -1):
            ahead = place + (1 << step)
            inside = ahead <= length
            index = k.where(inside, ahead - 1, 0)
            found = sequence(offset + index * stride)
            before = (found > value) if right else (found >= value)
            place = k.where(inside & ~before, ahead, place)
        return place

    return FusedPointwise(
        "searchsorted",
        body,
        results=lambda layouts, static: (types.int32 if int32 else types.int64,),
        indexed=(1,),
        positions=lambda layouts, static: static,
    )


@composite(
    "searchsorted(Tensor sorted_sequence, Operand self, *, bool out_int32=False, "
    "bool right=False, str? side=None, Tensor? sorter=None) -> Tensor",
    variants="function out",
    differentiable=False,
)
def searchsorted(sorted_sequence, self, out_int32, right, side, sorter):
    """Returns where each value of ``self`` would go in the sorted last dimension of the first.

    Before equal elements, or after them where ``right`` (or ``side="right"``).
    """
    if side is not None and side not in ("left", "right"):
        raise RuntimeError(
            f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}"
        )
    if side == "left" and right:
        raise RuntimeError(
            "torch.searchsorted(): side and right can't be set to opposites, got side of left "
            "while right was True"
        )
    if not isinstance(self, Tensor):
        kind = types.int64 if isinstance(self, int) else sorted_sequence.dtype
        self = filled(Layout.of((), kind), self)
    if sorter is not None:
        sorted_sequence = pick(sorted_sequence, sorter, sorted_sequence.ndim - 1)
    _check_search(sorted_sequence, self)
    common = promote_types(sorted_sequence.dtype, self.dtype)
    return _searched(
        contiguous(to_dtype(sorted_sequence, common)), to_dtype(self, common), out_int32,
        right or side == "right",
    )  # fmt: skip


def _check_search(sequence: Tensor, values: Tensor) -> None:
    if sequence.ndim == 0:
        raise RuntimeError(
            "torch.searchsorted(): input value can be a scalar only when boundaries tensor "
            "dimension is 1, but we got boundaries tensor dim(0) and input value's dim("
            f"{values.ndim}) numel({values.numel()})"
        )
    if sequence.ndim > 1 and sequence.shape[:-1] != values.shape[:-1]:
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 "
            "dimensions of boundaries tensor and input value tensor must match, but we got "
            f"boundaries tensor {list(sequence.shape)} and input value tensor {list(values.shape)}"
        )


def _searched(sequence: Tensor, values: Tensor, int32: bool, right: bool) -> Tensor:
    length = sequence.shape[-1]
    if sequence.ndim == 1:
        walk = Layout.of(values.shape, types.int64, values.device, (0,) * values.ndim)
    else:
        walk = row_positions(sequence._layout, values.shape, values.ndim - 1)
    search = _search(length.bit_length(), right, int32)
    return search((values, sequence), (length, 1), (walk,))[0]


@composite(
    "bucketize(Operand self, Tensor boundaries, *, bool out_int32=False, bool right=False) "
    "-> Tensor",
    variants="function out",
    differentiable=False,
)
def bucketize(self, boundaries, out_int32, right):
    """Returns which of the intervals between ``boundaries`` each value lies in."""
    if boundaries.ndim != 1:
        raise RuntimeError(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return searchsorted(boundaries, self, out_int32=out_int32, right=right)


# -- quantiles -----------------------------------------------------------------------------------

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _checked_quantile(self: Tensor, q: Any, interpolation: str, name: str) -> Tensor:
    """``q`` as a tensor; PyTorch's errors."""
    if not self.numel():
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    if isinstance(q, Tensor) and q.ndim > 1:
        raise RuntimeError(f"{name}() q must be a scalar or 1D tensor")
    if self.dtype not in (types.float32, types.float64):
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype")
    if interpolation not in _INTERPOLATIONS:
        raise RuntimeError(
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, "
            f"but got {interpolation}"
        )
    if not isinstance(q, Tensor):
        if not 0 <= q <= 1:
            raise RuntimeError(f"{name}() q must be in the range [0, 1] but got {q:g}")
        return filled(Layout.of((), self.dtype), float(q))
    if q.dtype is not self.dtype:
        raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor")
    if not item(((q >= 0) & (q <= 1)).all()):
        raise RuntimeError(f"{name}() q values must be in the range [0, 1]")
    return q


def _quantile(self, q, dim, keepdim, interpolation, name, skip_nan):
    q = _checked_quantile(self, q, interpolation, name)
    if dim is None:
        rows = reshape(self, (self.numel(),))
    else:
        dim = wrap_dim(dim, self.ndim)
        rows = movedim(self, dim, -1) if self.ndim else reshape(self, (1,))
    lead, length = rows.shape[:-1], rows.shape[-1]
    ordered = sort(rows, -1)[0]
    valid = sum_(ordered == ordered, (ordered.ndim - 1,), True)
    fractions = expand(reshape(q, (max(q.numel(), 1),)), (*lead, q.numel()))
    ranks = fractions * (where(valid == 0, valid + 1, valid) - 1)
    if not skip_nan:
        # Where a row has NaN, its last element is one.
        ranks = where(valid < length, ranks * 0 + (length - 1), fractions * (length - 1))
    result = _interpolated(ordered, ranks, interpolation)
    result = movedim(result, -1, 0) if q.ndim else squeeze(result, (result.ndim - 1,))
    if keepdim and self.ndim:
        if dim is None:
            return reshape(result, (*q.shape, *(1 for _ in self.shape)))
        return unsqueeze(result, dim + q.ndim)
    return result


def _interpolated(ordered: Tensor, ranks: Tensor, interpolation: str) -> Tensor:
    dim = ordered.ndim - 1
    if interpolation == "higher":
        ranks = ranks.ceil()
    elif interpolation == "nearest":
        ranks = ranks.round()
    below = to_dtype(ranks, types.int64)
    result = pick(ordered, below, dim)
    if interpolation not in ("linear", "midpoint"):
        return result
    weights = ranks - below if interpolation == "linear" else ranks * 0 + 0.5
    above = pick(ordered, to_dtype(ranks.ceil(), types.int64), dim)
    return result.lerp(above, to_dtype(weights, result.dtype))


_QUANTILE = "(Tensor self, any q, int? dim=None, bool keepdim=False, *, str interpolation='linear')"


@composite(f"quantile{_QUANTILE} -> Tensor", variants="function method out")
def quantile(self, q, dim, keepdim, interpolation):
    """Returns the ``q``-quantiles along ``dim``, between elements by ``interpolation``."""
    return _quantile(self, q, dim, keepdim, interpolation, "quantile", False)


@composite(f"nanquantile{_QUANTILE} -> Tensor", variants="function method out")
def nanquantile(self, q, dim, keepdim, interpolation):
    """Returns the :func:`quantile` of what is not NaN."""
    return _quantile(self, q, dim, keepdim, interpolation, "nanquantile", True)


# -- samples -------------------------------------------------------------------------------------


@unique.samples
def unique_samples(make):
    both = {"return_inverse": True, "return_counts": True}
    yield (make(40, dtype="int64", low=0, high=9),)
    yield make(4, 10, dtype="int32", low=0, high=5), both
    yield make(values=[3, 1, 1, 3, 2.5]), both
    yield make(9, 2, dtype="int64", low=0, high=2), {"dim": 0, **both}
    yield make(2, 9, dtype="int64", low=0, high=2), {"dim": 1, **both}
    yield (make(0),)
    yield (make(values=[1, float("nan"), 0, float("nan")]),)


@unique_consecutive.samples
def unique_consecutive_samples(make):
    both = {"return_inverse": True, "return_counts": True}
    yield make(40, dtype="int64", low=0, high=2), both
    yield make(20, 2, dtype="int64", low=0, high=2), {"dim": 0, **both}


@searchsorted.samples
def searchsorted_samples(make):
    boundaries = [-1.5, -0.5, -0.5, 0, 1]
    values = [-2, -0.5, 0, 0.3, 1, 5, float("nan")]
    yield make(values=boundaries), make(values=values)
    yield make(values=boundaries), make(values=values), {"right": True}
    yield make(values=boundaries), make(values=values), {"side": "right", "out_int32": True}
    yield make(values=[boundaries, values[:5]]), make(2, 7)
    yield make(values=range(100), dtype="int64"), make(3, 7, low=-5, high=105)
    yield make(0), make(3)


@bucketize.samples
def bucketize_samples(make):
    yield make(3, 4), make(values=[-1.0, 0.0, 1.0])
    yield make(3, 4), make(values=[-1.0, 0.0, 1.0]), {"right": True}


@bincount.samples
def bincount_samples(make):
    yield (make(40, dtype="int64", low=0, high=9),)
    yield make(40, dtype="int32", low=0, high=9), None, 15


@histc.samples
def histc_samples(make):
    yield make(50), 10
    yield make(5, 8, dtype="float64"), 7, -0.5, 0.5
    yield make(values=[1, float("nan"), 2, 3]), 4, 0, 2
    yield make(values=[1, 1]), 4
    yield make(0), 3
    yield make(3), 4, 2, 1
    yield make(3), 0
    yield make(3, dtype="int64"), 4


@quantile.samples
def quantile_samples(make):
    yield make(3, 8), 0.3
    yield make(3, 8), make(values=[0.1, 0.5, 1.0]), 1
    yield make(3, 8), make(values=[0.1, 0.5]), 0, True
    for interpolation in _INTERPOLATIONS:
        yield make(3, 8), 0.37, 1, {"interpolation": interpolation}
    yield make(values=[[1, float("nan"), 2], [3, 5, 4]]), 0.5, 1


@nanquantile.samples
def nanquantile_samples(make):
    yield from quantile_samples(make)
