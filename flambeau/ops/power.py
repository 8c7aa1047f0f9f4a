"""Powers and roots."""

from __future__ import annotations

import math as python_math

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.core import dtype as types
from flambeau.ops.declare import PointwiseOperator, composite, pointwise
from flambeau.ops.pointwise import ALL_FORMS, where, zeros_like_grad
from flambeau.ops.sample_tables import binary_samples, unary_samples
from flambeau.tensor import Tensor


@pointwise("sqrt(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS)
def sqrt(self):
    """Returns the square root."""
    return k.sqrt(self)


@sqrt.derivative
def sqrt_backward(grad, result):
    return {"self": grad / (2 * result)}


sqrt.samples(unary_samples(0.1, 4))


@pointwise("rsqrt(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS)
def rsqrt(self):
    """Returns ``1 / sqrt(self)``."""
    return 1 / k.sqrt(self)


@rsqrt.derivative
def rsqrt_backward(grad, result):
    return {"self": -0.5 * grad * (result * result * result)}


rsqrt.samples(unary_samples(0.1, 4))


_FLOAT_EXPONENTS = (0.0, 1.0, 2.0, 3.0, 4.0, 0.5, -0.5, -1.0, -2.0)


class _Power(PointwiseOperator):
    """Powers.  A common exponent is part of the kernel, so that ``x ** 2`` is one product."""

    short_path = False

    def split(self, values):
        base, exponent = values
        if isinstance(base, Tensor) and type(exponent) in (int, float):
            if base.dtype.is_floating_point:
                if exponent in _FLOAT_EXPONENTS:
                    return [base, float(exponent)], (), []
            elif type(exponent) is int:
                if exponent < 0 and base.dtype is not types.bool_:
                    raise RuntimeError("Integers to negative integer powers are not allowed.")
                if 0 <= exponent <= 64:
                    return [base, exponent], (), []
        return super().split(values)


def _check_power(common, arguments):
    if common is types.bool_:
        raise NotImplementedError("\"pow\" not implemented for 'Bool'")


_FLOAT_POWERS = {
    0.0: lambda x: x.like(1),
    1.0: lambda x: x,
    2.0: lambda x: x * x,
    3.0: lambda x: x * x * x,
    4.0: lambda x: (x * x) * (x * x),
    0.5: k.sqrt,
    -0.5: lambda x: 1 / k.sqrt(x),
    -1.0: lambda x: 1 / x,
    -2.0: lambda x: 1 / (x * x),
}


@pointwise(
    "pow(Operand self, Operand exponent) -> Tensor",
    _Power,
    check=_check_power,
    variants=ALL_FORMS,
    dunder="pow",
)
def pow(self, exponent):
    """Returns ``self`` to the power ``exponent``; integers wrap.

    Raises RuntimeError for integers with a negative number as exponent.
    """
    if isinstance(exponent, float):
        return _FLOAT_POWERS[exponent](self)
    if isinstance(exponent, int):
        return math.power_by_squaring(self, exponent)
    if self.dtype.is_floating_point:
        return math.pow(self, exponent)
    return math.integer_power(self, exponent)


def _pow_name(node):
    if node.layouts[0] is None:
        return "PowBackward2"
    return "PowBackward0" if node.layouts[1] is None else "PowBackward1"


pow.node_name = _pow_name


@pow.derivative
def pow_backward(grad, self, exponent, needs):
    if not isinstance(exponent, Tensor):
        if exponent == 0:
            return {"self": zeros_like_grad(grad)}
        return {"self": grad * (exponent * pow(self, exponent - 1))}
    gradients = {}
    if "self" in needs:
        slope = grad * (exponent * pow(self, exponent - 1))
        gradients["self"] = where(exponent == 0, 0.0, slope)
    if "exponent" in needs:
        if isinstance(self, Tensor):
            slope = grad * (pow(self, exponent) * self.log())
            flat = (self == 0) & (exponent >= 0)
            gradients["exponent"] = where(flat, 0.0, slope)
        else:
            slope = grad * (pow(self, exponent) * _log_of_number(self))
            gradients["exponent"] = where(exponent >= 0, 0.0, slope) if self == 0 else slope
    return gradients


def _log_of_number(number):
    if number > 0:
        return python_math.log(number)
    return -python_math.inf if number == 0 else python_math.nan


@pow.samples
def pow_samples(make):
    yield from binary_samples(low=0.3, high=2.5)(make)
    for exponent in (0, 1, 2, 3, 4, -1, -2, 0.5, -0.5, 2.3, 7):
        yield make(5, low=0.3), exponent
    yield make(5, dtype="int64", low=-5, high=5), 3
    yield make(5, dtype="int64", low=-5, high=5), 2.0
    yield make(5, dtype="int64", low=1, high=5), -1
    yield 2, make(5)
    yield 2.5, make(5, dtype="int64", low=-3, high=4)
    yield make(values=[-2.0, -2.0, 0.0, 0.0]), make(values=[3.0, 2.0, 0.0, 2.0])


@composite("_rpow(Tensor self, Operand other) -> Tensor", variants="", dunder="rpow")
def rpow(self, other):
    """Returns ``other ** self``."""
    return pow(other, self)


def _bool_to_integer(common):
    result = types.int64 if common is types.bool_ else common
    return result, result


@pointwise("square(Tensor self) -> Tensor", promote=_bool_to_integer, variants=ALL_FORMS)
def square(self):
    """Returns ``self * self``."""
    return self * self


square.node_name = "PowBackward0"


@square.derivative
def square_backward(grad, self):
    return {"self": grad * (2 * self)}


square.samples(unary_samples())
