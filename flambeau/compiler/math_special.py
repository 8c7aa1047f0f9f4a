"""The error function and the gamma function, their relatives and inverses, as kernel code.

The errors stated are the largest found by tests/compiler/test_math.py.
"""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.compiler import math_tables as tables
from flambeau.compiler.kernel import Value, fma, where
from flambeau.compiler.math_exponential import exp, is_single, log, polynomial
from flambeau.compiler.math_trigonometric import in_double

_PI = 3.141592653589793
_TWO_OVER_ROOT_PI = 1.1283791670955126


# -- the error function --------------------------------------------------------------------------


def erf(x: Value) -> Value:
    """The error function; 1.0 ULP in float32, 1.4 in float64."""
    return _erf_single(x) if is_single(x) else _erf_double(x)


def _erf_single(x: Value) -> Value:
    magnitude = k.absolute(x)
    z = x * x
    near = fma(x, polynomial(z, tables.ERF_32), x)
    bounded = where(magnitude > 4.0, 4.0, magnitude)
    far = 1.0 - exp(polynomial(bounded, tables.ERF_TAIL_32))
    result = where(magnitude < 0.845, near, k.copysign(far, x))
    return where(x != x, x, result)


def _erf_near(x: Value) -> Value:
    """For ``abs(x) < 0.66`` in float64."""
    return fma(x, polynomial(x * x, tables.ERF_64), x)


def _erfc_positive(x: Value) -> Value:
    """``erfc(x)`` for float64 ``x >= 0.64``."""
    x = where(x > 28.0, 28.0, x)
    t = (x - 4.0) / (x + 4.0)
    square = x * x
    lost = fma(x, x, -square)
    decay = exp(-square)
    decay = fma(decay, -lost, decay)
    return decay * (polynomial(t, tables.ERFC_64) / fma(x, 2.0, 1.0))


def _erf_double(x: Value) -> Value:
    magnitude = k.absolute(x)
    far = k.copysign(1.0 - _erfc_positive(magnitude), x)
    return where(magnitude < 0.65, _erf_near(x), far)


@in_double
def erfc(x: Value) -> Value:
    """``1 - erf(x)`` without cancellation; 0.5 ULP in float32, 3.0 in float64."""
    magnitude = k.absolute(x)
    tail = _erfc_positive(magnitude)
    far = where(x < 0.0, 2.0 - tail, tail)
    return where(magnitude < 0.65, 1.0 - _erf_near(x), far)


# The asymptotic series of exp(x**2) erfc(x) sqrt(pi) x by 1 / (2 x**2).
_ERFCX_SERIES = (1.0, -1.0, 3.0, -15.0, 105.0, -945.0, 10395.0)


@in_double
def erfcx(x: Value) -> Value:
    """``exp(x**2) * erfc(x)`` without overflow."""
    positive = where(x > 0.64, x, 0.64)
    t = (positive - 4.0) / (positive + 4.0)
    far = polynomial(t, tables.ERFC_64) / fma(positive, 2.0, 1.0)
    inverse = 1.0 / positive
    asymptotic = inverse * polynomial(inverse * inverse * 0.5, _ERFCX_SERIES)
    far = where(x > 28.0, asymptotic * (_TWO_OVER_ROOT_PI * 0.5), far)
    near = exp(x * x) * erfc(where(x > 0.64, 0.0, x))
    return where(x > 0.64, far, near)


@in_double
def erfinv(x: Value) -> Value:
    """The inverse of the error function; infinite at -1 and 1, NaN beyond.

    0.5 ULP in float32, 1.5 in float64.
    """
    magnitude = k.absolute(x)
    below_one = 1.0 - magnitude
    w = -log(below_one * (magnitude + 1.0))
    centre = polynomial(w - 2.5, tables.ERFINV_CENTRE)
    bounded = where(w > 37.0, 37.0, w)
    tail = polynomial(k.sqrt(bounded) - 4.0, tables.ERFINV_TAIL)
    y = where(w < 5.0, centre, tail) * magnitude
    near = y < 0.65
    error = where(near, _erf_near(y) - magnitude, below_one - _erfc_positive(y))
    # One step of Halley's method triples the number of right digits.
    step = error * exp(y * y) * (1.0 / _TWO_OVER_ROOT_PI)
    y = y - step / fma(y, step, 1.0)
    y = where(magnitude == 1.0, k.INFINITY, y)
    return where(x == 0.0, x, k.copysign(y, x))


# -- the gamma function --------------------------------------------------------------------------


def _stirling(x: Value) -> Value:
    """``lgamma(x)`` for ``x >= 8``."""
    inverse = 1.0 / x
    correction = inverse * polynomial(inverse * inverse, tables.STIRLING)
    result = fma(x - 0.5, log(x) - 1.0, correction + (0.9189385332046728 - 0.5))
    return where(x > 1e306, _large(x), result)


def _large(x: Value) -> Value:
    return where(x > 2.55e305, k.INFINITY, x * (log(x) - 1.0))


def _lgamma_positive(x: Value) -> Value:
    """For ``x > 0``: shifted to ``[1.5, 2.5]`` if it is less than 8."""
    shifted = x
    factor = x.like(1.0)
    for _ in range(6):
        above = shifted > 2.5
        shifted = where(above, shifted - 1.0, shifted)
        factor = where(above, factor * shifted, factor)
    divisor = x.like(1.0)
    for _ in range(2):
        below = shifted < 1.5
        divisor = where(below, divisor * shifted, divisor)
        shifted = where(below, shifted + 1.0, shifted)
    up = x < 1.5
    # shifted - 2, without the bits that were lost on the way up.
    t = where(up, where(x < 0.5, x, x - 1.0), shifted - 2.0)
    correction = log(where(up, divisor, factor))
    near_two = t * polynomial(t, tables.LGAMMA_TWO)
    small = near_two + where(up, -correction, correction)
    return where(x < 8.0, small, _stirling(x))


def _sine_of_pi(x: Value) -> Value:
    """``abs(sin(pi x))``."""
    rest = k.absolute(x - k.roundeven(x))
    steep = rest > 0.25
    angle = where(steep, 0.5 - rest, rest) * _PI
    z = angle * angle
    sine = fma(angle * z, polynomial(z, tables.SIN_64), angle)
    cosine = fma(z, fma(z, polynomial(z, tables.COS_64), -0.5), 1.0)
    return where(steep, cosine, sine)


@k.rare
def _lgamma_reflected(x: Value) -> Value:
    positive = -x
    sine = _sine_of_pi(x)
    result = log(_PI / (positive * sine)) - _lgamma_positive(positive)
    tiny = positive < 1e-300
    result = where(tiny, -log(positive), result)
    return where((sine == 0.0) | (x == -k.INFINITY), k.INFINITY, result)


@in_double
def lgamma(x: Value) -> Value:
    """The logarithm of the absolute value of the gamma function; infinite at its poles.

    0.5 ULP in float32, 3.4 in float64; below zero the error is relative to the terms that are
    added, not to the result.
    """
    usual = _lgamma_positive(where(x > 0.0, x, 1.0))
    usual = where(x == 0.0, k.INFINITY, where(x != x, x, usual))
    return _lgamma_reflected(x < 0.0, usual, x)


def _digamma_positive(x: Value) -> Value:
    """For ``x > 0``: shifted to 8 and beyond, then the asymptotic series."""
    numerator = x.like(0.0)
    denominator = x.like(1.0)
    shifted = x
    for _ in range(8):
        below = shifted < 8.0
        numerator = where(below, fma(numerator, shifted, denominator), numerator)
        denominator = where(below, denominator * shifted, denominator)
        shifted = where(below, shifted + 1.0, shifted)
    inverse = 1.0 / shifted
    z = inverse * inverse
    tail = fma(z, polynomial(z, tables.DIGAMMA), inverse * 0.5)
    usual = (log(shifted) - tail) - numerator / denominator
    return where(x < 3.0, _digamma_small(x), usual)


# Where digamma is zero: the nearest number and what it lacks.
_DIGAMMA_ROOT = (1.4616321449683622, 9.549995429965697e-17)


def _digamma_small(x: Value) -> Value:
    """For ``0 < x < 3``: near the zero, moved there by ``digamma(x + 1) = digamma(x) + 1 / x``."""
    low, high = x < 1.0, x >= 2.0
    moved = where(high, x - 1.0, x)
    zero = where(low, x.like(_DIGAMMA_ROOT[0] - 1.0), _DIGAMMA_ROOT[0])
    distance = (moved - zero) - _DIGAMMA_ROOT[1]
    near = distance * polynomial(distance, tables.DIGAMMA_ROOT)
    step = 1.0 / moved
    return where(low, near - step, where(high, near + step, near))


@k.rare
def _digamma_reflected(x: Value) -> Value:
    rest = x - k.roundeven(x)
    sine = _sine_of_pi(x)
    cosine = _sine_of_pi(0.5 - k.absolute(rest))
    cotangent = k.copysign(cosine / sine, rest)
    result = _digamma_positive(1.0 - x) - cotangent * _PI
    return where(k.floor(x) == x, k.NAN, result)


@in_double
def digamma(x: Value) -> Value:
    """The derivative of ``lgamma``; at 0 infinite, at other poles NaN.

    0.5 ULP in float32, 4.0 in float64, for positive numbers.
    """
    usual = _digamma_positive(where(x > 0.0, x, 1.0))
    usual = where(x == k.INFINITY, x, usual)
    usual = where(x == 0.0, k.copysign(x.like(k.INFINITY), -x), where(x != x, x, usual))
    return _digamma_reflected(x < 0.0, usual, x)


# -- modified Bessel functions ---------------------------------------------------------------------


def _bessel(x: Value, near: tuple[float, ...], far: tuple[float, ...]) -> Value:
    """By ``x / 4 - 1`` up to 8, by ``16 / x - 1`` beyond."""
    small = polynomial(x * 0.25 - 1.0, near)
    bounded = where(x > 8.0, x, 8.0)
    large = polynomial(16.0 / bounded - 1.0, far) / k.sqrt(bounded)
    return where(x <= 8.0, small, large)


@in_double
def i0e(x: Value) -> Value:
    """``exp(-abs(x)) * I0(x)``, the modified Bessel function of order 0."""
    magnitude = k.absolute(x)
    result = _bessel(magnitude, tables.I0_NEAR, tables.I0_FAR)
    return where(magnitude == k.INFINITY, 0.0, where(x != x, x, result))


@in_double
def i1e(x: Value) -> Value:
    """``exp(-abs(x)) * I1(x)``, the modified Bessel function of order 1."""
    magnitude = k.absolute(x)
    small = magnitude * polynomial(magnitude * 0.25 - 1.0, tables.I1_NEAR)
    large = _bessel(magnitude, tables.I1_NEAR, tables.I1_FAR)
    result = where(magnitude <= 8.0, small, large)
    result = where(magnitude == k.INFINITY, 0.0, result)
    return where(x != x, x, k.copysign(result, x))


def zeta(s: int, x: Value) -> Value:
    """The Hurwitz zeta function, the sum of ``(x + n)**-s``, for known ``s >= 2`` and ``x > 0``."""
    return in_double(lambda value: _zeta(s, value))(x)


def _zeta(s: int, x: Value) -> Value:
    total = x.like(0.0)
    for n in range(_ZETA_TERMS):
        total = total + 1.0 / _whole_power(x + float(n), s)
    end = x + float(_ZETA_TERMS)
    power = 1.0 / _whole_power(end, s)
    total = total + end * power * (1.0 / (s - 1)) + power * 0.5
    # Euler-Maclaurin: B(2j) / (2j)! * s (s + 1) … (s + 2j - 2) * end**(-s - 2j + 1).
    inverse = 1.0 / end
    term = power * inverse
    rising = float(s)
    for j, coefficient in enumerate(_EULER_MACLAURIN):
        total = total + term * (coefficient * rising)
        term = term * inverse * inverse
        rising *= (s + 2 * j + 1) * (s + 2 * j + 2)
    return total


_ZETA_TERMS = 9
# B(2j) / (2j)! for j = 1, 2, …
_EULER_MACLAURIN = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000,
    1 / 74724249600, -3617 / 10670622842880000,
)  # fmt: skip


def _whole_power(x: Value, exponent: int) -> Value:
    result: Value | None = None
    while exponent:
        if exponent & 1:
            result = x if result is None else result * x
        x = x * x
        exponent >>= 1
    assert result is not None
    return result
