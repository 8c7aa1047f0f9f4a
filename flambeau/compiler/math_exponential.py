"""Exponentials, logarithms and powers as kernel code.

All functions take and return float32 or float64 values.  The errors stated are the largest found by
tests/compiler/test_math.py, in units in the last place (ULP).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from flambeau.compiler import kernel as k
from flambeau.compiler import math_tables as tables
from flambeau.compiler.kernel import Value, fma, where
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

# ln 2 as the nearest number and what that lacks.
_LN2_32 = (0.6931471824645996, -1.904654299957768e-09)
_LN2_64 = (0.6931471805599453, 2.3190468138462996e-17)


class Format:
    """What the bits of a floating type mean."""

    def __init__(self, floating: dtype, integer: dtype, mantissa: int, bias: int) -> None:
        self.floating = floating
        self.integer = integer
        self.mantissa = mantissa
        self.bias = bias
        # Adding it leaves a number's nearest integer in the lowest bits of the sum.
        self.shifter = 1.5 * 2.0**mantissa
        self.smallest_normal = 2.0 ** (1 - bias)


SINGLE = Format(types.float32, types.int32, 23, 127)
DOUBLE = Format(types.float64, types.int64, 52, 1023)


def format_of(x: Value) -> Format:
    assert x.dtype in (types.float32, types.float64), f"no mathematical functions of {x.dtype}"
    return SINGLE if x.dtype is types.float32 else DOUBLE


def is_single(x: Value) -> bool:
    return format_of(x) is SINGLE


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's rule; the constant term comes first."""
    result = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = fma(result, x, c)
    return result


def clamp(x: Value, low: float, high: float) -> Value:
    """``x`` limited to ``[low, high]``; NaN stays."""
    x = where(x > high, high, x)
    return where(x < low, low, x)


def nearest_integer(x: Value, scale: float) -> tuple[Value, Value]:
    """``x * scale`` rounded, as a float and as an integer of the same size.

    The result must be smaller than half the mantissa holds: 2**21 or 2**50.
    """
    form = format_of(x)
    shifted = fma(x, scale, form.shifter)
    bits = shifted.bitcast(form.integer) - shifted.like(form.shifter).bitcast(form.integer)
    return shifted - form.shifter, bits


def power_of_two(n: Value) -> Value:
    """``2.0**n`` for integers within the exponents of normal numbers."""
    form = SINGLE if n.dtype is types.int32 else DOUBLE
    return ((n + form.bias) << form.mantissa).bitcast(form.floating)


def scale(x: Value, n: Value) -> Value:
    """``x * 2.0**n`` rounded once, for ``|n|`` up to twice the range of exponents."""
    half = n >> 1
    return x * power_of_two(half) * power_of_two(n - half)


# -- exponentials --------------------------------------------------------------------------------


def _reduce_by_ln2(x: Value) -> tuple[Value, Value]:
    """``x = n ln 2 + r`` with ``|r| <= ln(2) / 2``: ``n`` as integer, and ``r``."""
    n, integer = nearest_integer(x, 1.4426950408889634)
    high, low = _LN2_32 if is_single(x) else _LN2_64
    return integer, fma(n, -low, fma(n, -high, x))


def exp_scaled(x: Value, shift: int = 0) -> Value:
    """``exp(x) * 2**shift`` without overflow on the way."""
    short = is_single(x)
    x = clamp(x, -105.0, 90.0) if short else clamp(x, -746.0, 711.0)
    n, r = _reduce_by_ln2(x)
    tail = polynomial(r, tables.EXP_32 if short else tables.EXP_64)
    return scale(fma(r * r, tail, r) + 1.0, n + shift if shift else n)


def exp(x: Value) -> Value:
    """``e**x``; 0.9 ULP in float32, 1.0 in float64."""
    return exp_scaled(x)


def exp2(x: Value) -> Value:
    """``2**x``; 0.8 ULP in float32, 0.8 in float64."""
    short = is_single(x)
    x = clamp(x, -151.0, 129.0) if short else clamp(x, -1076.0, 1025.0)
    n, integer = nearest_integer(x, 1.0)
    r = x - n
    tail = polynomial(r, tables.EXP2_32 if short else tables.EXP2_64)
    return scale(fma(r, tail, 1.0), integer)


def expm1(x: Value) -> Value:
    """``e**x - 1``, exact near zero; 1.1 ULP in float32, 1.7 in float64."""
    short = is_single(x)
    bounded = clamp(x, -40.0, 89.0) if short else clamp(x, -80.0, 710.0)
    n, r = _reduce_by_ln2(bounded)
    square = r * r
    tail = polynomial(r, tables.EXPM1_32 if short else tables.EXPM1_64)
    minus_one = fma(square, fma(r, tail, 0.5), r)
    # 2**n itself would overflow before the result does.
    half_power = power_of_two(n - 1)
    result = fma(half_power, minus_one, half_power - 0.5) * 2.0
    # There the doubling would lose the last bit of numbers below the normal ones.
    return where(k.absolute(x) < 1e-20, x, result)


def sigmoid(x: Value) -> Value:
    """``1 / (1 + exp(-x))``; 2.1 ULP in float32, 2.0 in float64."""
    return 1.0 / (exp(-x) + 1.0)


def tanh(x: Value) -> Value:
    """The hyperbolic tangent; 2.1 ULP in float32, 2.1 in float64."""
    # Beyond 20 the result is 1 in either type.
    grown = expm1(clamp(k.absolute(x), 0.0, 20.0) * 2.0)
    return k.copysign(grown / (grown + 2.0), x)


# -- logarithms ----------------------------------------------------------------------------------


def split_exponent(x: Value) -> tuple[Value, Value]:
    """``x = m * 2**e`` for finite ``x > 0``: ``m`` in ``[sqrt(1/2), sqrt(2))``, ``e`` as float."""
    form = format_of(x)
    tiny = x < form.smallest_normal
    x = where(tiny, x * 2.0**form.mantissa, x)
    bits = x.bitcast(form.integer)
    root = x.like(math.sqrt(0.5)).bitcast(form.integer)
    exponent = (bits - root) >> form.mantissa
    mantissa = (bits - (exponent << form.mantissa)).bitcast(form.floating)
    # The integer in the low bits of the shifter, instead of a conversion that vectors may not have.
    shifted = (exponent + x.like(form.shifter).bitcast(form.integer)).bitcast(form.floating)
    e = shifted - form.shifter
    return mantissa, where(tiny, e - float(form.mantissa), e)


def _log_of_one_plus(f: Value) -> tuple[Value, Value]:
    """``log(1 + f) = f + tail`` for ``1 + f`` in ``[sqrt(1/2), sqrt(2))``: ``f`` and ``tail``."""
    if is_single(f):
        return f, (f * f) * fma(f, polynomial(f, tables.LOG_32), -0.5)
    s = f / (f + 2.0)
    z = s * s
    half_square = (f * 0.5) * f
    return f, s * fma(z, polynomial(z, tables.LOG_64), half_square) - half_square


def log_special(x: Value, result: Value) -> Value:
    """A logarithm's ``result`` corrected for ``x`` that is not a positive finite number."""
    result = where(x == k.INFINITY, x, result)
    result = where(x == 0.0, -k.INFINITY, result)
    return where(x >= 0.0, result, k.NAN)


def log(x: Value) -> Value:
    """The natural logarithm; 0.8 ULP in float32, 0.8 in float64."""
    mantissa, e = split_exponent(x)
    f, tail = _log_of_one_plus(mantissa - 1.0)
    high, low = _LN2_32 if is_single(x) else _LN2_64
    return log_special(x, fma(e, high, f + fma(e, low, tail)))


def log2(x: Value) -> Value:
    """The logarithm to base 2; exact for powers of 2; 0.9 ULP in float32, 0.9 in float64."""
    mantissa, e = split_exponent(x)
    f, tail = _log_of_one_plus(mantissa - 1.0)
    if is_single(x):
        high, low = 1.4426950216293335, 1.9259629911266174e-08
    else:
        high, low = 1.4426950408889634, 2.0355273740931033e-17
    return log_special(x, e + fma(f, high, fma(tail, high, (f + tail) * low)))


def log10(x: Value) -> Value:
    """The logarithm to base 10; 0.9 ULP in float32, 0.9 in float64."""
    mantissa, e = split_exponent(x)
    f, tail = _log_of_one_plus(mantissa - 1.0)
    if is_single(x):
        high, low, two, two_low = _LOG10_32
    else:
        high, low, two, two_low = _LOG10_64
    small = fma(tail, high, fma(f + tail, low, e * two_low))
    return log_special(x, fma(e, two, fma(f, high, small)))


# 1 / ln 10 and log10(2), each as the nearest number and what that lacks.
_LOG10_32 = (
    0.4342944920063019,
    -1.0103050052231683e-08,
    0.3010300099849701,
    -1.4320988897559699e-08,
)
_LOG10_64 = (0.4342944819032518, 1.098319650216765e-17, 0.3010299956639812, -2.8037281277851704e-18)


def log1p(x: Value) -> Value:
    """``log(1 + x)``, exact near zero; 1.4 ULP in float32, 1.4 in float64."""
    total = x + 1.0
    lost = where(x > 1.0, 1.0 - (total - x), x - (total - 1.0))
    result = log(total) + where(total < k.INFINITY, lost / total, 0.0)
    return where((total == 1.0) | (total == 0.0), where(total == 0.0, -k.INFINITY, x), result)


def log_of_sum(
    a: Value,
    b: Value,
    log1p: Callable[[Value], Value] = log1p,
    exp: Callable[[Value], Value] = exp,
) -> Value:
    """``log(exp(a) + exp(b))`` without overflow, to the base of the two functions."""
    larger = k.maximum(a, b)
    total = larger + log1p(exp(-k.absolute(a - b)))
    return where((a == b) & (k.absolute(a) == k.INFINITY), a, total)
