"""The error function, the gamma function and their relatives."""

from __future__ import annotations

import math as python_math

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.ops.declare import composite, pointwise
from flambeau.ops.exponential import exp
from flambeau.ops.pointwise import ALL_FORMS, where
from flambeau.ops.sample_tables import unary_samples
from flambeau.ops.trigonometry import cos, sin

_SLOPE_AT_ZERO = 2 / python_math.sqrt(python_math.pi)


def _float_function(name: str, aliases: str = ""):
    return pointwise(
        f"{name}(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS, aliases=aliases
    )


@_float_function("erf")
def erf(self):
    """Returns the error function."""
    return math.erf(self)


@erf.derivative
def erf_backward(grad, self):
    return {"self": grad * exp(-(self * self)) * _SLOPE_AT_ZERO}


erf.samples(unary_samples(-3, 3))


@_float_function("erfc")
def erfc(self):
    """Returns ``1 - erf(self)`` without cancellation."""
    return math.erfc(self)


@erfc.derivative
def erfc_backward(grad, self):
    return {"self": grad * exp(-(self * self)) * -_SLOPE_AT_ZERO}


erfc.samples(unary_samples(-3, 3))


@_float_function("erfinv")
def erfinv(self):
    """Returns the inverse of the error function."""
    return math.erfinv(self)


@erfinv.derivative
def erfinv_backward(grad, result):
    return {"self": grad * exp(result * result) * (1 / _SLOPE_AT_ZERO)}


erfinv.samples(unary_samples(-0.9, 0.9))


@_float_function("lgamma")
def lgamma(self):
    """Returns the logarithm of the absolute value of the gamma function."""
    return math.lgamma(self)


@lgamma.derivative
def lgamma_backward(grad, self):
    return {"self": grad * digamma(self)}


lgamma.samples(unary_samples(0.2, 9))


@_float_function("digamma")
def digamma(self):
    """Returns the derivative of `lgamma`."""
    return math.digamma(self)


@digamma.derivative
def digamma_backward(grad, self):
    return {"self": grad * polygamma(1, self)}


digamma.samples(unary_samples(0.2, 9))


@pointwise("_polygamma(Tensor self, int n) -> Tensor", promote="float", variants="")
def _polygamma(self, n):
    if n == 0:
        return math.digamma(self)
    factor = (1.0 if n % 2 else -1.0) * python_math.factorial(n)
    positive = math.zeta(n + 1, k.where(self > 0, self, 1.0)) * factor
    if n > 2:
        return k.where(self > 0, positive, k.where(self == 0, self.like(k.INFINITY), k.NAN))
    # Reflection: of the derivatives of pi / tan(pi x).
    sine = math.sin(self * python_math.pi)
    mirror = math.zeta(n + 1, k.where(self > 0, 1.0, 1.0 - self)) * factor
    if n == 1:
        mirrored = python_math.pi**2 / (sine * sine) - mirror
    else:
        cosine = math.cos(self * python_math.pi)
        mirrored = mirror - 2 * python_math.pi**3 * cosine / (sine * sine * sine)
    return k.where(self > 0, positive, mirrored)


_polygamma.node_name = "PolygammaBackward0"


@_polygamma.derivative
def _polygamma_backward(grad, self, n):
    return {"self": grad * _polygamma(self, n + 1)}


@composite("polygamma(int n, Tensor self) -> Tensor", variants="function")
def polygamma(n, self):
    """Returns the ``n``-th derivative of `digamma`; for ``n >= 2`` of positive numbers only."""
    if n < 0:
        raise RuntimeError("polygamma(n, x) does not support negative n.")
    return _polygamma(self, n)


@polygamma.samples
def polygamma_samples(make):
    for n in (0, 1, 2, 3):
        yield n, make(7, low=0.3, high=9)
    yield 1, make(7, low=-2.9, high=-2.1, dtype="float64")
    yield 2, make(7, low=0.3, high=9, dtype="float64")


@composite("polygamma.method(Tensor self, int n) -> Tensor", variants="method")
def polygamma_method(self, n):
    """Returns the ``n``-th derivative of `digamma`."""
    return polygamma(n, self)


@composite("mvlgamma(Tensor self, int p) -> Tensor", variants="function method")
def mvlgamma(self, p):
    """Returns the logarithm of the multivariate gamma function of dimension ``p``."""
    if p < 1:
        raise RuntimeError("p has to be greater than or equal to 1")
    total = lgamma(self) + 0.25 * p * (p - 1) * python_math.log(python_math.pi)
    for j in range(1, p):
        total = total + lgamma(self - j * 0.5)
    return total


@mvlgamma.samples
def mvlgamma_samples(make):
    yield make(5, low=2, high=6), 1
    yield make(5, low=2, high=6), 3


@pointwise("sinc(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS)
def sinc(self):
    """Returns ``sin(pi self) / (pi self)``; 1 at zero."""
    angle = self * python_math.pi
    return k.where(self == 0.0, 1.0, math.sin(angle) / angle)


@sinc.derivative
def sinc_backward(grad, self):
    angle = self * python_math.pi
    slope = (angle * cos(angle) - sin(angle)) / (self * angle)
    return {"self": grad * where(self == 0, 0.0, slope)}


sinc.samples(unary_samples())


@pointwise("i0(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS)
def i0(self):
    """Returns the modified Bessel function of order 0."""
    return math.i0e(self) * math.exp(k.absolute(self))


@i0.derivative
def i0_backward(grad, self):
    return {"self": grad * i1(self)}


i0.samples(unary_samples(-12, 12))


# -- of torch.special only -----------------------------------------------------------------------

_ROOT_HALF = python_math.sqrt(0.5)


@pointwise("erfcx(Tensor self) -> Tensor", promote="float", variants="out")
def erfcx(self):
    """Returns ``exp(self**2) * erfc(self)`` without overflow."""
    return math.erfcx(self)


@erfcx.derivative
def erfcx_backward(grad, self, result):
    return {"self": grad * (2 * self * result - _SLOPE_AT_ZERO)}


@composite("ndtr(Tensor self) -> Tensor", variants="")
def ndtr(self):
    """Returns the normal distribution function."""
    return erfc(self * -_ROOT_HALF) * 0.5


@composite("ndtri(Tensor self) -> Tensor", variants="")
def ndtri(self):
    """Returns the inverse of `ndtr`."""
    return erfinv(2 * self - 1) * python_math.sqrt(2)


@pointwise("log_ndtr(Tensor self) -> Tensor", promote="float", variants="out")
def log_ndtr(self):
    """Returns the logarithm of `ndtr` without loss in the lower tail."""
    t = self * _ROOT_HALF
    low = math.log(math.erfcx(-t) * 0.5) - t * t
    return k.where(self < -1.0, low, math.log1p(math.erfc(t) * -0.5))


@log_ndtr.derivative
def log_ndtr_backward(grad, self):
    return {"self": grad * (python_math.sqrt(2 / python_math.pi) / erfcx(self * -_ROOT_HALF))}


@pointwise("entr(Tensor self) -> Tensor", promote="float", variants="out")
def entr(self):
    """Returns ``-self * log(self)``; 0 at zero, minus infinity below."""
    usual = -self * math.log(self)
    below = k.where(self == 0.0, self.like(0.0), -k.INFINITY)
    return k.where((self > 0.0) | (self != self), usual, below)


@entr.derivative
def entr_backward(grad, self):
    return {"self": grad * (-self.log() - 1)}


@pointwise("xlog1py(Operand self, Operand other) -> Tensor", promote="float", variants="out")
def xlog1py(self, other):
    """Returns ``self * log1p(other)``; 0 where ``self`` is 0, unless ``other`` is NaN."""
    product = k.where(self == 0.0, 0.0, self * math.log1p(other))
    return k.where(other != other, k.NAN, product)


@xlog1py.derivative
def xlog1py_backward(grad, self, other, needs):
    gradients = {}
    if "self" in needs:
        slope = other.log1p() if hasattr(other, "log1p") else python_math.log1p(other)
        gradients["self"] = grad * where((self == 0) & (other <= -1), 0.0, slope)
    if "other" in needs:
        gradients["other"] = grad * self / (other + 1)
    return gradients


@pointwise("i0e(Tensor self) -> Tensor", promote="float", variants="out")
def i0e(self):
    """Returns ``exp(-abs(self)) * i0(self)``."""
    return math.i0e(self)


@i0e.derivative
def i0e_backward(grad, self, result):
    return {"self": grad * (i1e(self) - self.sgn() * result)}


@pointwise("i1(Tensor self) -> Tensor", promote="float", variants="out")
def i1(self):
    """Returns the modified Bessel function of order 1."""
    return math.i1e(self) * math.exp(k.absolute(self))


@i1.derivative
def i1_backward(grad, self, result):
    slope = where(self == 0, 0.5, i0(self) - result / self)
    return {"self": grad * slope}


@pointwise("i1e(Tensor self) -> Tensor", promote="float", variants="out")
def i1e(self):
    """Returns ``exp(-abs(self)) * i1(self)``."""
    return math.i1e(self)


@i1e.derivative
def i1e_backward(grad, self, result):
    slope = i0e(self) - result * (self.sgn() + 1 / self)
    return {"self": grad * where(self == 0, 0.5, slope)}
