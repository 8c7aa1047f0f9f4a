"""Normal numbers by the Box-Muller transform of 16 uniform ones at a time.

Of each 16 numbers the first eight give the radius and the last eight the angle; cosines go to the
first eight results, sines to the last.  In float the logarithm, sine and cosine are the single
precision Cephes polynomials, each product that meets a sum fused with it, which is what PyTorch's
AVX2 kernel computes; all of it rounds alike everywhere, so it gives those bits on any processor.
In double they are the C library's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flambeau.compiler.builder import (
    ARGS,
    BEGIN,
    END,
    I64,
    PTR,
    Builder,
    Var,
    vector,
)
from flambeau.compiler.emit import convert, to_memory
from flambeau.compiler.random_draw import (
    CHUNK,
    OUT_WORD,
    SCRATCH,
    STATE_WORD,
    block_word,
    draw,
    parameter,
)
from flambeau.compiler.random_uniform import Body, unit_interval
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

GROUP = 16
_HALF = GROUP // 2

# log(1 + x) = x - x**2 / 2 + x**3 P(x) on [sqrt(1/2) - 1, sqrt(2) - 1]; log(2) in two parts.
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_LOG_2_HIGH, _LOG_2_LOW = 0.693359375, -2.12194440e-4
# sin x = x + x**3 S(x**2) and cos x = 1 - x**2 / 2 + x**4 C(x**2) up to pi/4; pi/4 in three parts.
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_QUARTER_PI = (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)


def _polynomial(b: Builder, x: Var, coefficients: Sequence[float]) -> Var:
    """Horner's scheme, the highest power first."""
    value = b.constant(coefficients[0], x.type)
    for coefficient in coefficients[1:]:
        value = b.fma(value, x, coefficient)
    return value


def _log(b: Builder, x: Var) -> Var:
    """The logarithm of normal positive floats."""
    bits = b.convert("bitcast", x, "i32")
    exponent = b.convert("sitofp", b.sub(b.lshr(bits, 23), 126), "float")
    fraction = b.or_(b.and_(bits, 0x007FFFFF), 0x3F000000)
    x = b.convert("bitcast", fraction, "float")
    small = b.compare("olt", x, math.sqrt(0.5))
    exponent = b.select(small, b.sub(exponent, 1.0), exponent)
    x = b.add(b.sub(x, 1.0), b.select(small, x, b.zero(x.type)))
    square = b.mul(x, x)
    y = b.mul(_polynomial(b, x, _LOG), x)
    y = b.fma(y, square, b.mul(exponent, _LOG_2_LOW))
    y = b.sub(y, b.mul(square, 0.5))
    return b.fma(exponent, b.constant(_LOG_2_HIGH, x.type), b.add(x, y))


def _sin_cos(b: Builder, x: Var) -> tuple[Var, Var]:
    """Sine and cosine of floats of [0, 2 pi]."""
    octant = b.convert("fptosi", b.mul(x, 4 / math.pi), "i32")
    octant = b.and_(b.add(octant, 1), -2)
    turns = b.convert("sitofp", octant, "float")
    for part in _QUARTER_PI:
        x = b.fma(turns, -part, x)
    square = b.mul(x, x)
    cosine = b.mul(_polynomial(b, square, _COS), square)
    cosine = b.fma(cosine, square, b.neg(b.mul(square, 0.5)))
    cosine = b.add(cosine, 1.0)
    sine = b.mul(_polynomial(b, square, _SIN), square)
    sine = b.fma(sine, x, x)
    straight = b.compare("eq", b.and_(octant, 2), 0)
    sin_sign = b.shl(b.and_(octant, 4), 29)
    cos_sign = b.shl(b.and_(b.xor(b.sub(octant, 2), -1), 4), 29)

    def signed(value: Var, sign: Var) -> Var:
        bits = b.xor(b.convert("bitcast", value, "i32"), sign)
        return b.convert("bitcast", bits, "float")

    return (
        signed(b.select(straight, sine, cosine), sin_sign),
        signed(b.select(straight, cosine, sine), cos_sign),
    )


def _box_muller(b: Builder, u1: Var, u2: Var, mean: Var, std: Var) -> tuple[Var, Var]:
    radius = b.unary("sqrt", b.mul(-2.0, _log(b, b.sub(1.0, u1))))
    sine, cosine = _sin_cos(b, b.mul(u2, 2 * math.pi))
    return (
        b.fma(b.mul(radius, cosine), std, mean),
        b.fma(b.mul(radius, sine), std, mean),
    )


def _float_groups(b: Builder, target: dtype, scratch: Var, out: Var, count: int) -> None:
    """``count`` (1 or 2) groups of 16 numbers in scratch to as many elements."""
    mean, std = (
        b.splat(b.convert("fptrunc", parameter(b, k, "double"), "float"), _HALF * count)
        for k in range(2)
    )
    halves = [
        b.load(vector("i32", _HALF), b.gep("i32", scratch, _HALF * k), 4) for k in range(2 * count)
    ]
    if count == 2:
        both = range(GROUP)
        halves = [b.shuffle(halves[0], halves[2], both), b.shuffle(halves[1], halves[3], both)]
    u1, u2 = (unit_interval(b, half) for half in halves)
    for k, value in enumerate(_box_muller(b, u1, u2, mean, std)):
        memory = to_memory(b, convert(b, value, types.float32, target), target)
        for group in range(count):
            part = range(_HALF * group, _HALF * (group + 1))
            piece = b.shuffle(memory, memory, part) if count == 2 else memory
            place = GROUP * group + _HALF * k
            b.store(piece, b.gep(target.llvm, out, place), target.itemsize)


def _double_group(b: Builder, scratch: Var, out: Var) -> None:
    """16 doubles from 32 numbers in scratch."""
    mean, std = parameter(b, 0, "double"), parameter(b, 1, "double")

    def pair(j: Var, _: list[Var]) -> None:
        u1, u2 = (
            b.extract(unit_interval(b, _pair_of_draws(b, scratch, index)), 0)
            for index in (j, b.add(j, _HALF))
        )
        logarithm = b.intrinsic("log", "double", b.sub(1.0, u1))
        radius = b.unary("sqrt", b.mul(-2.0, logarithm))
        theta = b.mul(u2, 2 * math.pi)
        for name, index in (("cos", j), ("sin", b.add(j, _HALF))):
            value = b.mul(radius, b.intrinsic(name, "double", theta))
            b.store(b.fma(value, std, mean), b.gep("double", out, index), 8)

    b.loop(0, _HALF, 1, [], pair)


def _pair_of_draws(b: Builder, scratch: Var, index: Var) -> Var:
    return b.load("<2 x i64>", b.gep(I64, scratch, index), 4)


def normal_body(target: dtype) -> Body:
    """``out[begin:end]``, at least 16 elements: parameters ``mean`` and ``std`` (double).

    A rest of less than 16 has the last 16 elements drawn again.  For float and double PyTorch draws
    uniform numbers for the rest before; they are skipped here.
    """
    draws = 2 if target is types.float64 else 1
    skips_rest = target in (types.float32, types.float64)
    per_chunk = CHUNK // draws

    def body(b: Builder) -> None:
        state, base = b.argument(ARGS, STATE_WORD, PTR), b.argument(ARGS, OUT_WORD, PTR)
        scratch = block_word(b, state, SCRATCH)

        def group(at: Var, start: Var, count: int = 1) -> None:
            numbers = b.gep("i32", scratch, b.mul(at, draws))
            out = b.gep(target.llvm, base, b.add(start, at))
            if draws == 2:
                _double_group(b, numbers, out)
            else:
                _float_groups(b, target, numbers, out, count)

        total = b.sub(END, BEGIN)
        rest = b.and_(total, GROUP - 1)
        whole = b.sub(END, rest)

        def chunk(k: Var, _: list[Var]) -> None:
            start = b.add(BEGIN, b.mul(k, per_chunk))
            count = b.min(b.sub(whole, start), per_chunk)
            draw(b, state, scratch, b.mul(count, draws))
            if draws == 2:
                b.loop(0, count, GROUP, [], lambda i, _: group(i, start))
                return
            last, _ = b.loop(0, count, 2 * GROUP, [], lambda i, _: group(i, start, 2))
            b.if_(b.compare("slt", last, count), lambda: group(last, start))

        chunks = b.div(b.add(b.sub(whole, BEGIN), per_chunk - 1), per_chunk)
        b.loop(0, chunks, 1, [], chunk)

        def again() -> None:
            if skips_rest:
                draw(b, state, scratch, b.mul(rest, draws))
            draw(b, state, scratch, GROUP * draws)
            group(b.constant(0), b.sub(END, GROUP))

        b.if_(b.compare("sgt", rest, 0), again)

    return body
