"""Reductions: sums, products, means, spreads, norms and truth over dimensions."""

from __future__ import annotations

import math as numbers
import warnings

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.ops.conversion import to_dtype
from flambeau.ops.declare import (
    composite,
    default_dtype,
    operation_dtype,
    reduced_dims,
    reduction,
)
from flambeau.ops.fused import FusedPointwise, FusedReduction, computed_like_first, like_first
from flambeau.ops.view import expand, unsqueeze, view
from flambeau.tensor import Tensor

# -- shapes --------------------------------------------------------------------------------------


def expand_reduced(grad: Tensor, layout: Layout, dim, keepdim: bool) -> Tensor:
    """A reduced tensor repeated along the dimensions of ``layout`` that were reduced."""
    return expand(restore_reduced(grad, layout, dim, keepdim), layout.shape)


def restore_reduced(tensor: Tensor, layout: Layout, dim, keepdim: bool) -> Tensor:
    """A reduced tensor with the dimensions that were reduced back, of size 1."""
    if not keepdim and tensor.ndim != layout.ndim:
        for d in reduced_dims(dim, layout.ndim):
            tensor = unsqueeze(tensor, d)
    return tensor


def sum_to_shape(tensor: Tensor, shape) -> Tensor:
    """The sum over the dimensions along which ``shape`` was broadcast."""
    lead = tensor.ndim - len(shape)
    dims = tuple(range(lead)) + tuple(
        lead + d for d, n in enumerate(shape) if n == 1 and tensor.shape[lead + d] != 1
    )
    if lead and len(dims) == lead:
        return sum(tensor, dims)
    if dims:
        tensor = sum(tensor, dims, True)
    if lead:
        tensor = view(tensor, tuple(shape))
    return tensor


def reduced_count(shape, dims) -> int:
    """How many elements become one."""
    return numbers.prod(shape[d] for d in dims)


def reduction_samples(make):
    """The sample table of a reduction of floating tensors over any dimensions."""
    yield (make(3, 5),)
    yield make(3, 5), 1
    yield make(2, 3, 4), 0, True
    yield (make(),)
    yield make(4, 3, transposed=True), 0
    yield (make(33, dtype="float64"),)
    yield make(4, 40, dtype="bfloat16"), 1
    yield make(4, 40, dtype="float16"), 0
    yield (make(300),)


def several_dims_samples(make):
    yield from reduction_samples(make)
    yield make(2, 3, 4), (0, 2)
    yield make(2, 3, 4, 5), (1, -1), True


# -- sums and products ---------------------------------------------------------------------------


def accumulate_in(source, asked):
    """Sums and products: integers in int64, half types in float32; ``dtype=`` overrides."""
    result = asked or (source if source.category in ("floating", "complex") else types.int64)
    return operation_dtype(result), result


@reduction(
    "sum(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
    combine="sum",
    promote=accumulate_in,
    variants="function method out",
)
def sum(self):
    """Returns the sum over ``dim`` (all dimensions by default)."""
    return self


sum.dim_node_name = "SumBackward1"


@sum.derivative
def sum_backward(grad, self_layout, dim, keepdim):
    return {"self": expand_reduced(grad, self_layout, dim, keepdim)}


@sum.samples
def sum_samples(make):
    yield from several_dims_samples(make)
    yield (make(3, 5, dtype="int32"),)
    yield make(3, 5, dtype="bool"), 1
    yield (make(0, 4),)
    yield make(0, 4), 0
    yield make(3, 5, dtype="uint8"), 1, {"dtype": types.float32}


def _without_nan(x):
    return x if x.dtype.category != "floating" else k.where(k.isnan(x), 0, x)


@reduction(
    "nansum(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) "
    "-> Tensor",
    combine="sum",
    promote=accumulate_in,
    variants="function method out",
)
def nansum(self):
    """Returns the sum over ``dim``, counting NaN as zero."""
    return _without_nan(self)


@nansum.derivative
def nansum_backward(grad, self, dim, keepdim):
    spread = expand_reduced(grad, self._layout, dim, keepdim)
    return {"self": spread * to_dtype(self == self, grad.dtype)}


@nansum.samples
def nansum_samples(make):
    yield from several_dims_samples(make)
    yield make(values=[[1, float("nan")], [2, 3]]), 1
    yield (make(3, 5, dtype="int32"),)


@reduction(
    "prod(Tensor self, int? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
    combine="prod",
    promote=accumulate_in,
    variants="function method out",
)
def prod(self):
    """Returns the product over ``dim`` (all dimensions by default)."""
    return self


prod.dim_node_name = "ProdBackward1"


@prod.derivative
def prod_backward(grad, self, dim, keepdim):
    """Each element's gradient is the product of the others: three cases by the number of zeros."""
    layout = self._layout
    is_zero = self == 0
    others = self + to_dtype(is_zero, self.dtype)  # zeros count as ones
    dims = reduced_dims(dim, layout.ndim)
    zeros = sum(is_zero, dims, True)
    product = others
    for d in dims:
        product = prod(product, d, True)
    grad = restore_reduced(grad, layout, dim, keepdim) * product
    among_none = grad * to_dtype(zeros == 0, grad.dtype) / others
    at_the_only = grad * to_dtype((zeros == 1) & is_zero, grad.dtype)
    return {"self": among_none + at_the_only}


@prod.samples
def prod_samples(make):
    yield from reduction_samples(make)
    yield make(values=[[1, 0, 2], [0, 3, 0], [4, 5, 6]]), 1
    yield (make(values=[1, 0, 2]),)
    yield (make(3, 5, dtype="int32"),)
    yield make(0, 4), 0


# -- means ---------------------------------------------------------------------------------------

_MEAN = FusedReduction("mean", "sum", lambda x, n: x, lambda total, n: total / n)


@composite(
    "mean(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
    variants="function method out",
)
def mean(self, dim, keepdim, dtype):
    """Returns the mean over ``dim`` (all dimensions by default)."""
    if (dtype or self.dtype).category not in ("floating", "complex"):
        subject = "Input" if dtype is None else "Optional"
        raise RuntimeError(
            f"mean(): could not infer output dtype. {subject} dtype must be either a floating "
            f"point or complex dtype. Got: {(dtype or self.dtype).title}"
        )
    if dtype is not None:
        self = to_dtype(self, dtype)
    dims = reduced_dims(dim, self.ndim)
    return _MEAN((self,), dims, keepdim, (float(reduced_count(self.shape, dims)),))[0]


mean.dim_node_name = "MeanBackward1"


@mean.derivative
def mean_backward(grad, self_layout, dim, keepdim):
    count = reduced_count(self_layout.shape, reduced_dims(dim, self_layout.ndim))
    grad = grad / count if count else grad
    return {"self": expand_reduced(grad, self_layout, dim, keepdim)}


@mean.samples
def mean_samples(make):
    yield from several_dims_samples(make)
    yield (make(0),)
    yield (make(3, dtype="int64"),)
    yield make(3, dtype="int64"), 0, {"dtype": types.float64}


@composite(
    "nanmean(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) "
    "-> Tensor",
    variants="function method out",
)
def nanmean(self, dim, keepdim, dtype):
    """Returns the mean over ``dim`` of what is not NaN."""
    if not self.dtype.is_floating_point:
        raise RuntimeError(
            f"nanmean(): expected input to have floating point or complex dtype but got "
            f"{self.dtype.title}"
        )
    count = sum(self == self, dim, keepdim)
    return nansum(self, dim, keepdim, dtype=dtype) / count


@nanmean.samples
def nanmean_samples(make):
    yield from several_dims_samples(make)
    yield make(values=[[1, float("nan")], [2, 3]]), 1


# -- variance and deviation ----------------------------------------------------------------------


def _two_like_first(layouts, static):
    return like_first(layouts, static) * 2


_MEAN_TO_KEEP = FusedReduction(
    "mean", "sum", lambda x, n: x, lambda total, n: total / n, results=computed_like_first
)


def _squared_difference(x, mean, divisor):
    return (x - mean) * (x - mean)


_VARIANCE = FusedReduction(
    "var", "sum", _squared_difference, lambda total, divisor: total / divisor
)
_DEVIATION = FusedReduction(
    "std", "sum", _squared_difference, lambda total, divisor: k.sqrt(total / divisor)
)


def _spread(name: str, operation: FusedReduction, self, dim, correction, keepdim) -> Tensor:
    """The variance or its root with ``correction`` fewer elements counted."""
    if not self.dtype.is_floating_point:
        raise RuntimeError("std and var only support floating point and complex dtypes")
    dims = reduced_dims(dim, self.ndim)
    count = reduced_count(self.shape, dims)
    if count <= correction:
        warnings.warn(
            f"{name}(): degrees of freedom is <= 0. Correction should be strictly less "
            "than the reduction factor (input numel divided by output numel).",
            UserWarning,
            stacklevel=4,
        )
    (mean,) = _MEAN_TO_KEEP((self,), dims, True, (float(count),))
    return operation((self, mean), dims, keepdim, (float(max(count - correction, 0)),))[0]


def _spread_arguments(dim, unbiased, keepdim, correction):
    """``(dim, correction, keepdim)`` from what the overloads of var and std take."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if isinstance(dim, list):
        dim = tuple(dim)
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    return dim, correction, keepdim


_SPREAD = (
    "(Tensor self, any dim=None, any unbiased=None, bool keepdim=False, *, Scalar? correction=None)"
)


@composite("_var(Tensor self, int[1]? dim, Scalar correction, bool keepdim) -> Tensor", variants="")
def _var(self, dim, correction, keepdim):
    return _spread("var", _VARIANCE, self, dim, correction, keepdim)


_var.node_name = "VarBackward0"


def variance_gradient(grad, self, dim, correction, keepdim):
    """The gradient of a variance; ``grad`` has the shape of the result."""
    dims = reduced_dims(dim, self.ndim)
    freedom = reduced_count(self.shape, dims) - correction
    grad = restore_reduced(grad, self._layout, dim, keepdim)
    factor = 2.0 / freedom if freedom > 0 else float("nan" if freedom == 0 else "-inf")
    return grad * factor * (self - mean(self, dims, True))


@_var.derivative
def _var_backward(grad, self, dim, correction, keepdim):
    return {"self": variance_gradient(grad, self, dim, correction, keepdim)}


@composite("_std(Tensor self, int[1]? dim, Scalar correction, bool keepdim) -> Tensor", variants="")
def _std(self, dim, correction, keepdim):
    return _spread("std", _DEVIATION, self, dim, correction, keepdim)


_std.node_name = "StdBackward0"


_ZERO_WHERE_ZERO = FusedPointwise("masked_fill", lambda x, condition: k.where(condition == 0, 0, x))


@composite("_zero_where_zero(Tensor self, Tensor condition) -> Tensor", variants="")
def zero_where_zero(self, condition):
    """``self``, and zero where ``condition`` is zero."""
    return _ZERO_WHERE_ZERO((self, condition))[0]


@zero_where_zero.derivative
def zero_where_zero_backward(grad, condition):
    return {"self": zero_where_zero(grad, condition)}


def deviation_gradient(grad, self, result, dim, correction, keepdim):
    """The gradient of a deviation, zero where that is zero."""
    grad = zero_where_zero(grad / (result * 2), result)
    return variance_gradient(grad, self, dim, correction, keepdim)


@_std.derivative
def _std_backward(grad, self, result, dim, correction, keepdim):
    return {"self": deviation_gradient(grad, self, result, dim, correction, keepdim)}


@composite(f"var{_SPREAD} -> Tensor", variants="function method out")
def var(self, dim, unbiased, keepdim, correction):
    """Returns the variance over ``dim``: squares summed, divided by count minus ``correction``."""
    return _var.record([self, *_spread_arguments(dim, unbiased, keepdim, correction)])


@composite(f"std{_SPREAD} -> Tensor", variants="function method out")
def std(self, dim, unbiased, keepdim, correction):
    """Returns the standard deviation over ``dim``, the root of :func:`var`."""
    return _std.record([self, *_spread_arguments(dim, unbiased, keepdim, correction)])


def _spread_and_mean(name, operation, self, dim, correction, keepdim):
    spread = _spread(name, operation, self, dim, correction, keepdim)
    dims = reduced_dims(dim, self.ndim)
    count = float(reduced_count(self.shape, dims))
    return spread, _MEAN((self,), dims, keepdim, (count,))[0]


@composite(
    "_var_mean(Tensor self, int[1]? dim, Scalar correction, bool keepdim) -> (Tensor, Tensor)",
    variants="",
)
def _var_mean(self, dim, correction, keepdim):
    return _spread_and_mean("var_mean", _VARIANCE, self, dim, correction, keepdim)


@_var_mean.derivative
def _var_mean_backward(grad0, grad1, self, dim, correction, keepdim):
    spread = variance_gradient(grad0, self, dim, correction, keepdim)
    return {"self": spread + mean_backward(grad1, self._layout, dim, keepdim)["self"]}


@composite(
    "_std_mean(Tensor self, int[1]? dim, Scalar correction, bool keepdim) -> (Tensor, Tensor)",
    variants="",
)
def _std_mean(self, dim, correction, keepdim):
    return _spread_and_mean("std_mean", _DEVIATION, self, dim, correction, keepdim)


@_std_mean.derivative
def _std_mean_backward(grad0, grad1, self, result0, dim, correction, keepdim):
    spread = deviation_gradient(grad0, self, result0, dim, correction, keepdim)
    return {"self": spread + mean_backward(grad1, self._layout, dim, keepdim)["self"]}


@composite(f"var_mean{_SPREAD} -> (Tensor, Tensor)", variants="function")
def var_mean(self, dim, unbiased, keepdim, correction):
    """Returns the variance and the mean over ``dim``."""
    return _var_mean.record([self, *_spread_arguments(dim, unbiased, keepdim, correction)])


@composite(f"std_mean{_SPREAD} -> (Tensor, Tensor)", variants="function")
def std_mean(self, dim, unbiased, keepdim, correction):
    """Returns the standard deviation and the mean over ``dim``."""
    return _std_mean.record([self, *_spread_arguments(dim, unbiased, keepdim, correction)])


@var.samples
def var_samples(make):
    yield (make(3, 5),)
    yield make(3, 5), 1
    yield make(2, 3, 4), (0, 2), True, True
    yield make(2, 3, 4), 1, False
    yield make(3, 5), False
    yield make(3, 5), 0, {"correction": 2, "keepdim": True}
    yield make(40, dtype="float64"), 0, {"correction": 0}
    yield make(4, 40, dtype="bfloat16"), 1


@std.samples
def std_samples(make):
    yield from var_samples(make)
    yield make(values=[[2, 2], [1, 3]]), 1


@var_mean.samples
def var_mean_samples(make):
    yield from var_samples(make)


@std_mean.samples
def std_mean_samples(make):
    yield from var_samples(make)


# -- logarithm of a sum of exponentials ----------------------------------------------------------

_MAXIMUM = FusedReduction("amax", "max", lambda x: x, results=computed_like_first)


def _finite(top):
    return k.where(k.absolute(top) == k.INFINITY, 0, top)


_SHIFTED_SUM = FusedReduction(
    "exp_sum", "sum", lambda x, top: math.exp(x - _finite(top)), math.log,
    results=computed_like_first,
)  # fmt: skip
_LOGSUMEXP = FusedPointwise(
    "logsumexp",
    lambda log_total, top: log_total + _finite(top),
    results=lambda layouts, static: static,
)


@composite(
    "logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor",
    variants="function method out",
)
def logsumexp(self, dim, keepdim):
    """Returns ``log(sum(exp(self), dim))`` without overflow."""
    if not self.dtype.is_floating_point:
        self = to_dtype(self, default_dtype())
    dims = reduced_dims(dim, self.ndim)
    (top,) = _MAXIMUM((self,), dims, True)
    (log_total,) = _SHIFTED_SUM((self, top), dims, True)
    (result,) = _LOGSUMEXP((log_total, top), (), (self.dtype,))
    if not keepdim and dims:
        result = view(result, [n for d, n in enumerate(self.shape) if d not in dims])
    return result


@logsumexp.derivative
def logsumexp_backward(grad, self, result, dim, keepdim):
    result = restore_reduced(result, self._layout, dim, keepdim)
    return {"self": restore_reduced(grad, self._layout, dim, keepdim) * (self - result).exp()}


@logsumexp.samples
def logsumexp_samples(make):
    yield make(3, 5), 1
    yield make(2, 3, 4), (0, 2), True
    yield make(), 0
    yield make(3, 5, dtype="int64"), 0
    yield make(values=[[float("-inf"), float("-inf")], [float("inf"), 1]]), 1
    yield make(4, 40, dtype="bfloat16"), 1


# -- truth ---------------------------------------------------------------------------------------


def truth_type(source, asked):
    """PyTorch answers in bool, but for uint8 in uint8."""
    return operation_dtype(source), types.uint8 if source is types.uint8 else types.bool_


def truth_samples(make):
    yield (make(3, 5, dtype="bool"),)
    yield make(3, 5, dtype="bool"), 1
    yield make(2, 3, 4, dtype="int32", low=0, high=2), 0, True
    yield make(3, 5, dtype="uint8", low=0, high=2), 1
    yield (make(3),)
    yield (make(0, 4),)
    yield make(0, 4, dtype="bool"), 0


@reduction(
    "any(Tensor self, int[1]? dim=None, bool keepdim=False) -> Tensor",
    combine="any",
    promote=truth_type,
    variants="function method out",
)
def any(self):
    """Returns whether any element over ``dim`` is not zero."""
    return self != 0


@reduction(
    "all(Tensor self, int[1]? dim=None, bool keepdim=False) -> Tensor",
    combine="all",
    promote=truth_type,
    variants="function method out",
)
def all(self):
    """Returns whether all elements over ``dim`` are not zero."""
    return self != 0


@reduction(
    "count_nonzero(Tensor self, int[1]? dim=None) -> Tensor",
    combine="sum",
    promote=lambda source, asked: (operation_dtype(source), types.int64),
)
def count_nonzero(self):
    """Returns how many elements over ``dim`` are not zero."""
    return (self != 0).cast(types.int64)


for _operator in (any, all, count_nonzero):
    _operator.differentiable = False
    _operator.samples(truth_samples)


@count_nonzero.samples
def count_nonzero_samples(make):
    yield (make(3, 5, dtype="bool"),)
    yield make(3, 5, dtype="int64"), 1
    yield make(2, 3, 4), (0, 2)
