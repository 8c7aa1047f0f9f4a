"""The mathematical functions of kernels against mpmath: errors in units in the last place."""

from __future__ import annotations

import math as python_math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from mpmath import mp, mpf

from flambeau.compiler import math
from tests.compiler.kernel_runner import run

KINDS = (np.float32, np.float64)
COUNT = 400


class Case(NamedTuple):
    """A function, its exact values, where it is tried, and the errors allowed in ULP."""

    name: str
    exact: Callable[..., Any]
    points: Callable[[np.random.Generator, type], tuple[np.ndarray, ...]]
    single: float
    double: float


def spread(low: float, high: float, exponents: tuple[float, float] | None = None) -> Any:
    """Points over ``[low, high]``, and of both signs over powers of ten (shortened for float32)."""

    def points(random: np.random.Generator, kind: type) -> tuple[np.ndarray, ...]:
        parts = [random.uniform(low, high, COUNT)]
        if exponents is not None:
            first, last = exponents
            if kind is np.float32:
                first, last = max(first, -44), min(last, 38)
            magnitudes = 10.0 ** random.uniform(first, last, COUNT)
            parts += [magnitudes, -magnitudes]
        with np.errstate(over="ignore"):
            return (np.concatenate(parts).astype(kind),)

    return points


def positive(low: float, high: float, exponents: tuple[float, float]) -> Any:
    def points(random: np.random.Generator, kind: type) -> tuple[np.ndarray, ...]:
        return (np.abs(spread(low, high, exponents)(random, kind)[0]),)

    return points


def angles(random: np.random.Generator, kind: type) -> tuple[np.ndarray, ...]:
    """Of any size, and close to multiples of pi / 2."""
    (wide,) = spread(-100, 100, (-300, 307))(random, kind)
    multiples = np.concatenate([np.arange(1, 100), random.integers(1, 2**45, COUNT)])
    near = np.array([float(mp.pi / 2 * int(n)) for n in multiples]).astype(kind)
    return (np.concatenate([wide, near]),)


def planes(random: np.random.Generator, kind: type) -> tuple[np.ndarray, ...]:
    y = np.concatenate([random.uniform(-3, 3, COUNT), 10.0 ** random.uniform(-30, 30, COUNT)])
    x = np.concatenate([random.uniform(-3, 3, COUNT), -(10.0 ** random.uniform(-30, 30, COUNT))])
    return y.astype(kind), x.astype(kind)


def powers(random: np.random.Generator, kind: type) -> tuple[np.ndarray, ...]:
    top = 90 if kind is np.float32 else 700
    x = [random.uniform(0.5, 2, COUNT), 10.0 ** random.uniform(-30, 30, COUNT)]
    y = [random.uniform(-top, top, COUNT), random.uniform(-3, 3, COUNT)]
    x.append(random.uniform(-9, 9, COUNT))
    y.append(random.integers(-9, 9, COUNT).astype(np.float64))
    return np.concatenate(x).astype(kind), np.concatenate(y).astype(kind)


def near_one(random: np.random.Generator, kind: type) -> tuple[np.ndarray, ...]:
    parts = [random.uniform(-1, 1, 60), 1 - 10.0 ** random.uniform(-15, -1, 40)]
    inside = np.concatenate(parts).astype(kind)
    return (inside[np.abs(inside) < 1],)


def base(b: int) -> Callable[[Any], Any]:
    return lambda x: mp.log(x) / mp.log(b)


ALL = (-320.0, 308.0)
CASES = (
    Case("exp", mp.exp, spread(-100, 88, (-40, 2.8)), 1.01, 1.01),
    Case("exp2", lambda x: mpf(2) ** x, spread(-140, 127, (-40, 3)), 1.01, 1.01),
    Case("expm1", mp.expm1, spread(-3, 3, (-40, 2.8)), 1.6, 1.6),
    Case("log", mp.log, positive(0.3, 3, ALL), 1.01, 1.01),
    Case("log2", base(2), positive(0.3, 3, ALL), 1.01, 1.01),
    Case("log10", base(10), positive(0.3, 3, ALL), 1.01, 1.01),
    Case("log1p", mp.log1p, spread(-0.99, 3, (-40, -0.1)), 1.5, 1.5),
    Case("pow", mp.power, powers, 0.51, 1.01),
    Case("sigmoid", lambda x: 1 / (1 + mp.exp(-x)), spread(-20, 20, (-40, 1)), 2.5, 2.5),
    Case("sin", mp.sin, angles, 1.5, 1.01),
    Case("cos", mp.cos, angles, 1.5, 1.01),
    Case("tan", mp.tan, angles, 0.51, 2.0),
    Case("asin", mp.asin, spread(-1, 1, (-40, 0)), 2.0, 2.0),
    Case("acos", mp.acos, spread(-1, 1, (-40, 0)), 1.5, 1.5),
    Case("atan", mp.atan, spread(-5, 5, ALL), 2.0, 1.01),
    Case("atan2", mp.atan2, planes, 0.51, 2.0),
    Case("sinh", mp.sinh, spread(-3, 3, (-40, 1.9)), 0.51, 2.0),
    Case("cosh", mp.cosh, spread(-3, 3, (-40, 1.9)), 0.51, 1.5),
    Case("tanh", mp.tanh, spread(-3, 3, (-40, 2)), 2.5, 2.5),
    Case("asinh", mp.asinh, spread(-3, 3, ALL), 0.51, 2.0),
    Case("acosh", mp.acosh, positive(1, 4, (0, 38)), 0.51, 2.5),
    Case("atanh", mp.atanh, spread(-0.99, 0.99, (-40, -0.01)), 0.51, 2.0),
    Case("erf", mp.erf, spread(-5, 5, (-40, 1)), 1.5, 1.5),
    Case("erfc", mp.erfc, spread(-3, 9, (-40, 0.9)), 0.51, 3.5),
    Case("erfinv", mp.erfinv, near_one, 0.51, 2.0),
    Case("erfcx", lambda x: mp.exp(x * x) * mp.erfc(x), positive(0, 40, (-40, 8)), 0.51, 3.5),
    Case("i0e", lambda x: mp.exp(-abs(x)) * mp.besseli(0, x), spread(-30, 30, (-40, 6)), 0.51, 4.0),
    Case("i1e", lambda x: mp.exp(-abs(x)) * mp.besseli(1, x), spread(-30, 30, (-40, 6)), 0.51, 4.0),
    Case("lgamma", mp.loggamma, positive(0.01, 30, (-30, 37)), 0.51, 3.5),
    Case("digamma", mp.digamma, positive(0.01, 20, (-30, 30)), 0.51, 4.0),
)


def units(got: np.ndarray, exact: list[Any], kind: type) -> np.ndarray:
    """Distance from the exact values, in the spacing of numbers there."""
    errors = []
    for value, truth in zip(got, exact, strict=True):
        nearest = kind(float(truth))
        if np.isinf(nearest) or np.isinf(value):
            errors.append(0.0 if nearest == value else float("inf"))
        else:
            errors.append(float(abs(mpf(float(value)) - truth)) / float(np.spacing(abs(nearest))))
    return np.array(errors)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_errors(case: Case, kind: type) -> None:
    arguments = case.points(np.random.default_rng(7), kind)
    got = run(getattr(math, case.name), *arguments)
    digits = 1400 if case.points is angles else 150
    with mp.workprec(digits), np.errstate(over="ignore"):
        exact = [
            case.exact(*(mpf(float(a)) for a in point)) for point in zip(*arguments, strict=True)
        ]
        errors = units(got, exact, kind)
    worst = int(np.argmax(errors))
    limit = case.single if kind is np.float32 else case.double
    assert errors[worst] <= limit, f"{[a[worst] for a in arguments]}: {errors[worst]:.2f} ULP"


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 3.0, -3.0, 1e30, -1e30]
SPECIAL += [float("inf"), -float("inf"), float("nan")]
UNARY = ("exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan sinh cosh tanh "
         "arcsinh arccosh arctanh").split()  # fmt: skip


def agree(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Equal up to rounding, and of equal sign even where zero."""
    with np.errstate(all="ignore"):
        close = (got == wanted) | (np.abs(got - wanted) <= 1e-6 * np.abs(wanted))
    return (close & (np.signbit(got) == np.signbit(wanted))) | (np.isnan(got) & np.isnan(wanted))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str, kind: type) -> None:
    tiny = np.finfo(kind).smallest_subnormal
    x = np.array([*SPECIAL, tiny, -tiny, np.finfo(kind).max, np.finfo(kind).tiny]).astype(kind)
    with np.errstate(all="ignore"):
        wanted = getattr(np, name)(x)
        small_range = np.abs(x) < (1e4 if kind is np.float32 else np.inf)
    got = run(getattr(math, name.replace("arc", "a")), x)
    compared = small_range | ~np.isfinite(x) | (name not in ("sin", "cos", "tan"))
    assert agree(got, wanted)[compared].all(), list(zip(x, got, wanted, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["pow", "atan2", "fmod", "remainder"])
def test_special_pairs(name: str, kind: type) -> None:
    x, y = (a.ravel().astype(kind) for a in np.meshgrid(SPECIAL, SPECIAL))
    reference = {"pow": np.power, "atan2": np.arctan2, "fmod": np.fmod, "remainder": np.remainder}
    with np.errstate(all="ignore"):
        wanted = reference[name](x, y)
    got = run(getattr(math, name), x, y)
    fine = agree(got, wanted)
    if name == "remainder":
        fine |= got == wanted  # numpy gives a zero the sign of the divisor
    assert fine.all(), [(x[i], y[i], got[i], wanted[i]) for i in np.flatnonzero(~fine)]


@pytest.mark.parametrize("kind", KINDS)
def test_remainders_are_exact_for_any_quotient(kind: type) -> None:
    random = np.random.default_rng(3)
    top = 38 if kind is np.float32 else 307
    x = np.concatenate([random.uniform(-100, 100, 300), 10.0 ** random.uniform(-top, top, 300)])
    y = np.concatenate([random.uniform(-5, 5, 300), -(10.0 ** random.uniform(-top - 6, top, 300))])
    x, y = x.astype(kind), y.astype(kind)
    y[y == 0] = 1
    with np.errstate(all="ignore"):
        assert (run(math.fmod, x, y) == np.fmod(x, y)).all()
        assert (run(math.remainder, x, y) == np.remainder(x, y)).all()


def test_floor_division_is_python_s() -> None:
    random = np.random.default_rng(4)
    x = random.uniform(-50, 50, 300)
    y = random.uniform(-5, 5, 300)
    wanted = [a // b for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert run(math.floor_divide, x, y).tolist() == wanted
    n = random.integers(-50, 50, 300)
    m = random.integers(1, 9, 300) * random.choice([-1, 1], 300)
    assert (run(math.floor_divide, n, m) == n // m).all()
    assert (run(math.remainder, n, m) == n % m).all()


def test_greatest_common_divisors() -> None:
    random = np.random.default_rng(8)
    x, y = random.integers(-(2**62), 2**62, (2, 200))
    x[:40] %= 60
    y[20:60] %= 60
    x[-1], y[-1] = 7540113804746346429, 4660046610375530309  # neighbours of Fibonacci's
    assert (run(math.gcd, x, y) == np.gcd(x, y)).all()


def test_integer_powers_wrap() -> None:
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-8, 9), np.arange(0, 70)))
    assert (run(math.integer_power, x, y) == np.power(x, y)).all()
    negative = run(math.integer_power, np.array([1, -1, -1, 2, 0]), np.array([-3, -3, -2, -1, -1]))
    assert negative.tolist() == [1, -1, 1, 0, 0]


def test_poles() -> None:
    inf, nan = float("inf"), float("nan")
    x = np.array([0.0, -0.0, -1.0, -2.0, inf, -inf, nan, 1.0, 2.0])
    assert run(math.lgamma, x).tolist()[:6] == [inf] * 6
    assert run(math.lgamma, x).tolist()[7:] == [0.0, 0.0]
    digamma = run(math.digamma, x)
    assert digamma[0] == -inf and digamma[1] == inf and digamma[4] == inf
    assert np.isnan(digamma[[2, 3, 6]]).all()
    assert run(math.erfinv, np.array([1.0, -1.0, 0.0])).tolist() == [inf, -inf, 0.0]
    assert np.isnan(run(math.erfinv, np.array([1.5, nan]))).all()


def test_reflected_gamma() -> None:
    x = np.random.default_rng(5).uniform(-20, 0, 200)
    exact = [float(mp.re(mp.loggamma(mpf(float(v))))) for v in x]
    assert np.allclose(run(math.lgamma, x), exact, rtol=1e-14, atol=1e-14)
    exact = [float(mp.digamma(mpf(float(v)))) for v in x]
    assert np.allclose(run(math.digamma, x), exact, rtol=1e-14, atol=1e-13)


def test_zeta() -> None:
    x = np.random.default_rng(6).uniform(0.01, 30, 100)
    for s in (2, 3, 5):
        exact = [float(mp.zeta(s, mpf(float(v)))) for v in x]
        assert np.allclose(run(lambda v, s=s: math.zeta(s, v), x), exact, rtol=3e-15)


@pytest.mark.parametrize("name", ["sin", "lgamma", "exp", "erf"])
def test_tails_have_the_bits_of_vectors(name: str) -> None:
    """Each element alone gives what it gives among others, slow ways included."""
    x = np.array([0.3, 1e20, -7.5, 2.0, -1e13, 0.1, 30.0, 5e30, -0.2] * 5).astype(np.float32)
    function = getattr(math, name)
    together = run(function, x)
    alone = np.concatenate([run(function, x[k : k + 1]) for k in range(len(x))])
    assert together.tobytes() == alone.tobytes()


def test_exact_values() -> None:
    n = np.arange(-20, 21).astype(np.float64)
    assert (run(math.exp2, n) == 2.0**n).all()
    assert (run(math.log2, 2.0**n) == n).all()
    assert run(math.log10, np.array([1000.0, 1e10])).tolist() == [3.0, 10.0]
    assert run(math.erf, np.array([0.0, python_math.inf])).tolist() == [0.0, 1.0]
