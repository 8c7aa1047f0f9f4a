"""Trigonometric and hyperbolic functions."""

from __future__ import annotations

import math as python_math

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.ops.declare import pointwise
from flambeau.ops.pointwise import ALL_FORMS, where
from flambeau.ops.power import rsqrt
from flambeau.ops.sample_tables import binary_samples, unary_samples


def _float_function(name: str, aliases: str = ""):
    return pointwise(
        f"{name}(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS, aliases=aliases
    )


@_float_function("sin")
def sin(self):
    """Returns the sine."""
    return math.sin(self)


@sin.derivative
def sin_backward(grad, self):
    return {"self": grad * cos(self)}


sin.samples(unary_samples(-9, 9))


@_float_function("cos")
def cos(self):
    """Returns the cosine."""
    return math.cos(self)


@cos.derivative
def cos_backward(grad, self):
    return {"self": grad * -sin(self)}


cos.samples(unary_samples(-9, 9))


@_float_function("tan")
def tan(self):
    """Returns the tangent."""
    return math.tan(self)


@tan.derivative
def tan_backward(grad, result):
    return {"self": grad * (1 + result * result)}


tan.samples(unary_samples(-1.2, 1.2))


@_float_function("asin", aliases="arcsin")
def asin(self):
    """Returns the arc sine."""
    return math.asin(self)


@asin.derivative
def asin_backward(grad, self):
    return {"self": grad * rsqrt(1 - self * self)}


asin.samples(unary_samples(-0.9, 0.9))


@_float_function("acos", aliases="arccos")
def acos(self):
    """Returns the arc cosine."""
    return math.acos(self)


@acos.derivative
def acos_backward(grad, self):
    return {"self": grad * -rsqrt(1 - self * self)}


acos.samples(unary_samples(-0.9, 0.9))


@_float_function("atan", aliases="arctan")
def atan(self):
    """Returns the arc tangent."""
    return math.atan(self)


@atan.derivative
def atan_backward(grad, self):
    return {"self": grad / (self * self + 1)}


atan.samples(unary_samples(-5, 5))


@pointwise(
    "atan2(Tensor self, Tensor other) -> Tensor",
    promote="float",
    variants=ALL_FORMS,
    aliases="arctan2",
)
def atan2(self, other):
    """Returns the angle of the points ``(other, self)``."""
    return math.atan2(self, other)


@atan2.derivative
def atan2_backward(grad, self, other):
    square = self * self + other * other
    scaled = where(square == 0, 0.0, grad / square)
    return {"self": scaled * other, "other": scaled * -self}


atan2.samples(binary_samples(numbers=()))


@_float_function("sinh")
def sinh(self):
    """Returns the hyperbolic sine."""
    return math.sinh(self)


@sinh.derivative
def sinh_backward(grad, self):
    return {"self": grad * cosh(self)}


sinh.samples(unary_samples(-4, 4))


@_float_function("cosh")
def cosh(self):
    """Returns the hyperbolic cosine."""
    return math.cosh(self)


@cosh.derivative
def cosh_backward(grad, self):
    return {"self": grad * sinh(self)}


cosh.samples(unary_samples(-4, 4))


@_float_function("tanh")
def tanh(self):
    """Returns the hyperbolic tangent."""
    return math.tanh(self)


@tanh.derivative
def tanh_backward(grad, result):
    return {"self": grad * (1 - result * result)}


tanh.samples(unary_samples(-4, 4))


@_float_function("asinh", aliases="arcsinh")
def asinh(self):
    """Returns the inverse hyperbolic sine."""
    return math.asinh(self)


@asinh.derivative
def asinh_backward(grad, self):
    return {"self": grad * rsqrt(self * self + 1)}


asinh.samples(unary_samples(-4, 4))


@_float_function("acosh", aliases="arccosh")
def acosh(self):
    """Returns the inverse hyperbolic cosine."""
    return math.acosh(self)


@acosh.derivative
def acosh_backward(grad, self):
    return {"self": grad * (rsqrt(self - 1) * rsqrt(self + 1))}


acosh.samples(unary_samples(1.1, 5))


@_float_function("atanh", aliases="arctanh")
def atanh(self):
    """Returns the inverse hyperbolic tangent."""
    return math.atanh(self)


@atanh.derivative
def atanh_backward(grad, self):
    return {"self": grad / (1 - self * self)}


atanh.samples(unary_samples(-0.9, 0.9))


def _check_hypot(common, arguments):
    if not common.is_floating_point:
        raise NotImplementedError(f"\"hypot_cpu\" not implemented for '{common.title}'")


@pointwise("hypot(Tensor self, Tensor other) -> Tensor", check=_check_hypot, variants=ALL_FORMS)
def hypot(self, other):
    """Returns ``sqrt(self**2 + other**2)`` without overflow."""
    a, b = k.absolute(self), k.absolute(other)
    larger, smaller = k.maximum(a, b), k.minimum(a, b)
    ratio = smaller / larger
    length = larger * k.sqrt(ratio * ratio + 1.0)
    length = k.where(larger == 0.0, 0.0, length)
    return k.where((a == k.INFINITY) | (b == k.INFINITY), k.INFINITY, length)


@hypot.derivative
def hypot_backward(grad, self, other, result):
    return {"self": grad * (self / result), "other": grad * (other / result)}


hypot.samples(binary_samples(integers=False, numbers=()))


@pointwise("deg2rad(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS)
def deg2rad(self):
    """Returns degrees as radians."""
    return self * (python_math.pi / 180)


deg2rad.node_name = "Deg2RadBackward0"


@deg2rad.derivative
def deg2rad_backward(grad):
    return {"self": grad * (python_math.pi / 180)}


deg2rad.samples(unary_samples(-180, 180))


@pointwise("rad2deg(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS)
def rad2deg(self):
    """Returns radians as degrees."""
    return self * (180 / python_math.pi)


rad2deg.node_name = "Rad2DegBackward0"


@rad2deg.derivative
def rad2deg_backward(grad):
    return {"self": grad * (180 / python_math.pi)}


rad2deg.samples(unary_samples())
