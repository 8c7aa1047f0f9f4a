"""Powers as kernel code: floating ones with C's special cases, integer ones that wrap."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.compiler import math_tables as tables
from flambeau.compiler.kernel import Value, fma, where
from flambeau.compiler.math_exponential import (
    clamp,
    exp2,
    is_single,
    log2,
    nearest_integer,
    polynomial,
    scale,
    split_exponent,
)
from flambeau.core import dtype as types

Pair = tuple[Value, Value]

_THIRD = (0.3333333333333333, 1.850371707708594e-17)
_TWO_OVER_LN2 = (2.8853900817779268, 4.0710547481862066e-17)


def multiply_pairs(a: Pair, b: Pair) -> Pair:
    """The product of two unevaluated sums, to about 100 bits."""
    high = a[0] * b[0]
    low = fma(a[0], b[0], -high)
    return high, fma(a[0], b[1], fma(a[1], b[0], low))


def normalise(high: Value, low: Value) -> Pair:
    """The same sum with the greater part rounded to nearest; ``|high| >= |low|``."""
    total = high + low
    return total, low - (total - high)


def _log2_pair(x: Value) -> Pair:
    """``log2(x)`` of a finite positive float64 as a sum, to about 66 bits."""
    mantissa, e = split_exponent(x)
    numerator = mantissa - 1.0
    denominator = mantissa + 1.0
    lost = mantissa - (denominator - 1.0)
    s = numerator / denominator
    s_low = fma(-s, lost, fma(-s, denominator, numerator)) / denominator
    z = multiply_pairs((s, s_low), (s, s_low))
    third = x.like(_THIRD[0]), x.like(_THIRD[1])
    cubic = multiply_pairs(z, third)
    rest = z[0] * z[0] * polynomial(z[0], tables.LOG_FIFTH)
    one = normalise(x.like(1.0), cubic[0])
    series = one[0], one[1] + (cubic[1] + rest)
    factor = multiply_pairs((s, s_low), (x.like(_TWO_OVER_LN2[0]), x.like(_TWO_OVER_LN2[1])))
    high, low = multiply_pairs(factor, series)
    total, remainder = normalise(e, high)
    # e is 0 or larger than the rest; where it is 0 the order above is exact as well.
    return total, remainder + low


def _positive_power(x: Value, y: Value) -> Value:
    """``x**y`` for positive finite float64 ``x``."""
    high, low = _log2_pair(x)
    # Beyond these the result is infinite or zero whatever the other factor is.
    y = clamp(y, -1e25, 1e25)
    product = y * high
    rest = fma(y, low, fma(y, high, -product))
    bounded = clamp(product, -1080.0, 1030.0)
    rest = where(bounded == product, rest, 0.0)
    n, integer = nearest_integer(bounded, 1.0)
    r = (bounded - n) + rest
    tail = polynomial(r, tables.EXP2_64)
    return scale(fma(r, tail, 1.0), integer)


def pow(x: Value, y: Value) -> Value:
    """``x**y`` with the special cases of C; 0.5 ULP in float32, 1.0 in float64."""
    if is_single(x):
        return _pow_single(x, y)
    magnitude = k.absolute(x)
    usual = _positive_power(magnitude, y)
    return _power_special(x, y, usual)


def _pow_single(x: Value, y: Value) -> Value:
    """float32 through float64, whose logarithm has bits enough to spare."""
    wide = log2(k.absolute(x).cast(types.float64)) * y.cast(types.float64)
    return _power_special(x, y, exp2(wide).cast(types.float32))


def _power_special(x: Value, y: Value, usual: Value) -> Value:
    """C's rules for signs, zeros, infinities and NaN; ``usual`` is ``abs(x)**y``."""
    magnitude = k.absolute(x)
    grows = (y > 0.0) ^ (magnitude < 1.0)
    extreme = where(grows, usual.like(k.INFINITY), 0.0)
    at_ends = (magnitude == 0.0) | (magnitude == k.INFINITY) | (k.absolute(y) == k.INFINITY)
    result = where(at_ends, extreme, usual)
    whole = k.trunc(y) == y
    halved = y * 0.5
    odd = whole & (k.trunc(halved) != halved)
    negative = k.copysign(x.like(1.0), x) < 0.0
    result = where(negative & odd, -result, result)
    finite_negative = (x < 0.0) & (x != -k.INFINITY)
    result = where(finite_negative & ~whole, k.NAN, result)
    # abs(x) == 1 with an infinite exponent is 1, NaN operands give NaN unless the rule below holds.
    result = where((magnitude == 1.0) & (k.absolute(y) == k.INFINITY), 1.0, result)
    result = where((x != x) | (y != y), k.NAN, result)
    return where((x == 1.0) | (y == 0.0), 1.0, result)


def power_by_squaring(x: Value, exponent: int) -> Value:
    """``x**exponent`` for a known exponent >= 0 by repeated squaring; integers wrap."""
    result: Value | None = None
    square = x
    while exponent:
        if exponent & 1:
            result = square if result is None else result * square
        exponent >>= 1
        if exponent:
            square = square * square
    return x.like(1) if result is None else result


def integer_power(x: Value, y: Value) -> Value:
    """``x**y`` of integers, wrapping; a negative exponent gives the power's whole part."""
    result = x.like(1)
    square = x
    for bit in range(8 * x.dtype.itemsize - (1 if x.dtype.is_signed else 0)):
        taken = (y & (1 << bit)) != 0
        result = where(taken, result * square, result)
        square = square * square
    if not x.dtype.is_signed:
        return result
    odd = (y & 1) != 0
    inverse = where(x == -1, where(odd, x.like(-1), 1), 0)
    inverse = where(x == 1, 1, inverse)
    return where(y < 0, inverse, result)
