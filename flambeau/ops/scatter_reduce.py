"""``scatter_reduce``: values combined at the places that an index names."""

from __future__ import annotations

import math

from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.ops.conversion import to_dtype
from flambeau.ops.creation import filled, ones_like, zeros_like
from flambeau.ops.declare import composite
from flambeau.ops.indexing import gather, scatter_values
from flambeau.ops.pointwise import where
from flambeau.ops.view import expand
from flambeau.tensor import Tensor

_MODES = {
    "sum": "sum", "mean": "sum", "prod": "prod", "amax": "max", "amin": "min", "max": "max",
    "min": "min",
}  # fmt: skip


def _identity(kind: types.dtype, reduce: str) -> bool | int | float:
    """What leaves the other operand as it is."""
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    sign = -1 if _MODES[reduce] == "max" else 1
    if kind.is_floating_point:
        return sign * math.inf
    if kind is types.bool_:
        return sign > 0
    limits = types.iinfo(kind)
    return limits.max if sign > 0 else limits.min


def _cleared(self: Tensor, dim: int, index: Tensor, number: bool | int | float) -> Tensor:
    """A copy with one number at the places that the index names."""
    value = filled(Layout.of((), self.dtype), number)
    return scatter_values(self, dim, index, expand(value, tuple(index.shape)), "set")


def _counts(self: Tensor, dim: int, index: Tensor, src: Tensor, include_self: bool) -> Tensor:
    """How many values meet at each place, at least 1."""
    start = ones_like(self) if include_self else _cleared(ones_like(self), dim, index, 0)
    counted = scatter_values(start, dim, index, ones_like(src), "sum")
    return where(counted == 0, ones_like(counted), counted)


@composite(
    "scatter_reduce(Tensor self, int dim, Tensor index, Tensor src, str reduce, *, "
    "bool include_self=True) -> Tensor",
    variants="function method inplace out",
)
def scatter_reduce(self, dim, index, src, reduce, include_self):
    """Returns a copy in which ``src`` is combined at ``index`` along ``dim``.

    ``reduce`` is ``"sum"``, ``"prod"``, ``"mean"``, ``"amax"`` or ``"amin"``; the values of
    ``self`` at those places take part unless ``include_self`` is false.
    """
    if reduce not in _MODES:
        raise RuntimeError(
            f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}"
        )
    if src.dtype is not self.dtype:
        raise RuntimeError("scatter(): Expected self.dtype to be equal to src.dtype")
    start = self
    if not include_self:
        start = _cleared(self, dim, index, _identity(self.dtype, reduce))
    result = scatter_values(start, dim, index, src, _MODES[reduce])
    if reduce != "mean":
        return result
    counts = _counts(self, dim, index, src, include_self)
    if self.dtype.is_floating_point:
        return result / counts
    return to_dtype(result // counts, self.dtype)


@scatter_reduce.derivative
def scatter_reduce_backward(grad, self, src, result, dim, index, reduce, include_self):
    rule = {"sum": _sum_rule, "mean": _mean_rule, "prod": _product_rule}.get(reduce, _extreme_rule)
    own, given = rule(grad, self, src, result, dim, index, include_self)
    if not include_self:
        own = _cleared(own, dim, index, 0)
    return {"self": own, "src": given}


def _sum_rule(grad, self, src, result, dim, index, include_self):
    return grad, gather(grad, dim, index)


def _mean_rule(grad, self, src, result, dim, index, include_self):
    shared = grad / _counts(self, dim, index, src, include_self)
    return shared, gather(shared, dim, index)


def _extreme_rule(grad, self, src, result, dim, index, include_self):
    """Equal extremes share the gradient."""
    mine = to_dtype(self == result, grad.dtype)
    theirs = to_dtype(src == gather(result, dim, index), grad.dtype)
    shared = grad / scatter_values(mine, dim, index, theirs, "sum")
    return mine * shared, theirs * gather(shared, dim, index)


def _product_rule(grad, self, src, result, dim, index, include_self):
    """The product of the others; a single zero among them leaves only its own gradient."""
    nonzero = where(self == 0, ones_like(self), self)
    rest = scatter_reduce(nonzero, dim, index, src, "prod", include_self=include_self)
    own = grad * rest / nonzero
    zero = src == 0
    zeros = scatter_values(zeros_like(self), dim, index, to_dtype(zero, src.dtype), "sum")
    alone = zero & (gather(zeros, dim, index) == 1)
    others = scatter_reduce(
        self, dim, index, where(alone, ones_like(src), src), "prod", include_self=include_self
    )
    divided = gather(grad * result, dim, index) / where(zero, ones_like(src), src)
    return own, where(alone, gather(grad * others, dim, index), divided)


@scatter_reduce.samples
def scatter_reduce_samples(make):
    index = {"dtype": "int64", "low": 0, "high": 4}
    for reduce in ("sum", "mean", "prod", "amax", "amin"):
        yield make(4, 5), 0, make(3, 5, **index), make(3, 5), reduce
        yield make(4, 5), 0, make(3, 5, **index), make(3, 5), reduce, {"include_self": False}
    yield make(4, dtype="int64"), 0, make(3, **index), make(3, dtype="int64"), "sum"
    yield make(4), 0, make(3, **index), make(3), "max"
    yield make(4), 0, make(3, **index), make(3), "most"
