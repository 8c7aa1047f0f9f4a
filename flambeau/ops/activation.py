"""Activation functions."""

from __future__ import annotations

import math as python_math

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.core import dtype as types
from flambeau.ops.creation import empty_like
from flambeau.ops.declare import PointwiseOperator, composite, pointwise
from flambeau.ops.exponential import exp, sigmoid
from flambeau.ops.joining import cat
from flambeau.ops.pointwise import where
from flambeau.ops.sample_tables import unary_samples
from flambeau.ops.special import erf
from flambeau.ops.trigonometry import tanh
from flambeau.ops.view import narrow
from flambeau.tensor import wrap_dim

IN_PLACE = "function method inplace"


def floating(kernel: str):
    """A check that raises PyTorch's error for integers, which names its kernel."""

    def check(common, arguments):
        if not common.is_floating_point:
            raise NotImplementedError(f"\"{kernel}\" not implemented for '{common.title}'")

    return check


def _samples(*more, low=-4.0, high=4.0):
    """A table of one tensor with the arguments of each tuple in ``more`` as well."""

    def table(make):
        yield from unary_samples(low, high, integers=False)(make)
        yield (make(3, dtype="int64"),)
        for arguments in more:
            yield make(3, 5, low=low, high=high), *arguments

    return table


# -- rectifiers ----------------------------------------------------------------------------------


def _check_relu(common, arguments):
    if common is types.bool_:
        raise RuntimeError("Boolean inputs not supported for relu")


@pointwise("relu(Tensor self) -> Tensor", check=_check_relu, variants=IN_PLACE)
def relu(self):
    """Returns ``max(self, 0)``."""
    return k.where((self > 0) | (self != self), self, 0)


@relu.derivative
def relu_backward(grad, result):
    return {"self": where(result <= 0, 0, grad)}


relu.samples(unary_samples())


@pointwise("relu6(Tensor self) -> Tensor", variants="")
def relu6(self):
    """Returns ``min(max(self, 0), 6)``."""
    return k.minimum(k.maximum(self, 0), 6)


relu6.node_name = "HardtanhBackward0"


@relu6.derivative
def relu6_backward(grad, result):
    return {"self": where((result > 0) & (result < 6), grad, 0)}


relu6.samples(_samples(low=-3, high=9))


@pointwise(
    "leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor",
    check=floating("leaky_relu_cpu"),
    variants="",
)
def leaky_relu(self, negative_slope):
    """Returns ``self`` above zero, ``negative_slope * self`` below."""
    return k.where(self > 0, self, self * negative_slope)


@leaky_relu.derivative
def leaky_relu_backward(grad, self, negative_slope):
    return {"self": where(self > 0, grad, grad * negative_slope)}


leaky_relu.samples(_samples((0.2,), (0.0,)))


@composite(
    "rrelu(Tensor self, Scalar lower=0.125, Scalar upper=0.3333333333333333, bool training=False, "
    "Generator? generator=None) -> Tensor",
    variants="function",
)
def rrelu(self, lower, upper, training, generator):
    """Returns `leaky_relu` with a slope drawn per element in training, their mean otherwise."""
    if lower > upper:
        raise RuntimeError("Lower bound should be less than or equal to the upper bound")
    if not training:
        return leaky_relu(self, (lower + upper) / 2)
    slope = empty_like(self).uniform_(lower, upper, generator=generator)
    return self * where(self <= 0, slope, 1.0)


@pointwise(
    "_prelu_kernel(Tensor self, Tensor weight) -> Tensor", check=floating("prelu_cpu"), variants=""
)
def _prelu(self, weight):
    return k.where(self > 0, self, self * weight)


_prelu.node_name = "PreluKernelBackward0"


@_prelu.derivative
def _prelu_backward(grad, self, weight):
    return {
        "self": where(self > 0, grad, weight * grad),
        "weight": where(self > 0, 0, self * grad),
    }


@composite("prelu(Tensor self, Tensor weight) -> Tensor", variants="function method")
def prelu(self, weight):
    """Returns ``self`` above zero, ``weight * self`` below; one weight or one per channel."""
    if self.dtype is not weight.dtype:
        raise RuntimeError(
            f"prelu: Type promoting not supported. Got {self.dtype.title} and {weight.dtype.title}"
        )
    if weight.numel() != 1:
        if not self.ndim:
            raise RuntimeError("Not allow zero-dim input tensor.")
        channels = self.shape[1] if self.ndim > 1 else 1
        if channels != weight.numel():
            raise RuntimeError(
                f"Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{weight.numel()} and channel size = {channels}."
            )
    if weight.ndim > 1:
        raise RuntimeError(
            f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.ndim}"
        )
    if weight.ndim:
        shape = [1] * max(self.ndim, 1)
        if self.ndim > 1:
            shape[1] = weight.numel()
        weight = weight.reshape(shape if self.ndim else ())
    return _prelu(self, weight)


@prelu.samples
def prelu_samples(make):
    yield make(3, 4, low=-2, high=2), make(1)
    yield make(3, 4), make(4)
    yield make(2, 3, 4), make(3)
    yield make(4), make(1)
    yield make(), make()
    yield make(3, 4), make(3)
    yield make(3, 4, dtype="float64"), make(4)
    yield make(4, 3, transposed=True), make(4)


@pointwise("threshold(Tensor self, Scalar threshold, Scalar value) -> Tensor", variants="function")
def threshold(self, threshold, value):
    """Returns ``self`` where it is greater than ``threshold``, else ``value``."""
    return k.where(self <= threshold, value, self)


@threshold.derivative
def threshold_backward(grad, self, threshold):
    return {"self": where(self <= threshold, 0, grad)}


@threshold.samples
def threshold_samples(make):
    yield make(3, 5), 0.5, -1.0
    yield make(4, 3, transposed=True), 0, 2
    yield make(5, dtype="int64"), 0, 2
    yield make(0, 3), 0.1, 20


@pointwise("hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor", variants="")
def hardtanh(self, min_val, max_val):
    """Returns ``self`` kept within ``[min_val, max_val]``."""
    return k.minimum(k.maximum(self, min_val), max_val)


@hardtanh.derivative
def hardtanh_backward(grad, self, min_val, max_val):
    return {"self": where((self > min_val) & (self < max_val), grad, 0)}


hardtanh.samples(_samples((-0.5, 0.7), (-2, 2)))


# -- exponential units ---------------------------------------------------------------------------


@pointwise(
    "elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor",
    check=floating("elu_cpu"),
    variants="",
)
def elu(self, alpha, scale, input_scale):
    """Returns ``scale * self`` above zero, ``scale * alpha * expm1(input_scale * self)`` below."""
    below = math.expm1(_times(self, input_scale)) if self.dtype.is_floating_point else self
    return k.where(self > 0, _times(self, scale), _times(_times(below, alpha), scale))


def _times(x, factor):
    """``x * factor``; nothing for the number 1."""
    return x if isinstance(factor, int) and factor == 1 else x * factor


@elu.derivative
def elu_backward(grad, self, alpha, scale, input_scale):
    below = exp(self if input_scale == 1 else self * input_scale) * (alpha * scale * input_scale)
    return {"self": where(self <= 0, grad * below, grad if scale == 1 else grad * scale)}


elu.samples(_samples((0.5,), (1.5, 2.0, 0.7)))

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@pointwise("selu(Tensor self) -> Tensor", check=floating("elu_cpu"), variants="function")
def selu(self):
    """Returns the exponential unit whose scales keep mean 0 and variance 1."""
    below = math.expm1(self) * (_SELU_ALPHA * _SELU_SCALE)
    return k.where(self > 0, self * _SELU_SCALE, below)


selu.node_name = "EluBackward0"


@selu.derivative
def selu_backward(grad, result):
    slope = result + _SELU_ALPHA * _SELU_SCALE
    return {"self": where(result <= 0, grad * slope, grad * _SELU_SCALE)}


selu.samples(_samples())


@pointwise(
    "celu(Tensor self, Scalar alpha=1.0) -> Tensor", check=floating("elu_cpu"), variants="function"
)
def celu(self, alpha):
    """Returns ``self`` above zero, ``alpha * (exp(self / alpha) - 1)`` below."""
    return k.where(self > 0, self, math.expm1(self / alpha) * alpha)


@celu.derivative
def celu_backward(grad, self, alpha):
    return {"self": where(self <= 0, grad * exp(self if alpha == 1 else self / alpha), grad)}


celu.samples(_samples((0.5,)))


# -- smooth ones ---------------------------------------------------------------------------------

_ROOT_HALF = python_math.sqrt(0.5)
_GELU_FACTOR = python_math.sqrt(2 / python_math.pi)
_GELU_CUBIC = 0.044715


def _check_gelu(common, arguments):
    if arguments[1] not in ("none", "tanh"):
        raise RuntimeError("approximate argument must be either none or tanh.")
    floating("GeluKernelImpl")(common, arguments)


@pointwise(
    'gelu(Tensor self, *, str approximate="none") -> Tensor',
    check=_check_gelu,
    variants="",
)
def gelu(self, approximate):
    """Returns ``self`` times the normal distribution at it, or the "tanh" approximation of that."""
    half = self * 0.5
    if approximate == "none":
        return half * (math.erf(self * _ROOT_HALF) + 1.0)
    inner = (self + self * self * self * _GELU_CUBIC) * _GELU_FACTOR
    return half * (math.tanh(inner) + 1.0)


@gelu.derivative
def gelu_backward(grad, self, approximate):
    if approximate == "none":
        below = (erf(self * _ROOT_HALF) + 1) * 0.5
        density = exp(self * self * -0.5) * (1 / python_math.sqrt(2 * python_math.pi))
        return {"self": grad * (below + self * density)}
    square = self * self
    t = tanh((self + self * square * _GELU_CUBIC) * _GELU_FACTOR)
    slope = (square * (3 * _GELU_CUBIC) + 1) * _GELU_FACTOR
    return {"self": grad * ((t + 1) * 0.5 + self * 0.5 * (1 - t * t) * slope)}


@gelu.samples
def gelu_samples(make):
    yield from _samples()(make)
    yield make(3, 5, low=-4, high=4), {"approximate": "tanh"}
    yield make(3, 5, dtype="float64", low=-4, high=4), {"approximate": "tanh"}
    yield make(3), {"approximate": "sigmoid"}


@pointwise("silu(Tensor self) -> Tensor", check=floating("silu_cpu"), variants="")
def silu(self):
    """Returns ``self * sigmoid(self)``."""
    return self / (math.exp(-self) + 1.0)


@silu.derivative
def silu_backward(grad, self):
    below = sigmoid(self)
    return {"self": grad * below * (self * (1 - below) + 1)}


silu.samples(_samples())


def _softplus(x):
    """``log(1 + exp(x))`` for any ``x``."""
    return k.maximum(x, 0.0) + math.log1p(math.exp(-k.absolute(x)))


@pointwise("mish(Tensor self) -> Tensor", check=floating("mish_cpu"), variants="")
def mish(self):
    """Returns ``self * tanh(softplus(self))``."""
    return self * math.tanh(_softplus(self))


@mish.derivative
def mish_backward(grad, self):
    t = tanh(softplus(self))
    return {"self": grad * (t + self * sigmoid(self) * (1 - t * t))}


mish.samples(_samples())


@pointwise(
    "softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor",
    check=floating("softplus_cpu"),
    variants="",
)
def softplus(self, beta, threshold):
    """Returns ``log(1 + exp(beta * self)) / beta``; ``self`` where that exceeds ``threshold``."""
    scaled = _times(self, beta)
    smooth = math.log1p(math.exp(scaled))
    smooth = smooth if isinstance(beta, int) else smooth / beta
    return k.where(scaled > threshold, self, smooth)


@softplus.derivative
def softplus_backward(grad, self, beta, threshold):
    scaled = self if beta == 1 else self * beta
    return {"self": where(scaled > threshold, grad, grad * sigmoid(scaled))}


softplus.samples(_samples((2.0,), (0.5, 1.0)))


class _Contiguous(PointwiseOperator):
    contiguous_result = True


@pointwise(
    "log_sigmoid(Tensor self) -> Tensor",
    _Contiguous,
    check=floating("log_sigmoid_cpu"),
    variants="",
)
def log_sigmoid(self):
    """Returns ``log(sigmoid(self))`` without its loss of digits."""
    return k.minimum(self, 0.0) - math.log1p(math.exp(-k.absolute(self)))


@log_sigmoid.derivative
def log_sigmoid_backward(grad, self):
    return {"self": grad * sigmoid(-self)}


log_sigmoid.samples(_samples())


# -- piecewise ones ------------------------------------------------------------------------------


@pointwise("hardsigmoid(Tensor self) -> Tensor", check=floating("hardsigmoid_cpu"), variants="")
def hardsigmoid(self):
    """Returns ``relu6(self + 3) / 6``."""
    return k.minimum(k.maximum(self + 3.0, 0.0), 6.0) / 6.0


# PyTorch multiplies by the float32 in every type.
_SIXTH = 0.1666666716337204


@hardsigmoid.derivative
def hardsigmoid_backward(grad, self):
    return {"self": where((self > -3) & (self < 3), grad * _SIXTH, 0)}


hardsigmoid.samples(_samples())


@pointwise("hardswish(Tensor self) -> Tensor", check=floating("hardswish_cpu"), variants="")
def hardswish(self):
    """Returns ``self * relu6(self + 3) / 6``."""
    return self * k.minimum(k.maximum(self + 3.0, 0.0), 6.0) / 6.0


@hardswish.derivative
def hardswish_backward(grad, self):
    middle = where(self <= -3, 0, grad * (self / 3 + 0.5))
    return {"self": where(self < 3, middle, grad)}


hardswish.samples(_samples())


@pointwise(
    "hardshrink(Tensor self, Scalar lambd=0.5) -> Tensor",
    check=floating("hardshrink_cpu"),
    variants="function method",
)
def hardshrink(self, lambd):
    """Returns ``self``, but zero within ``[-lambd, lambd]``."""
    return k.where(k.absolute(self) <= lambd, 0, self)


@hardshrink.derivative
def hardshrink_backward(grad, self, lambd):
    return {"self": where((self >= -lambd) & (self <= lambd), 0, grad)}


hardshrink.samples(_samples((1.0,)))


class _Softshrink(PointwiseOperator):
    """The limit must not be negative."""

    def record(self, values, out=None, inplace=False):
        kind = values[0].dtype
        if kind.is_floating_point and not 0 <= values[1] <= types.finfo(kind).max:
            raise RuntimeError(
                f"lambda must be in range [0, {types.finfo(kind).max:g}] for input dtype "
                f"{kind.title}, but found {values[1]:g}"
            )
        return super().record(values, out, inplace)


@pointwise(
    "softshrink(Tensor self, Scalar lambd=0.5) -> Tensor",
    _Softshrink,
    check=floating("softshrink_check"),
    variants="",
)
def softshrink(self, lambd):
    """Returns ``self`` moved towards zero by ``lambd``, zero if it is not farther away."""
    negative = -lambd
    inner = k.where(self < negative, self + lambd, self * 0.0)
    return k.where(self > lambd, self - lambd, inner)


@softshrink.derivative
def softshrink_backward(grad, self, lambd):
    return {"self": where((self >= -lambd) & (self <= lambd), 0, grad)}


@softshrink.samples
def softshrink_samples(make):
    yield from _samples((1.0,))(make)
    yield make(3), -1.0


# -- gates ---------------------------------------------------------------------------------------


def _halves(self, dim):
    size = self.shape[dim]
    if size % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {size}")
    return narrow(self, dim, 0, size // 2), narrow(self, dim, size // 2, size // 2)


@composite("glu(Tensor self, int dim=-1) -> Tensor", variants="")
def glu(self, dim):
    """Returns ``a * sigmoid(b)`` of the halves of ``self`` along ``dim``."""
    if not self.ndim:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    first, second = _halves(self, wrap_dim(dim, self.ndim))
    return first * sigmoid(second)


@glu.derivative
def glu_backward(grad, self, dim):
    dim = wrap_dim(dim, self.ndim)
    first, second = _halves(self, dim)
    gate = sigmoid(second)
    return {"self": cat((grad * gate, grad * first * gate * (1 - gate)), dim)}


@glu.samples
def glu_samples(make):
    yield (make(3, 6),)
    yield make(4, 3, 2), 0
    yield make(6, 3, transposed=True), {"dim": 1}
    yield make(4, dtype="float64"), 0
    yield make(3, 5), 1
    yield (make(0, 4),)
