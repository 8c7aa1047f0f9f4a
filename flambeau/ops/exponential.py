"""Exponentials and logarithms."""

from __future__ import annotations

import math as python_math

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.ops.declare import pointwise
from flambeau.ops.pointwise import ALL_FORMS, where
from flambeau.ops.sample_tables import binary_samples, unary_samples

_LN2 = python_math.log(2)
_LN10 = python_math.log(10)


def _float_function(name: str, aliases: str = ""):
    return pointwise(
        f"{name}(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS, aliases=aliases
    )


@_float_function("exp")
def exp(self):
    """Returns ``e`` to the power ``self``."""
    return math.exp(self)


@exp.derivative
def exp_backward(grad, result):
    return {"self": grad * result}


exp.samples(unary_samples())


@_float_function("exp2")
def exp2(self):
    """Returns 2 to the power ``self``."""
    return math.exp2(self)


@exp2.derivative
def exp2_backward(grad, result):
    return {"self": grad * result * _LN2}


exp2.samples(unary_samples())


@_float_function("expm1")
def expm1(self):
    """Returns ``exp(self) - 1``, exact near zero."""
    return math.expm1(self)


@expm1.derivative
def expm1_backward(grad, result):
    return {"self": grad * (result + 1)}


expm1.samples(unary_samples())


@_float_function("log")
def log(self):
    """Returns the natural logarithm."""
    return math.log(self)


@log.derivative
def log_backward(grad, self):
    return {"self": grad / self}


log.samples(unary_samples(0.1, 5))


@_float_function("log2")
def log2(self):
    """Returns the logarithm to base 2."""
    return math.log2(self)


@log2.derivative
def log2_backward(grad, self):
    return {"self": grad / (self * _LN2)}


log2.samples(unary_samples(0.1, 5))


@_float_function("log10")
def log10(self):
    """Returns the logarithm to base 10."""
    return math.log10(self)


@log10.derivative
def log10_backward(grad, self):
    return {"self": grad / (self * _LN10)}


log10.samples(unary_samples(0.1, 5))


@_float_function("log1p")
def log1p(self):
    """Returns ``log(1 + self)``, exact near zero."""
    return math.log1p(self)


log1p.node_name = "Log1PBackward0"


@log1p.derivative
def log1p_backward(grad, self):
    return {"self": grad / (self + 1)}


log1p.samples(unary_samples(-0.9, 5))


@_float_function("sigmoid", aliases="")
def sigmoid(self):
    """Returns ``1 / (1 + exp(-self))``."""
    return math.sigmoid(self)


@sigmoid.derivative
def sigmoid_backward(grad, result):
    return {"self": grad * (1 - result) * result}


sigmoid.samples(unary_samples(-6, 6))


@pointwise("logit(Tensor self, float? eps=None) -> Tensor", promote="float", variants=ALL_FORMS)
def logit(self, eps):
    """Returns ``log(self / (1 - self))``, after limiting ``self`` to ``[eps, 1 - eps]``."""
    if eps is not None:
        self = k.minimum(k.maximum(self, eps), 1 - eps)
    return math.log(self / (1 - self))


@logit.derivative
def logit_backward(grad, self, eps):
    if eps is None:
        inside = (self >= 0) & (self <= 1)
        return {"self": where(inside, grad / (self * (1 - self)), float("nan"))}
    inside = (self >= eps) & (self <= 1 - eps)
    return {"self": where(inside, grad / (self * (1 - self)), 0)}


@logit.samples
def logit_samples(make):
    yield (make(3, 5, low=0.1, high=0.9),)
    yield make(3, 5, low=-0.2, high=1.2), 0.1
    yield make(3, 5, low=0, high=1), {"eps": 0.2}
    yield (make(3, dtype="float64", low=0.1, high=0.9),)
    yield (make(0),)


@pointwise("xlogy(Operand self, Operand other) -> Tensor", promote="float", variants=ALL_FORMS)
def xlogy(self, other):
    """Returns ``self * log(other)``; 0 where ``self`` is 0, unless ``other`` is NaN."""
    product = k.where(self == 0.0, 0.0, self * math.log(other))
    return k.where(other != other, k.NAN, product)


def _xlogy_name(node):
    if node.layouts[0] is None:
        return "XlogyBackward1"
    return "XlogyBackward2" if node.layouts[1] is None else "XlogyBackward0"


xlogy.node_name = _xlogy_name


@xlogy.derivative
def xlogy_backward(grad, self, other, needs):
    gradients = {}
    if "self" in needs:
        slope = other.log() if hasattr(other, "log") else python_math.log(other)
        gradients["self"] = grad * where((self == 0) & (other <= 0), 0.0, slope)
    if "other" in needs:
        gradients["other"] = grad * self / other
    return gradients


@xlogy.samples
def xlogy_samples(make):
    yield make(3, 5, low=0.2, high=3), make(3, 5, low=0.2, high=3)
    yield make(3, 1, low=0.2, high=3), make(5, low=0.2, high=3)
    yield make(0, 4), make(4)
    yield make(4, low=0.2, high=3), 2.5
    yield make(4, dtype="int64", low=1, high=5), make(4, dtype="int64", low=1, high=5)
    yield 2, make(4, low=0.2, high=3)
    yield make(values=[0.0, 0.0, 1.0]), make(values=[0.0, float("nan"), 2.0])


@pointwise(
    "logaddexp(Tensor self, Tensor other) -> Tensor",
    promote="float",
    variants="function method out",
)
def logaddexp(self, other):
    """Returns ``log(exp(self) + exp(other))`` without overflow."""
    return math.log_of_sum(self, other)


@logaddexp.derivative
def logaddexp_backward(grad, self, other, result):
    return {"self": grad * exp(self - result), "other": grad * exp(other - result)}


logaddexp.samples(binary_samples(integers=False, numbers=()))


@pointwise(
    "logaddexp2(Tensor self, Tensor other) -> Tensor",
    promote="float",
    variants="function method out",
)
def logaddexp2(self, other):
    """Returns the base 2 logarithm of ``2**self + 2**other`` without overflow."""
    return math.log_of_sum(self, other, lambda x: math.log1p(x) * (1 / _LN2), math.exp2)


@logaddexp2.derivative
def logaddexp2_backward(grad, self, other, result):
    return {"self": grad * exp2(self - result), "other": grad * exp2(other - result)}


logaddexp2.samples(binary_samples(integers=False, numbers=()))
