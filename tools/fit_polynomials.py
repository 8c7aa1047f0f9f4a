"""Fits the polynomials of flambeau/compiler/math_*.py and prints them as tables.

Each is the interpolation of a function at the Chebyshev points of its interval, worked out in 80
digits: within a small factor of the best polynomial of that degree.  Run it with mpmath installed:

    python tools/fit_polynomials.py [name ...]
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any

from mpmath import mp, mpf

mp.dps = 80

Function = Callable[[Any], Any]


def fit(function: Function, low: Any, high: Any, degree: int) -> list[Any]:
    """Coefficients, constant first, of the interpolating polynomial on ``[low, high]``."""
    low, high = mpf(low), mpf(high)
    count = degree + 1
    middle, half = (low + high) / 2, (high - low) / 2
    points = [middle + half * mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]
    differences = [function(p) for p in points]
    for order in range(1, count):
        for k in range(count - 1, order - 1, -1):
            differences[k] = (differences[k] - differences[k - 1]) / (points[k] - points[k - order])
    coefficients = [mpf(0)] * count
    for k in range(count - 1, -1, -1):
        shifted = [mpf(0), *coefficients[:-1]]
        coefficients = [s - points[k] * c for s, c in zip(shifted, coefficients, strict=True)]
        coefficients[0] += differences[k]
    return coefficients


def single(value: Any) -> float:
    """The nearest float32."""
    return struct.unpack("f", struct.pack("f", float(value)))[0]


def worst(
    function: Function, coefficients: list[float], low: Any, high: Any, weight: Function
) -> Any:
    """The greatest weighted error over the interval."""
    error = mpf(0)
    for k in range(2001):
        x = mpf(low) + (mpf(high) - mpf(low)) * k / 2000
        found = mp.polyval([mpf(c) for c in reversed(coefficients)], x)
        error = max(error, abs((found - function(x)) * weight(x)))
    return error


def away_from_zero(function: Function, at_zero: Any) -> Function:
    """``function`` continued to 0, where its formula divides by zero."""
    return lambda x: mpf(at_zero) if abs(x) < mpf(10) ** -25 else function(x)


def of_root(function: Function) -> Function:
    """The function of ``sqrt(z)``: for even functions written as polynomials of the square."""
    return lambda z: function(mp.sqrt(abs(z)))


HALF_LOG = mp.log(2) / 2 * mpf("1.001")
ROOT = mp.sqrt(2)
SLOPE = ((ROOT - 1) / (ROOT + 1)) ** 2 * mpf("1.001")


def _log_fifth(z: Any) -> Any:
    """The series of ``log((1 + s) / (1 - s)) / (2 s)`` from its third term on, by ``z**2``."""
    s = mp.sqrt(abs(z))
    return (mp.atanh(s) / s - 1 - z / 3) / z**2


def _log_slope(z: Any) -> Any:
    """``(log((1 + s) / (1 - s)) - 2 s) / (s z)`` for ``z = s**2``."""
    s = mp.sqrt(abs(z))
    return (mp.log((1 + s) / (1 - s)) / s - 2) / z


# name: (function, low, high, degree, float32?, weight of an error in the result)
TABLES: dict[str, tuple[Function, Any, Any, int, bool, Function]] = {
    "EXP_32": (
        away_from_zero(lambda r: (mp.exp(r) - 1 - r) / r**2, mpf(1) / 2),
        -HALF_LOG, HALF_LOG, 4, True, lambda r: r**2,
    ),
    "EXP_64": (
        away_from_zero(lambda r: (mp.exp(r) - 1 - r) / r**2, mpf(1) / 2),
        -HALF_LOG, HALF_LOG, 9, False, lambda r: r**2,
    ),
    "EXP2_32": (
        away_from_zero(lambda r: (2**r - 1) / r, mp.log(2)),
        -mpf("0.5001"), mpf("0.5001"), 5, True, lambda r: r,
    ),
    "EXP2_64": (
        away_from_zero(lambda r: (2**r - 1) / r, mp.log(2)),
        -mpf("0.5001"), mpf("0.5001"), 11, False, lambda r: r,
    ),
    "EXPM1_32": (
        away_from_zero(lambda r: (mp.exp(r) - 1 - r - r**2 / 2) / r**3, mpf(1) / 6),
        -HALF_LOG, HALF_LOG, 4, True, lambda r: r**2,
    ),
    "EXPM1_64": (
        away_from_zero(lambda r: (mp.exp(r) - 1 - r - r**2 / 2) / r**3, mpf(1) / 6),
        -HALF_LOG, HALF_LOG, 9, False, lambda r: r**2,
    ),
    "LOG_32": (
        away_from_zero(lambda f: (mp.log(1 + f) - f + f**2 / 2) / f**3, mpf(1) / 3),
        ROOT / 2 - 1, ROOT - 1, 8, True, lambda f: f**2,
    ),
    "LOG_64": (
        away_from_zero(_log_slope, mpf(2) / 3), mpf(10) ** -30, SLOPE, 6, False, lambda z: z,
    ),
    "LOG_FIFTH": (
        away_from_zero(_log_fifth, mpf(1) / 5), mpf(10) ** -20, SLOPE, 8, False, lambda z: z**2,
    ),
}  # fmt: skip


def main(names: list[str]) -> None:
    for name in names or TABLES:
        function, low, high, degree, short, weight = TABLES[name]
        coefficients = [single(c) if short else float(c) for c in fit(function, low, high, degree)]
        error = worst(function, coefficients, low, high, weight)
        print(f"# Error 2**{float(mp.log(error, 2)):.1f}")
        print(f"{name} = (")
        for c in coefficients:
            print(f"    {c!r},")
        print(")")


if __name__ == "__main__":
    main(sys.argv[1:])
