"""Remainders and rounded quotients as kernel code, exact for every pair of finite operands."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.compiler.kernel import Value, where
from flambeau.compiler.math_exponential import format_of, scale
from flambeau.core import dtype as types


def _is_float(x: Value) -> bool:
    return x.dtype.category == "floating"


def _integer_remainder(x: Value, y: Value) -> Value:
    return x.tracer.add("rem", (x, y), x.dtype)


def fmod(x: Value, y: Value) -> Value:
    """C's remainder: ``x - y * trunc(x / y)``, exact, with the sign of ``x``.

    NaN for a zero divisor; integers give 0 there.
    """
    if not _is_float(x):
        return _integer_remainder(x, y)
    magnitude, divisor = k.absolute(x), k.absolute(y)
    usual = (divisor > 0.0) & (divisor < k.INFINITY) & (magnitude < k.INFINITY)
    steps = where(usual, _steps(magnitude, divisor), 0)
    left = _last_step(_shorten(steps, magnitude, divisor), divisor)
    left = where((divisor == k.INFINITY) & (magnitude < k.INFINITY), magnitude, left)
    return k.copysign(left, x)


def _exponent(x: Value) -> Value:
    """The exponent of a positive number, as int64."""
    form = format_of(x)
    tiny = x < form.smallest_normal
    bits = where(tiny, x * 2.0**form.mantissa, x).bitcast(form.integer).cast(types.int64)
    exponent = bits >> form.mantissa
    return where(tiny, exponent - form.mantissa, exponent)


def _excess(x: Value, y: Value) -> Value:
    """By how many bits the quotient exceeds what one step divides exactly."""
    return _exponent(x) - _exponent(y) - (format_of(x).mantissa - 2)


def _steps(x: Value, y: Value) -> Value:
    """How many times `_shorten` is needed before the last step."""
    excess = _excess(x, y)
    bits = format_of(x).mantissa - 4
    return where(excess > 0, excess / bits + 1, 0)


@k.repeated
def _shorten(x: Value, y: Value) -> Value:
    """``x`` less a multiple of ``y``, shorter by about the bits of a mantissa."""
    form = format_of(x)
    excess = _excess(x, y)
    excess = where((excess > 0) & (x > 0.0), excess, 0)
    excess = where(excess > 2 * form.bias - 8, 2 * form.bias - 8, excess)
    return _last_step(x, scale(y, excess.cast(form.integer)))


def _last_step(x: Value, y: Value) -> Value:
    """``x mod y`` for ``0 <= x / y < 2**mantissa``.

    The quotient is rounded, so its whole part is at most one too large; the remainder is exact.
    """
    quotient = k.trunc(x / y)
    left = k.fma(-quotient, y, x)
    return where(left < 0.0, left + y, left)


@k.repeated
def _euclid(a: Value, b: Value) -> tuple[Value, Value]:
    """One step of Euclid's algorithm; a zero ``b`` stays."""
    done = b == 0
    return where(done, a, b), where(done, b, _integer_remainder(a, b))


def gcd(x: Value, y: Value) -> Value:
    """The greatest common divisor of integers, not negative."""
    # Fibonacci numbers need the most steps: about 1.44 per bit.
    most = (8 * x.dtype.itemsize * 3) // 2
    times = where(y == 0, y.cast(types.int64), y.cast(types.int64) * 0 + most)
    result = _euclid(times, x, y)
    return k.absolute(result)


def remainder(x: Value, y: Value) -> Value:
    """Python's remainder: it has the sign of ``y``."""
    left = fmod(x, y)
    wrong_side = (left != 0) & ((y < 0) ^ (left < 0))
    return where(wrong_side, left + y, left)


def floor_divide(x: Value, y: Value) -> Value:
    """Python's floor division; a zero divisor gives ``x / y`` (0 for integers)."""
    if not _is_float(x):
        return _integer_floor_divide(x, y)
    left = fmod(x, y)
    quotient = (x - left) / y
    quotient = where((left != 0.0) & ((y < 0.0) ^ (left < 0.0)), quotient - 1.0, quotient)
    whole = k.floor(quotient)
    whole = where(quotient - whole > 0.5, whole + 1.0, whole)
    direct = x / y
    whole = where(quotient == 0.0, k.copysign(x.like(0.0), direct), whole)
    return where(y == 0.0, direct, whole)


def _integer_floor_divide(x: Value, y: Value) -> Value:
    quotient = x / y
    if not x.dtype.is_signed:
        return quotient
    left = _integer_remainder(x, y)
    wrong_side = (left != 0) & ((y < 0) ^ (left < 0))
    return where(wrong_side, quotient - 1, quotient)
