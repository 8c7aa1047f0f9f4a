"""Angles reduced by multiples of pi / 2, for arguments of any size."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.compiler.kernel import Value, fma
from flambeau.compiler.math_exponential import nearest_integer
from flambeau.core import dtype as types

Pair = tuple[Value, Value]

# pi / 2 as a sum of three float64 numbers.
_HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)
_TWO_OVER_PI = 0.6366197723675814

# Beyond it the bits of pi above no longer suffice.
LARGE = 2.0**40

# The first 1216 binary digits of 2 / pi.
_TWO_OVER_PI_DIGITS = (
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424d"
    "d2e006492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639"
    "835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f46"
    "3f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6bab"
)


def two_sum(a: Value, b: Value) -> Pair:
    """``a + b`` and its rounding error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def reduce_angle(x: Value) -> tuple[Value, Value, Value]:
    """``x = quadrant * pi / 2 + high + low`` for float64 ``abs(x) < LARGE``, high within pi / 4.

    The quadrant is an int64 of which the two lowest bits count.
    """
    n, quadrant = nearest_integer(x, _TWO_OVER_PI)
    first = fma(n, -_HALF_PI[0], x)
    product = n * _HALF_PI[1]
    product_error = fma(n, _HALF_PI[1], -product)
    high, error = two_sum(first, -product)
    low = fma(n, -_HALF_PI[2], error - product_error)
    total = high + low
    return total, low - (total - high), quadrant


def reduce_single(x: Value) -> tuple[Value, Value]:
    """The same for a float32: the rest as float32, and the quadrant."""
    wide = x.cast(types.float64)
    n, quadrant = nearest_integer(wide, _TWO_OVER_PI)
    rest = fma(n, -_HALF_PI[1], fma(n, -_HALF_PI[0], wide))
    return rest.cast(types.float32), quadrant


# -- huge angles: exact multiplication by the digits of 2 / pi -----------------------------------

_MASK = 0xFFFFFFFF


def _logical_shift(x: Value, bits: int) -> Value:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _digits_at(position: Value) -> list[Value]:
    """192 digits of 2 / pi from ``position`` on, as six numbers of 32 bits, the last digits first.

    Position 0 lies 14 digits before the first.
    """
    digits = int(_TWO_OVER_PI_DIGITS, 16)
    total = 1216 + 32
    padded = digits << (total - 1216 - 14)
    limbs = [position.like((padded >> (total - 32 * (j + 1))) & _MASK) for j in range(38)]
    index = position >> 5
    needed = 7 + 31
    for bit in (4, 3, 2, 1, 0):
        step = 1 << bit
        needed -= step
        skip = (index & step) != 0
        limbs = [k.where(skip, limbs[j + step], limbs[j]) for j in range(needed)]
    shift = position & 31
    pairs = [(limbs[j] << 32) | limbs[j + 1] for j in range(6)]
    return [_logical_shift(pair << shift, 32) for pair in reversed(pairs)]


def _product(mantissa: Value, digits: list[Value]) -> list[Value]:
    """The lowest 192 bits of ``mantissa * digits``, in pieces of 32 bits, the lowest first."""
    low, high = mantissa & _MASK, mantissa >> 32
    pieces: list[Value] = []
    carry = mantissa.like(0)
    for digit in digits:
        part = digit * low + carry
        pieces.append(part & _MASK)
        carry = _logical_shift(part, 32)
    carry = mantissa.like(0)
    for j in range(1, 6):
        part = digits[j - 1] * high + pieces[j] + carry
        pieces[j] = part & _MASK
        carry = _logical_shift(part, 32)
    return pieces


def reduce_huge_angle(x: Value) -> tuple[Value, Value, Value]:
    """`reduce_angle` for finite float64 ``x >= LARGE``, by exact integer arithmetic."""
    bits = x.bitcast(types.int64)
    mantissa = (bits & ((1 << 52) - 1)) | (1 << 52)
    # x = mantissa * 2**(position - 12): the product's digits before those do not change the angle.
    position = (bits >> 52) - (1075 - 12)
    p = _product(mantissa, _digits_at(position))
    # Of the 192 bits two are the quadrant; the fraction after them is taken to [-1/2, 1/2).
    fraction = (((p[5] << 32) | p[4]) << 2) | (p[3] >> 30)
    rest = (((p[3] << 32) | p[2]) << 2) | (p[1] >> 30)
    quadrant = (p[5] >> 30) + k.where(fraction < 0, fraction.like(1), 0)
    pieces = (fraction >> 32, fraction & _MASK, _logical_shift(rest, 32), rest & _MASK)
    a, b, c, d = (
        piece.cast(types.float64) * 2.0 ** (-32 * (j + 1)) for j, piece in enumerate(pieces)
    )
    high, error = two_sum(a, b)
    high, error_2 = two_sum(high, c)
    high, low = two_sum(high, (error + error_2) + d)
    angle = high * _HALF_PI[0]
    correction = fma(high, _HALF_PI[0], -angle)
    return angle, fma(high, _HALF_PI[1], fma(low, _HALF_PI[0], correction)), quadrant
