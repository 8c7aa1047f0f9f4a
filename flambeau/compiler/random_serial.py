"""Random kernels that go one element at a time: transforms by the C library, shuffles, choices.

The transforms are computed in double with the C library's functions, as PyTorch does, so that they
agree with it bit for bit on the same system.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from flambeau.compiler.builder import ARGS, BEGIN, END, I64, PTR, Builder, Var
from flambeau.compiler.emit import convert, to_memory
from flambeau.compiler.random_draw import (
    CHUNK,
    NORMAL,
    NORMAL_IS_VALID,
    OUT_WORD,
    SCRATCH,
    STATE_WORD,
    block_word,
    draw,
    parameter,
)
from flambeau.compiler.random_uniform import Body, join, unit_interval
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

# The largest permutation whose places are drawn with 32 bits.
LONGEST_32_BIT_SHUFFLE = ((1 << 32) - 1) // 20 - 1


def library(b: Builder, name: str, x: Var) -> Var:
    """The C library's function of a double."""
    return b.intrinsic(name, "double", x)


def _operands(b: Builder) -> tuple[Var, Var, Var]:
    state = b.argument(ARGS, STATE_WORD, PTR)
    return state, b.argument(ARGS, OUT_WORD, PTR), block_word(b, state, SCRATCH)


def _unit(b: Builder, scratch: Var, index: Var | int) -> Var:
    """[0, 1) with 53 bits from the 64-bit draw ``index`` in scratch."""
    numbers = b.load("<2 x i64>", b.gep(I64, scratch, index), 4)
    return b.extract(unit_interval(b, numbers), 0)


def _store(b: Builder, value: Var, target: dtype, address: Var) -> None:
    if target is types.bool_:
        value = b.convert("zext", b.compare("une", value, 0.0), "i8")
    else:
        value = to_memory(b, convert(b, value, types.float64, target), target)
    b.store(value, address, target.itemsize)


# -- one draw per element ----------------------------------------------------------------------


def exponential(b: Builder, unit: Var) -> Var:
    """Parameter ``rate``."""
    scale = b.div(-1.0, parameter(b, 0, "double"))
    return b.mul(scale, library(b, "log1p", b.neg(unit)))


def geometric(b: Builder, unit: Var) -> Var:
    """Parameter ``p``."""
    failure = library(b, "log1p", b.neg(parameter(b, 0, "double")))
    return b.unary("ceil", b.div(library(b, "log", unit), failure))


def cauchy(b: Builder, unit: Var) -> Var:
    """Parameters ``median`` and ``sigma``."""
    tangent = library(b, "tan", b.mul(b.sub(unit, 0.5), math.pi))
    return b.fma(parameter(b, 1, "double"), tangent, parameter(b, 0, "double"))


def transform_body(target: dtype, transform: Callable[[Builder, Var], Var]) -> Body:
    """``out[i]`` is the transform of a 53-bit uniform number; parameters as the transform says."""
    per_chunk = CHUNK // 2

    def body(b: Builder) -> None:
        state, out, scratch = _operands(b)
        chunks = b.div(b.add(b.sub(END, BEGIN), per_chunk - 1), per_chunk)

        def chunk(k: Var, _: list[Var]) -> None:
            start = b.add(BEGIN, b.mul(k, per_chunk))
            count = b.min(b.sub(END, start), per_chunk)
            draw(b, state, scratch, b.mul(count, 2))

            def one(i: Var, _: list[Var]) -> None:
                value = transform(b, _unit(b, scratch, i))
                _store(b, value, target, b.gep(target.llvm, out, b.add(start, i)))

            b.loop(0, count, 1, [], one)

        b.loop(0, chunks, 1, [], chunk)

    return body


# -- normal numbers in pairs -------------------------------------------------------------------


def normal_each_body(target: dtype, *, exponentiate: bool) -> Body:
    """Normal (or log-normal) numbers, of which every second comes from the block's cache.

    Parameters ``mean`` and ``std`` (double).
    """

    def body(b: Builder) -> None:
        state, out, scratch = _operands(b)
        mean, std = parameter(b, 0, "double"), parameter(b, 1, "double")
        valid, cache = block_word(b, state, NORMAL_IS_VALID), block_word(b, state, NORMAL)

        def cached() -> list[Var]:
            b.store(b.constant(0, "i32"), valid, 4)
            return [b.load("double", cache, 8)]

        def fresh() -> list[Var]:
            draw(b, state, scratch, 4)
            angle = b.mul(_unit(b, scratch, 0), 2 * math.pi)
            logarithm = library(b, "log1p", b.neg(_unit(b, scratch, 1)))
            radius = b.unary("sqrt", b.mul(-2.0, logarithm))
            b.store(b.mul(radius, library(b, "sin", angle)), cache, 8)
            b.store(b.constant(1, "i32"), valid, 4)
            return [b.mul(radius, library(b, "cos", angle))]

        def one(i: Var, _: list[Var]) -> None:
            [standard] = b.if_else(b.compare("ne", b.load("i32", valid, 4), 0), cached, fresh)
            value = b.fma(standard, std, mean)
            if exponentiate:
                value = library(b, "exp", value)
            _store(b, value, target, b.gep(target.llvm, out, i))

        b.loop(BEGIN, END, 1, [], one)

    return body


# -- permutations ------------------------------------------------------------------------------


def _in_chunks(
    b: Builder, draws: int, count: Var, one: Callable[[Var, Var], None], state: Var, scratch: Var
) -> None:
    """``one(i, place in scratch)`` for i below ``count``; ``draws`` numbers are drawn each."""
    per_chunk = CHUNK // draws
    chunks = b.div(b.add(count, per_chunk - 1), per_chunk)

    def chunk(k: Var, _: list[Var]) -> None:
        start = b.mul(k, per_chunk)
        length = b.min(b.sub(count, start), per_chunk)
        draw(b, state, scratch, b.mul(length, draws))
        b.loop(0, length, 1, [], lambda i, _: one(b.add(start, i), i))

    b.loop(0, chunks, 1, [], chunk)


def _integer_element(b: Builder, value: Var, target: dtype) -> Var:
    return to_memory(b, convert(b, value, types.int64, target), target)


def seed_body(_: dtype) -> Body:
    """mt19937's state of a seed, in the words ``out[:end]``; parameter 0 is the first."""

    def body(b: Builder) -> None:
        out = b.argument(ARGS, OUT_WORD, PTR)

        def step(i: Var, carried: list[Var]) -> list[Var]:
            [word] = carried
            b.store(b.convert("trunc", word, "i32"), b.gep("i32", out, i), 4)
            mixed = b.mul(b.xor(word, b.lshr(word, 30)), 1812433253)
            following = b.add(mixed, b.add(i, 1))
            return [b.lshr(b.shl(following, 32), 32)]

        b.loop(0, END, 1, [parameter(b, 0)], step)

    return body


def permutation_body(target: dtype, *, wide: bool) -> Body:
    """A permutation of 0 … n - 1 in ``out[:n]``, for ``begin`` 0 and ``end`` n.

    Swaps from the front with 32-bit draws, or (``wide``) builds inside out with 64-bit ones.
    """

    def place(b: Builder, out: Var, index: Var) -> Var:
        return b.gep(target.llvm, out, index)

    def swapping(b: Builder) -> None:
        state, out, scratch = _operands(b)

        def number(i: Var, _: list[Var]) -> None:
            b.store(_integer_element(b, i, target), place(b, out, i), target.itemsize)

        b.loop(0, END, 1, [], number)

        def swap(i: Var, at: Var) -> None:
            drawn = b.load("i32", b.gep("i32", scratch, at), 4)
            left = b.convert("trunc", b.sub(END, i), "i32")
            distance = b.emit("i32", f"urem {drawn}, {left.name}")
            here = place(b, out, i)
            there = place(b, out, b.add(i, b.convert("zext", distance, I64)))
            first = b.load(target.llvm, here, target.itemsize)
            b.store(b.load(target.llvm, there, target.itemsize), here, target.itemsize)
            b.store(first, there, target.itemsize)

        _in_chunks(b, 1, b.max(b.sub(END, 1), 0), swap, state, scratch)

    def inside_out(b: Builder) -> None:
        state, out, scratch = _operands(b)

        def insert(i: Var, at: Var) -> None:
            drawn = join(b, b.load(I64, b.gep(I64, scratch, at), 4))
            there = place(b, out, b.emit(I64, f"urem {drawn}, {b.add(i, 1).name}"))
            here, value = place(b, out, i), _integer_element(b, i, target)
            b.store(value, here, target.itemsize)
            b.store(b.load(target.llvm, there, target.itemsize), here, target.itemsize)
            b.store(value, there, target.itemsize)

        _in_chunks(b, 2, END, insert, state, scratch)

    return inside_out if wide else swapping


# -- choices by weight -------------------------------------------------------------------------


def choice_body(weight: dtype) -> Body:
    """``out[begin:end]`` (int64): indices drawn with replacement by weight.

    Parameters: ``cumulative`` (pointer to ``count`` sums of the weights, normalised, the last 1)
    and ``count``.
    """

    def body(b: Builder) -> None:
        state, out, scratch = _operands(b)
        cumulative, count = parameter(b, 0, PTR), parameter(b, 1)
        steps = b.sub(64, b.intrinsic("llvm.ctlz.i64", I64, count, Var("i1", "false")))

        def one(i: Var, at: Var) -> None:
            unit = _unit(b, scratch, at)

            def halve(_: Var, bounds: list[Var]) -> list[Var]:
                low, high = bounds
                middle = b.lshr(b.add(low, high), 1)
                inside = b.min(middle, b.sub(count, 1))
                value = b.load(weight.llvm, b.gep(weight.llvm, cumulative, inside), weight.itemsize)
                value = convert(b, value, weight, types.float64)
                open_ = b.compare("slt", low, high)
                right = b.and_(open_, b.compare("olt", value, unit))
                return [b.select(right, b.add(middle, 1), low), b.select(right, high, middle)]

            _, [found, _] = b.loop(0, steps, 1, [b.constant(0), count], halve)
            b.store(found, b.gep(I64, out, b.add(BEGIN, i)), 8)

        _in_chunks(b, 2, b.sub(END, BEGIN), one, state, scratch)

    return body


def cumulative_body(weight: dtype) -> Body:
    """Normalised running sums of ``end`` weights, for `choice_body`; ``begin`` is 0.

    ``out`` gets the sums; parameters: ``weights`` (pointer) and ``status`` (pointer to an int64
    that becomes 1 for a negative weight, 2 for one that is infinite or NaN, 3 if the sum is not
    positive).
    """
    size = weight.itemsize

    def body(b: Builder) -> None:
        out = b.argument(ARGS, OUT_WORD, PTR)
        weights, status = parameter(b, 0, PTR), parameter(b, 1, PTR)

        def add(i: Var, carried: list[Var]) -> list[Var]:
            total, fault = carried
            value = b.load(weight.llvm, b.gep(weight.llvm, weights, i), size)
            total = b.add(total, value)
            b.store(total, b.gep(weight.llvm, out, i), size)
            infinite = b.compare("ueq", b.unary("fabs", value), math.inf)
            found = b.select(infinite, b.constant(2), b.constant(0))
            # A NaN fails "at least zero" too, and that is what PyTorch looks at first.
            found = b.select(b.compare("oge", value, 0.0), found, b.constant(1))
            return [total, b.select(b.compare("eq", fault, 0), found, fault)]

        _, [total, fault] = b.loop(0, END, 1, [b.zero(weight.llvm), b.constant(0)], add)
        positive = b.compare("ogt", total, 0.0)
        fault = b.select(b.or_(positive, b.compare("ne", fault, 0)), fault, b.constant(3))
        b.store(fault, status, 8)

        def normalise(i: Var, _: list[Var]) -> None:
            address = b.gep(weight.llvm, out, i)
            b.store(b.div(b.load(weight.llvm, address, size), total), address, size)

        b.loop(0, END, 1, [], normalise)
        b.store(b.constant(1.0, weight.llvm), b.gep(weight.llvm, out, b.sub(END, 1)), size)

    return body
