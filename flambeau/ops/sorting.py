"""Sorting and what rests on it: the greatest few, medians, the most frequent."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.compiler.sorting import plan_sort
from flambeau.core import dtype as types
from flambeau.core.layout import Layout, is_dense
from flambeau.engine.call import Lowered
from flambeau.ops import return_types
from flambeau.ops.creation import filled
from flambeau.ops.declare import composite, kernel_operator
from flambeau.ops.extreme import argmax, extreme_along
from flambeau.ops.fused import FusedPointwise, FusedReduction, dimension_position
from flambeau.ops.scan import cummax
from flambeau.ops.selection import pick, place, place_reduced
from flambeau.ops.view import contiguous, reshape, squeeze
from flambeau.tensor import Tensor, wrap_dim

# -- the kernel ----------------------------------------------------------------------------------


@kernel_operator(
    "_sort(Tensor self, int dim, bool descending, int first, int count) -> (Tensor, Tensor)",
    variants="",
)
def _sorted(self, dim, descending, first, count):
    """``count`` elements of the sorted rows from place ``first``, and where they were."""
    if not self.ndim:
        return self.contiguous(), self.contiguous(types.int64)
    if count == self.shape[dim]:
        return self.with_dtype(self.dtype), self.with_dtype(types.int64)
    shape = (*self.shape[:dim], count, *self.shape[dim + 1 :])
    return Layout.of(shape, self.dtype, self.device), Layout.of(shape, types.int64, self.device)


@_sorted.lower
def _sorted_lower(call, target, self, dim, descending, first, count):
    length = self.shape[dim] if self.ndim else 1
    stride = self.strides[dim] if self.ndim and length > 1 else 1
    rows = self.numel // max(length, 1)
    steps, workspace = plan_sort(self.dtype, descending, rows, length, stride, first, count)
    values, indices = call.writes
    operands = {"source": call.reads[0], "values": values, "indices": indices}
    return Lowered(steps, operands, workspace)


_sorted.differentiable = False


def _ordered(self: Tensor, dim: int, descending: bool, first: int, count: int):
    """Sorted values and where they were; the kernel wants gap-free data."""
    layout = self._layout
    whole = not layout.ndim or count == layout.shape[dim]
    if not (layout.is_contiguous or (whole and is_dense(layout))):
        self = contiguous(self)
    return _sorted.record([self, dim, descending, first, count])


def _length(tensor: Tensor, dim: int) -> int:
    return tensor.shape[dim] if tensor.ndim else 1


# -- sort ----------------------------------------------------------------------------------------


@composite("_sort_dim(Tensor self, int dim, bool descending) -> (Tensor, Tensor)", variants="")
def _sort_dim(self, dim, descending):
    return _ordered(self, dim, descending, 0, _length(self, dim))


@composite("_topk(Tensor self, int k, int dim, bool largest) -> (Tensor, Tensor)", variants="")
def _topk(self, k, dim, largest):
    return _ordered(self, dim, largest, 0, k)


def _placed(grad0, self_layout, result1, dim):
    return {"self": place(grad0, result1, dim, self_layout.shape[dim] if self_layout.ndim else 1)}


_sort_dim.derivative(_placed)
_sort_dim.node_name = "SortBackward0"
_topk.derivative(_placed)


@composite(
    "sort(Tensor self, int dim=-1, bool descending=False, *, any stable=None) -> (Tensor, Tensor)",
    variants="function method out",
)
def sort(self, dim, descending, stable):
    """Returns the elements in order along ``dim``, and where they were; equal ones keep theirs."""
    dim = wrap_dim(dim, self.ndim)
    return return_types.sort(_sort_dim.record([self, dim, descending]))


@composite(
    "argsort(Tensor self, int dim=-1, bool descending=False, *, any stable=None) -> Tensor",
    variants="function method",
)
def argsort(self, dim, descending, stable):
    """Returns the places of the elements in order along ``dim``."""
    return _ordered(self, wrap_dim(dim, self.ndim), descending, 0, _length(self, dim))[1]


@composite("msort(Tensor self) -> Tensor", variants="function method out")
def msort(self):
    """Returns the elements in order along the first dimension."""
    return _sort_dim.record([self, 0, False])[0]


@composite(
    "topk(Tensor self, int k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor, Tensor)",
    variants="function method out",
)
def topk(self, k, dim, largest, sorted):
    """Returns the ``k`` greatest elements along ``dim`` (least where not ``largest``) and where."""
    dim = wrap_dim(dim, self.ndim)
    if not 0 <= k <= _length(self, dim):
        raise RuntimeError("selected index k out of range")
    return return_types.topk(_topk.record([self, k, dim, largest]))


# -- one element of the order --------------------------------------------------------------------


def _without(tensor: Tensor, dim: int, keepdim: bool) -> Tensor:
    return tensor if keepdim or not tensor.ndim else squeeze(tensor, (dim,))


@composite("_kthvalue(Tensor self, int k, int dim, bool keepdim) -> (Tensor, Tensor)", variants="")
def _kthvalue(self, k, dim, keepdim):
    values, indices = _ordered(self, dim, False, k - 1, 1)
    return _without(values, dim, keepdim), _without(indices, dim, keepdim)


_COUNT_NUMBERS = FusedReduction(
    "numbers", "sum", lambda x: k.where(k.isnan(x), x.like(0.0), 1.0).cast(types.int64),
    results=lambda layouts, static: (types.int64,),
)  # fmt: skip
_MIDDLE = FusedPointwise(
    "middle",
    lambda count: k.where(count == 0, 0, (count - 1) / 2),
    results=lambda layouts, static: (types.int64,),
)
_NAN_FIRST = FusedPointwise(
    "median",
    lambda value, top, index, place: (
        k.where(k.isnan(top), top, value),
        k.where(k.isnan(top), place, index),
    ),
    results=lambda layouts, static: (layouts[0].dtype, types.int64),
)


@composite(
    "_median(Tensor self, int dim, bool keepdim, bool skip_nan) -> (Tensor, Tensor)", variants=""
)
def _median(self, dim, keepdim, skip_nan):
    length = _length(self, dim)
    if not (skip_nan and self.dtype.is_floating_point):
        values, indices = _ordered(self, dim, False, (length - 1) // 2, 1)
        if self.dtype.is_floating_point:
            # The first NaN, where there is one, is the greatest element.
            top, place = extreme_along.record([self, dim, True])
            values, indices = _NAN_FIRST((values, top, indices, place))
    else:
        ordered, places = _ordered(self, dim, False, 0, length)
        (count,) = _COUNT_NUMBERS((self,), (dim,) if self.ndim else (), True)
        (position,) = _MIDDLE((count,))
        values, indices = pick(ordered, position, dim), pick(places, position, dim)
    return _without(values, dim, keepdim), _without(indices, dim, keepdim)


@composite("_mode(Tensor self, int dim, bool keepdim) -> (Tensor, Tensor)", variants="")
def _mode(self, dim, keepdim):
    length = _length(self, dim)
    if not self.ndim:
        return self.clone(), filled(self._layout.contiguous(types.int64), 0)
    ordered, places = _ordered(self, dim, False, 0, length)
    # A run's length so far, at each place; the first longest run ends where that is greatest.
    before = ordered.roll(1, dim)
    (start,) = _RUN_START((ordered, before), (), (dim,))
    starts = cummax(start, dim)[0]
    position = argmax(_MINUS((starts,), (), (dim,))[0], dim, True)
    values, indices = pick(ordered, position, dim), pick(places, position, dim)
    return _without(values, dim, keepdim), _without(indices, dim, keepdim)


_RUN_START = FusedPointwise(
    "run_start",
    lambda x, before, position: k.where(x != before, position, 0),
    results=lambda layouts, static: (types.int64,),
    positions=lambda layouts, static: (dimension_position(layouts[0], layouts[0].shape, *static),),
)
_MINUS = FusedPointwise(
    "run_length",
    lambda start, position: position - start,
    positions=lambda layouts, static: (dimension_position(layouts[0], layouts[0].shape, *static),),
)


def _place_selected(grad0, self_layout, result1, dim, keepdim):
    return {"self": place_reduced(grad0, result1, self_layout, dim, keepdim)}


for _operator in (_kthvalue, _median, _mode):
    _operator.derivative(_place_selected)


# By whether NaN are skipped, and whether there is a dimension: nodes have other names.
_MEDIANS = {
    (False, False): _median.with_node_name("MedianBackward0"),
    (False, True): _median.with_node_name("MedianBackward1"),
    (True, False): _median.with_node_name("NanmedianBackward0"),
    (True, True): _median.with_node_name("NanmedianBackward1"),
}


def _check_not_empty(name: str, self: Tensor, dim: int) -> None:
    if self.ndim and self.shape[dim] == 0:
        raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.")


@composite(
    "kthvalue(Tensor self, int k, int dim=-1, bool keepdim=False) -> (Tensor, Tensor)",
    variants="function method out",
)
def kthvalue(self, k, dim, keepdim):
    """Returns the ``k``-th smallest element along ``dim`` and where it is."""
    dim = wrap_dim(dim, self.ndim)
    _check_not_empty("kthvalue", self, dim)
    if not 1 <= k <= _length(self, dim):
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {dim}")
    return return_types.kthvalue(_kthvalue.record([self, k, dim, keepdim]))


def _median_of(self: Tensor, dim: int | None, keepdim: bool, skip_nan: bool, name: str, named):
    if dim is None:
        if not self.numel():
            return filled(Layout.of((), self.dtype), float("nan"))
        flat = reshape(self, (self.numel(),))
        return _MEDIANS[skip_nan, False].record([flat, 0, False, skip_nan])[0]
    dim = wrap_dim(dim, self.ndim)
    _check_not_empty(name, self, dim)
    return named(_MEDIANS[skip_nan, True].record([self, dim, keepdim, skip_nan]))


@composite(
    "median(Tensor self, int? dim=None, bool keepdim=False) -> Tensor",
    variants="function method out",
)
def median(self, dim, keepdim):
    """Returns the median (the lower of two); with ``dim`` along it, and where it is."""
    return _median_of(self, dim, keepdim, False, "median", return_types.median)


@composite(
    "nanmedian(Tensor self, int? dim=None, bool keepdim=False) -> Tensor",
    variants="function method out",
)
def nanmedian(self, dim, keepdim):
    """Returns the :func:`median` of what is not NaN."""
    return _median_of(self, dim, keepdim, True, "nanmedian", return_types.nanmedian)


@composite(
    "mode(Tensor self, int dim=-1, bool keepdim=False) -> (Tensor, Tensor)",
    variants="function method out",
)
def mode(self, dim, keepdim):
    """Returns the most frequent element along ``dim`` (the least of several), and where it is."""
    dim = wrap_dim(dim, self.ndim)
    _check_not_empty("mode", self, dim)
    return return_types.mode(_mode.record([self, dim, keepdim]))


# -- samples -------------------------------------------------------------------------------------


def _distinct(make):
    """Tensors in which nothing occurs twice by chance."""
    yield (make(3, 5),)
    yield make(3, 40), 1
    yield make(3, 40), 0
    yield make(2, 70, 3), 1
    yield (make(),)
    yield make(3, 50, dtype="float64"), -1
    yield make(60, dtype="int64", low=-(10**6), high=10**6), 0
    yield make(7, dtype="float16", low=-100, high=100), 0


@sort.samples
def sort_samples(make):
    yield from _distinct(make)
    yield make(4, 33, transposed=True), 0
    yield make(50, dtype="uint8", high=9), {"dim": 0, "stable": True}
    yield make(50, dtype="bool"), {"dim": 0, "stable": True, "descending": True}
    yield make(100, dtype="int32", low=-5, high=5), {"dim": 0, "stable": True, "descending": True}
    nan = float("nan")
    yield make(values=[1, nan, -0.0, 0, float("-inf"), nan, 3]), {"dim": 0, "stable": True}
    yield make(values=[1, nan, -0.0, 0, nan, 3]), {"dim": 0, "stable": True, "descending": True}
    yield make(0, 4), 0


@argsort.samples
def argsort_samples(make):
    yield from _distinct(make)


@topk.samples
def topk_samples(make):
    yield make(3, 5), 2
    yield make(40, 3), 7, 0
    yield make(3, 40), 4, 1, False
    yield make(3, 40), 9
    yield make(3), 0


@kthvalue.samples
def kthvalue_samples(make):
    yield make(3, 5), 2
    yield make(40, 3), 7, 0, True
    yield make(3), 4


@median.samples
def median_samples(make):
    yield (make(3, 5),)
    yield make(4, 40), 1
    yield make(5, 3), 0, True
    yield make(values=[[1, float("nan"), 2], [3, 5, 4]]), 1
    yield make(9, dtype="int64", low=-99, high=99), 0


@nanmedian.samples
def nanmedian_samples(make):
    yield from median_samples(make)


@mode.samples
def mode_samples(make):
    yield make(3, 14, dtype="int64", low=0, high=5), 1
    yield make(values=[3, 1, 1, 3, 2]), 0
    yield make(14, 3, dtype="int32", low=0, high=5), 0, True
