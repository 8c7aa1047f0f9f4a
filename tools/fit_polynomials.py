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


QUARTER = mp.pi / 4 * mpf("1.0001")
TANGENT = (ROOT - 1) ** 2 * mpf("1.001")


def _sine(z: Any) -> Any:
    r = mp.sqrt(z)
    return (mp.sin(r) / r - 1) / z


def _cosine(z: Any) -> Any:
    return (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2


def _arctangent(z: Any) -> Any:
    t = mp.sqrt(z)
    return (mp.atan(t) / t - 1) / z


def _arcsine(z: Any) -> Any:
    x = mp.sqrt(z)
    return (mp.asin(x) / x - 1) / z


def _erf_slope(z: Any) -> Any:
    """``erf(x) / x`` less its value at zero, by ``z = x**2``; what is left over 2 / sqrt(pi)."""
    x = mp.sqrt(z)
    return mp.erf(x) / x - 1


ERFC_POLE = mpf(4)


def _erfc_place(x: Any) -> Any:
    return (mpf(x) - ERFC_POLE) / (mpf(x) + ERFC_POLE)


def _scaled_erfc(t: Any) -> Any:
    """``(1 + 2 x) exp(x**2) erfc(x)`` where ``t = (x - 4) / (x + 4)``."""
    x = ERFC_POLE * (1 + t) / (1 - t)
    return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)


def _erfinv(x: Any) -> Any:
    """The inverse by Newton's method; mpmath's own is slow in the tail."""
    y = mp.sqrt(-mp.log((1 - x) * (1 + x))) if x > mpf("0.9") else x
    for _ in range(60):
        step = (mp.erf(y) - x) if x < mpf("0.9") else (1 - x) - mp.erfc(y)
        step /= 2 / mp.sqrt(mp.pi) * mp.exp(-y * y)
        y -= step
        if abs(step) < mpf(10) ** -60:
            break
    return y


def _erfinv_centre(v: Any) -> Any:
    """``erfinv(x) / x`` by ``v = w - 2.5``, ``w = -log(1 - x**2)``."""
    x = mp.sqrt(-mp.expm1(-(v + mpf("2.5"))))
    return _erfinv(x) / x


def _erfinv_tail(v: Any) -> Any:
    """``erfinv(x) / x`` by ``v = sqrt(w) - 4``."""
    x = mp.sqrt(-mp.expm1(-((v + 4) ** 2)))
    return _erfinv(x) / x


def _lgamma_two(t: Any) -> Any:
    return mp.loggamma(2 + t) / t


def _stirling(z: Any) -> Any:
    """The correction of Stirling's formula, times x, by ``z = 1 / x**2``."""
    x = 1 / mp.sqrt(z)
    return (mp.loggamma(x) - (x - mpf(1) / 2) * mp.log(x) + x - mp.log(2 * mp.pi) / 2) * x


def _digamma_tail(z: Any) -> Any:
    x = 1 / mp.sqrt(z)
    return (mp.log(x) - 1 / (2 * x) - mp.digamma(x)) / z


DIGAMMA_ROOT = mp.findroot(mp.digamma, mpf("1.4616321449683623"))


def _digamma_root(t: Any) -> Any:
    return mp.digamma(DIGAMMA_ROOT + t) / t


def _bessel(order: int, x: Any) -> Any:
    return mp.exp(-x) * mp.besseli(order, x)


def _bessel_far(order: int) -> Function:
    """``sqrt(x) exp(-x) I(x)`` by ``t = 16 / x - 1``."""
    return lambda t: mp.sqrt(16 / (t + 1)) * _bessel(order, 16 / (t + 1))


TINY = mpf(10) ** -24

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
    "SIN_32": (_sine, TINY, QUARTER**2, 3, True, lambda z: z),
    "SIN_64": (_sine, TINY, QUARTER**2, 6, False, lambda z: z),
    "COS_32": (_cosine, TINY, QUARTER**2, 2, True, lambda z: z**2),
    "COS_64": (_cosine, TINY, QUARTER**2, 6, False, lambda z: z**2),
    "ATAN_32": (_arctangent, TINY, TANGENT, 4, True, lambda z: z),
    "ATAN_64": (_arctangent, TINY, TANGENT, 12, False, lambda z: z),
    "ASIN_32": (_arcsine, TINY, mpf("0.2501"), 5, True, lambda z: z),
    "ASIN_64": (_arcsine, TINY, mpf("0.2501"), 14, False, lambda z: z),
    "ERF_32": (_erf_slope, TINY, mpf("0.85") ** 2, 6, True, lambda z: 1),
    "ERF_64": (_erf_slope, TINY, mpf("0.66") ** 2, 11, False, lambda z: 1),
    "ERF_TAIL_32": (
        lambda x: mp.log(mp.erfc(x)), mpf("0.84"), mpf("4.05"), 8, True, lambda x: mp.erfc(x),
    ),
    "ERFC_64": (_scaled_erfc, _erfc_place("0.64"), _erfc_place(28), 22, False, lambda t: 1),
    "ERFINV_CENTRE": (_erfinv_centre, -mpf("2.4999999"), mpf("2.51"), 9, False, lambda v: 1),
    "ERFINV_TAIL": (_erfinv_tail, mpf("2.2") - 4, mpf("6.1") - 4, 13, False, lambda v: 1),
    "LGAMMA_TWO": (
        away_from_zero(_lgamma_two, 1 - mp.euler), -mpf("0.501"), mpf("0.501"), 20, False,
        lambda t: 1,
    ),
    "STIRLING": (_stirling, TINY, mpf(1) / 64, 7, False, lambda z: mp.sqrt(z)),
    "DIGAMMA": (_digamma_tail, mpf(10) ** -8, mpf(1) / 64, 7, False, lambda z: z),
    "DIGAMMA_ROOT": (
        away_from_zero(_digamma_root, mp.psi(1, DIGAMMA_ROOT)), -mpf("0.462"), mpf("0.539"), 24,
        False, lambda t: 1,
    ),
    "I0_NEAR": (lambda t: _bessel(0, 4 * (t + 1)), -1, 1, 27, False, lambda t: 1),
    "I0_FAR": (_bessel_far(0), -1 + TINY, 1, 22, False, lambda t: 1),
    "I1_NEAR": (
        lambda t: _bessel(1, 4 * (t + 1)) / (4 * (t + 1)), -1 + TINY, 1, 27, False, lambda t: 1,
    ),
    "I1_FAR": (_bessel_far(1), -1 + TINY, 1, 22, False, lambda t: 1),
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
