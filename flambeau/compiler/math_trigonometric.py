"""Trigonometric and hyperbolic functions as kernel code.

The errors stated are the largest found by tests/compiler/test_math.py.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler import kernel as k
from flambeau.compiler import math_tables as tables
from flambeau.compiler.kernel import Value, fma, where
from flambeau.compiler.math_exponential import (
    exp_scaled,
    expm1,
    is_single,
    log,
    log1p,
    polynomial,
)
from flambeau.compiler.math_reduction import (
    LARGE,
    reduce_angle,
    reduce_huge_angle,
    reduce_single,
)
from flambeau.core import dtype as types

_PI = 3.141592653589793
_PI_LOW = 1.2246467991473532e-16


def in_double(function: Callable[..., Value]) -> Callable[..., Value]:
    """The same function, which float32 goes through float64 for: it is then correctly rounded."""

    def either(*arguments: Value) -> Value:
        if not is_single(arguments[0]):
            return function(*arguments)
        return function(*[a.cast(types.float64) for a in arguments]).cast(types.float32)

    either.__name__ = function.__name__
    either.__doc__ = function.__doc__
    return either


# -- sine, cosine, tangent -----------------------------------------------------------------------


def _sine_and_cosine(high: Value, low: Value) -> tuple[Value, Value]:
    """Of ``high + low`` in float64, at most pi / 4."""
    z = high * high
    cubic = high * z
    half = z * 0.5
    sine = high + fma(cubic, polynomial(z, tables.SIN_64), low * (1.0 - half))
    one = 1.0 - half
    small = fma(z * z, polynomial(z, tables.COS_64), -(high * low))
    cosine = one + (((1.0 - one) - half) + small)
    return sine, cosine


def _sine_and_cosine_single(r: Value) -> tuple[Value, Value]:
    z = r * r
    sine = fma(r * z, polynomial(z, tables.SIN_32), r)
    cosine = fma(z, fma(z, polynomial(z, tables.COS_32), -0.5), 1.0)
    return sine, cosine


def _bit(quadrant: Value, bit: int) -> Value:
    return (quadrant & bit) != 0


def _sine_of(sine: Value, cosine: Value, quadrant: Value) -> Value:
    result = where(_bit(quadrant, 1), cosine, sine)
    return where(_bit(quadrant, 2), -result, result)


def _is_huge(x: Value) -> Value:
    magnitude = k.absolute(x)
    return (magnitude >= LARGE) & (magnitude < k.INFINITY)


def _reduced(x: Value) -> tuple[Value, Value, Value]:
    """Sine and cosine of what is left of ``x``, and its quadrant."""
    if is_single(x):
        rest, quadrant = reduce_single(x)
        sine, cosine = _sine_and_cosine_single(rest)
        return sine, cosine, quadrant
    high, low, quadrant = reduce_angle(x)
    sine, cosine = _sine_and_cosine(high, low)
    return sine, cosine, quadrant


def _huge_reduced(x: Value) -> tuple[Value, Value, Value]:
    high, low, quadrant = reduce_huge_angle(k.absolute(x).cast(types.float64))
    sine, cosine = _sine_and_cosine(high, low)
    return sine, cosine, quadrant


@k.rare
def _sine_of_huge(x: Value) -> Value:
    result = _sine_of(*_huge_reduced(x)).cast(x.dtype)
    return where(x < 0.0, -result, result)


@k.rare
def _cosine_of_huge(x: Value) -> Value:
    sine, cosine, quadrant = _huge_reduced(x)
    return _sine_of(sine, cosine, quadrant + 1).cast(x.dtype)


@k.rare
def _tangent_of_huge(x: Value) -> Value:
    result = _tangent_of(*_huge_reduced(x))
    return where(x < 0.0, -result, result)


def sin(x: Value) -> Value:
    """The sine; 1.4 ULP in float32, 0.7 in float64."""
    sine, cosine, quadrant = _reduced(x)
    usual = _sine_of(sine, cosine, quadrant)
    return _sine_of_huge(_is_huge(x), where(x == 0.0, x, usual), x)


def cos(x: Value) -> Value:
    """The cosine; 1.3 ULP in float32, 0.8 in float64."""
    sine, cosine, quadrant = _reduced(x)
    return _cosine_of_huge(_is_huge(x), _sine_of(sine, cosine, quadrant + 1), x)


def _tangent_of(sine: Value, cosine: Value, quadrant: Value) -> Value:
    odd = _bit(quadrant, 1)
    return where(odd, -cosine, sine) / where(odd, sine, cosine)


@in_double
def tan(x: Value) -> Value:
    """The tangent; 0.5 ULP in float32, 1.9 in float64."""
    usual = _tangent_of(*_reduced(x))
    return _tangent_of_huge(_is_huge(x), where(x == 0.0, x, usual), x)


# -- their inverses ------------------------------------------------------------------------------


def _atan_series(t: Value) -> Value:
    """``atan(t) - t`` for ``abs(t) <= sqrt(2) - 1``."""
    z = t * t
    return (t * z) * polynomial(z, tables.ATAN_32 if is_single(t) else tables.ATAN_64)


def atan(x: Value) -> Value:
    """The arc tangent; 1.7 ULP in float32, 1.0 in float64."""
    magnitude = k.absolute(x)
    steep = magnitude > 2.414213562373095
    middle = magnitude > 0.41421356237309503
    one = x.like(1.0)
    above = where(steep, -one, where(middle, magnitude - 1.0, magnitude))
    below = where(steep, magnitude, where(middle, magnitude + 1.0, 1.0))
    t = above / below
    base = where(steep, one * (_PI / 2), where(middle, one * (_PI / 4), 0.0))
    lost = where(steep, one * (_PI_LOW / 2), where(middle, one * (_PI_LOW / 4), 0.0))
    if is_single(x):
        lost = where(steep, one * -4.371139e-08, where(middle, one * -2.1855694e-08, 0.0))
    return k.copysign(base + (t + (_atan_series(t) + lost)), x)


@in_double
def atan2(y: Value, x: Value) -> Value:
    """The angle of the point ``(x, y)``; 0.5 ULP in float32, 2.1 in float64."""
    across, up = k.absolute(x), k.absolute(y)
    swapped = up > across
    smaller, larger = where(swapped, across, up), where(swapped, up, across)
    ratio = smaller / larger
    ratio = where(larger == 0.0, 0.0, ratio)
    ratio = where(smaller == k.INFINITY, 1.0, ratio)
    angle = atan(ratio)
    angle = where(swapped, (_PI / 2 - angle) + _PI_LOW / 2, angle)
    left = k.copysign(x.like(1.0), x) < 0.0
    angle = where(left, (_PI - angle) + _PI_LOW, angle)
    return where((x != x) | (y != y), k.NAN, k.copysign(angle, y))


def _asin_series(x: Value, z: Value) -> Value:
    """``asin(x) - x`` for ``z = x**2 <= 1 / 4``."""
    return (x * z) * polynomial(z, tables.ASIN_32 if is_single(x) else tables.ASIN_64)


def asin(x: Value) -> Value:
    """The arc sine; NaN outside ``[-1, 1]``; 1.7 ULP in float32, 1.7 in float64."""
    magnitude = k.absolute(x)
    large = magnitude > 0.5
    z = where(large, fma(magnitude, -0.5, 0.5), magnitude * magnitude)
    root = where(large, k.sqrt(z), magnitude)
    tail = _asin_series(root, z)
    low = -4.371139e-08 if is_single(x) else _PI_LOW / 2
    from_top = (_PI / 2 - (root + root)) - (tail + tail - low)
    return k.copysign(where(large, from_top, root + tail), x)


def acos(x: Value) -> Value:
    """The arc cosine; NaN outside ``[-1, 1]``; 1.1 ULP in float32, 1.1 in float64."""
    magnitude = k.absolute(x)
    large = magnitude > 0.5
    z = where(large, fma(magnitude, -0.5, 0.5), magnitude * magnitude)
    root = where(large, k.sqrt(z), x)
    tail = _asin_series(root, z)
    single = is_single(x)
    low = -4.371139e-08 if single else _PI_LOW / 2
    twice = (root + tail) * 2.0
    near_minus_one = (_PI - (root + root)) - (tail + tail - 2.0 * low)
    middle = _PI / 2 - (root - (low - tail))
    return where(large, where(x < 0.0, near_minus_one, twice), middle)


# -- hyperbolic functions ------------------------------------------------------------------------


@in_double
def sinh(x: Value) -> Value:
    """The hyperbolic sine; 0.5 ULP in float32, 1.8 in float64."""
    magnitude = k.absolute(x)
    grown = expm1(magnitude)
    small = (grown + grown / (grown + 1.0)) * 0.5
    result = where(magnitude > 30.0, exp_scaled(magnitude, -1), small)
    return k.copysign(result, x)


@in_double
def cosh(x: Value) -> Value:
    """The hyperbolic cosine; 0.5 ULP in float32, 1.2 in float64."""
    half = exp_scaled(k.absolute(x), -1)
    return half + 0.25 / half


_LN2 = 0.6931471805599453


@in_double
def asinh(x: Value) -> Value:
    """The inverse hyperbolic sine; 0.5 ULP in float32, 1.6 in float64."""
    magnitude = k.absolute(x)
    square = magnitude * magnitude
    small = log1p(magnitude + square / (k.sqrt(square + 1.0) + 1.0))
    result = where(magnitude > 1e9, log(magnitude) + _LN2, small)
    return where(x == 0.0, x, k.copysign(result, x))


@in_double
def acosh(x: Value) -> Value:
    """The inverse hyperbolic cosine; NaN below 1; 0.5 ULP in float32, 2.0 in float64."""
    above = x - 1.0
    small = log1p(above + k.sqrt(above * (above + 2.0)))
    return where(x > 1e9, log(x) + _LN2, where(x >= 1.0, small, k.NAN))


@in_double
def atanh(x: Value) -> Value:
    """The inverse hyperbolic tangent; NaN beyond 1; 0.5 ULP in float32, 1.6 in float64."""
    magnitude = k.absolute(x)
    result = log1p((magnitude + magnitude) / (1.0 - magnitude)) * 0.5
    return where(x == 0.0, x, k.copysign(result, x))
