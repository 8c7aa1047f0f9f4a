"""Running sums, products and extremes along a dimension."""

from __future__ import annotations

import math

from flambeau.compiler.scan import plan_scan
from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.engine.call import Lowered
from flambeau.ops import return_types
from flambeau.ops.conversion import to_dtype
from flambeau.ops.creation import filled
from flambeau.ops.declare import composite, kernel_operator
from flambeau.ops.pointwise import where
from flambeau.ops.scatter import scatter_along
from flambeau.ops.view import contiguous
from flambeau.tensor import Tensor, wrap_dim


def _blocks(layout: Layout, dim: int) -> tuple[int, int, int]:
    """A contiguous layout as (outer, length, inner) around ``dim``."""
    if not layout.ndim:
        return 1, 1, 1
    return math.prod(layout.shape[:dim]), layout.shape[dim], math.prod(layout.shape[dim + 1 :])


@kernel_operator("_scan(Tensor self, int dim, str kind, bool reverse) -> Tensor", variants="")
def _scan(self, dim, kind, reverse):
    return self.contiguous()


@_scan.lower
def _scan_lower(call, target, self, dim, kind, reverse):
    blocks = _blocks(call.writes[0].layout, dim)
    operands = {"source": call.reads[0], "result": call.writes[0]}
    steps, workspace = plan_scan(kind, self.dtype, *blocks, reverse)
    return Lowered(steps, operands, workspace)


@kernel_operator("_scan_extreme(Tensor self, int dim, str kind) -> (Tensor, Tensor)", variants="")
def _scan_extreme(self, dim, kind):
    return self.contiguous(), self.contiguous(types.int64)


@_scan_extreme.lower
def _scan_extreme_lower(call, target, self, dim, kind):
    source, (result, indices) = call.reads[0], call.writes
    operands = {"source": source, "result": result, "indices": indices}
    steps, workspace = plan_scan(kind, self.dtype, *_blocks(result.layout, dim))
    return Lowered(steps, operands, workspace)


def _scanned(self: Tensor, dim: int, kind: str, reverse: bool = False) -> Tensor:
    return _scan.record([contiguous(self), dim % max(self.ndim, 1), kind, reverse])


def _converted(self: Tensor, dtype) -> Tensor:
    """Integers are summed in int64; ``dtype`` overrides."""
    wanted = dtype or (self.dtype if self.dtype.is_floating_point else types.int64)
    return to_dtype(self, wanted)


@composite("_cumsum(Tensor self, int dim, bool reverse) -> Tensor", variants="")
def running_sum(self, dim, reverse):
    """The running sum, from the last element where ``reverse``."""
    return _scanned(self, dim, "sum", reverse)


running_sum.node_name = "CumsumBackward0"


@running_sum.derivative
def running_sum_backward(grad, dim, reverse):
    return {"self": running_sum(grad, dim, not reverse)}


@composite(
    "cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor",
    variants="function method inplace out",
)
def cumsum(self, dim, dtype):
    """Returns the sums of all elements up to each along ``dim``."""
    dim = wrap_dim(dim, self.ndim)
    return running_sum(_converted(self, dtype), dim, False)


@composite("_cumprod(Tensor self, int dim) -> Tensor", variants="")
def running_product(self, dim):
    return _scanned(self, dim, "prod")


running_product.node_name = "CumprodBackward0"


@running_product.derivative
def running_product_backward(grad, self, result, dim):
    """Up to a row's first zero by division; at it from the product without it; 0 after it."""
    zeros = self == 0
    count = cumsum(zeros, dim)
    first = zeros & (count == 1)
    without_zero = running_product(where(first, self * 0 + 1, self), dim)
    usual = running_sum(grad * result, dim, True) / where(zeros, self * 0 + 1, self)
    at_zero = running_sum(grad * without_zero, dim, True)
    nothing = usual * 0
    return {"self": where(count == 0, usual, where(first, at_zero, nothing))}


@composite(
    "cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor",
    variants="function method inplace out",
)
def cumprod(self, dim, dtype):
    """Returns the products of all elements up to each along ``dim``."""
    dim = wrap_dim(dim, self.ndim)
    return running_product(_converted(self, dtype), dim)


@composite("_logcumsumexp(Tensor self, int dim, bool reverse) -> Tensor", variants="")
def running_log_of_sum(self, dim, reverse):
    return _scanned(self, dim, "logsum", reverse)


running_log_of_sum.node_name = "LogcumsumexpBackward0"


@running_log_of_sum.derivative
def running_log_of_sum_backward(grad, self, result, dim, reverse):
    """Positive and negative gradients apart, by their logarithms, so that nothing overflows."""

    def of_one_sign(part):
        least = filled(Layout.of((), grad.dtype), -math.inf)
        weight = where(part > 0, part.log() - result, least)
        return (running_log_of_sum(weight, dim, not reverse) + self).exp()

    return {"self": of_one_sign(grad) - of_one_sign(-grad)}


@composite("logcumsumexp(Tensor self, int dim) -> Tensor", variants="function method out")
def logcumsumexp(self, dim):
    """Returns the logarithms of the sums of the exponentials of all elements up to each."""
    dim = wrap_dim(dim, self.ndim)
    if not self.dtype.is_floating_point:
        raise NotImplementedError(
            f"\"logcumsumexp_out_cpu\" not implemented for '{self.dtype.title}'"
        )
    return running_log_of_sum(self, dim, False)


def _added_along(values: Tensor, index: Tensor, dim: int) -> Tensor:
    """Zeros, to which ``values`` are added at ``index`` along ``dim``."""
    layout = values._layout.contiguous()
    result = filled(layout, 0)
    if not layout.ndim:
        return values
    scatter_along(result, dim, index, values, "sum")
    return result


@composite("_cummax(Tensor self, int dim) -> (Tensor, Tensor)", variants="")
def _cummax(self, dim):
    return _scan_extreme.record([contiguous(self), dim, "max"])


@composite("_cummin(Tensor self, int dim) -> (Tensor, Tensor)", variants="")
def _cummin(self, dim):
    return _scan_extreme.record([contiguous(self), dim, "min"])


@_cummax.derivative
def _cummax_backward(grad0, result1, dim):
    return {"self": _added_along(grad0, result1, dim)}


@_cummin.derivative
def _cummin_backward(grad0, result1, dim):
    return {"self": _added_along(grad0, result1, dim)}


@composite("cummax(Tensor self, int dim) -> (Tensor, Tensor)", variants="function method out")
def cummax(self, dim):
    """Returns the largest elements up to each along ``dim``, and where they are."""
    return return_types.cummax(_cummax.record([self, wrap_dim(dim, self.ndim)]))


@composite("cummin(Tensor self, int dim) -> (Tensor, Tensor)", variants="function method out")
def cummin(self, dim):
    """Returns the smallest elements up to each along ``dim``, and where they are."""
    return return_types.cummin(_cummin.record([self, wrap_dim(dim, self.ndim)]))


def scan_samples(make):
    yield make(3, 5), 1
    yield make(3, 5), 0
    yield make(2, 3, 37), -2
    yield make(), 0
    yield make(40, dtype="bfloat16", low=0.9, high=1.1), 0
    yield make(7, dtype="float64"), 0
    yield make(3, 5, dtype="int32"), 1
    yield make(4, 3, transposed=True), 1
    yield make(0, 4), 0


@cumsum.samples
def cumsum_samples(make):
    yield from scan_samples(make)
    yield make(3, 5, dtype="bool"), 1
    yield make(3, 5), 1, {"dtype": types.float64}


@cumprod.samples
def cumprod_samples(make):
    yield from scan_samples(make)
    yield make(values=[[1, 2, 0, 3, 4], [0, 1, 0, 2, 3], [1, 2, 3, 4, 5]]), 1


@logcumsumexp.samples
def logcumsumexp_samples(make):
    for arguments in scan_samples(make):
        if arguments[0].dtype != "int32":
            yield arguments
    yield make(values=[1000, 1001, -1000, float("-inf"), 1002]), 0
    yield make(values=[float("-inf"), float("-inf"), 1, float("inf"), 2]), 0
    yield make(3, dtype="int64"), 0


@cummax.samples
def cummax_samples(make):
    yield from scan_samples(make)
    yield make(values=[1, 3, 3, float("nan"), 2, float("nan"), 1]), 0


@cummin.samples
def cummin_samples(make):
    yield from cummax_samples(make)
