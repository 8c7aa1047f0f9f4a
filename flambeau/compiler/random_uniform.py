"""Random kernels that need no more than a number or two per element: uniform, Bernoulli, integers.

``out`` is filled in order.  Parameters (words 2 … of the argument block) are named at each kernel.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.builder import I64, PTR, Builder, Var, lanes
from flambeau.compiler.emit import convert, to_memory
from flambeau.compiler.random_draw import Transform, fill_body, parameter
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

Body = Callable[[Builder], None]

_MANTISSA_64 = (1 << 53) - 1
_MANTISSA_32 = (1 << 24) - 1


def unit_interval(b: Builder, numbers: Var) -> Var:
    """[0, 1): 24 bits of a 32-bit draw as float, 53 bits of a 64-bit draw as double."""
    if numbers.type.endswith("i64>"):
        bits = significand(b, numbers)
        return b.mul(b.convert("sitofp", bits, "double"), 2.0**-53)
    bits = b.and_(numbers, _MANTISSA_32)
    return b.mul(b.convert("sitofp", bits, "float"), 2.0**-24)


def join(b: Builder, numbers: Var) -> Var:
    """64-bit draws as integers: the number drawn first is the upper half."""
    return b.or_(b.shl(numbers, 32), b.lshr(numbers, 32))


def significand(b: Builder, numbers: Var) -> Var:
    """The lower 53 bits of 64-bit draws."""
    return b.and_(join(b, numbers), _MANTISSA_64)


def splat_parameter(b: Builder, index: int, like: Var, type_: str) -> Var:
    """A scalar parameter in as many lanes as ``like``."""
    return b.splat(parameter(b, index, type_), lanes(like.type))


# -- real numbers ------------------------------------------------------------------------------


def uniform_body(target: dtype) -> Body:
    """Uniform in [low, high): parameters ``low`` and ``high`` (double)."""
    compute = types.float64 if target is types.float64 else types.float32

    def transform(b: Builder, numbers: Var, _: Var) -> Var:
        unit = unit_interval(b, numbers)
        low, high = (
            convert(b, splat_parameter(b, k, unit, "double"), types.float64, compute)
            for k in range(2)
        )
        value = convert(b, b.fma(unit, b.sub(high, low), low), compute, target)
        # Rounding may reach the upper bound, which is outside.
        lowest, bound = (convert(b, x, compute, target) for x in (low, high))
        value = b.select(b.compare("oeq", value, bound), lowest, value)
        return to_memory(b, value, target)

    return fill_body(target, 2 if compute is types.float64 else 1, transform)


# -- Bernoulli ---------------------------------------------------------------------------------


def bernoulli_body(itemsize: int) -> Body:
    """``one`` (bits, int64) where a 53-bit draw is below ``threshold`` (int64), else zero bits."""
    bits = _BITS[itemsize]

    def transform(b: Builder, numbers: Var, _: Var) -> Var:
        threshold = splat_parameter(b, 0, numbers, I64)
        one = b.convert("trunc", splat_parameter(b, 1, numbers, I64), bits.llvm)
        chosen = b.compare("ult", significand(b, numbers), threshold)
        return b.select(chosen, one, b.zero(one.type))

    return fill_body(bits, 2, transform)


def bernoulli_each_body(itemsize: int, source: dtype) -> Body:
    """As `bernoulli_body`, each element by its ``probability`` (pointer to float or double)."""
    bits = _BITS[itemsize]

    def transform(b: Builder, numbers: Var, index: Var) -> Var:
        unit = unit_interval(b, numbers)
        address = b.gep(source.llvm, parameter(b, 0, PTR), index)
        probability = b.load(unit.type, address, source.itemsize)
        one = splat_parameter(b, 1, numbers, I64)
        one = b.convert("trunc", one, bits.llvm)
        return b.select(b.compare("olt", unit, probability), one, b.zero(one.type))

    return fill_body(bits, 2 if source is types.float64 else 1, transform)


_BITS = {1: types.int8, 2: types.int16, 4: types.int32, 8: types.int64}


# -- integers ----------------------------------------------------------------------------------


def _narrow(target: dtype) -> bool:
    """Whether 32-bit arithmetic is enough: the result is cut to at most 32 bits."""
    return target.category == "integer" and target.itemsize <= 4


def _store_integers(b: Builder, values: Var, target: dtype) -> Var:
    """Signed integers, of 32 or 64 bits, as elements of any type."""
    source = types.int64 if values.type.endswith("i64>") else types.int32
    return to_memory(b, convert(b, values, source, target), target)


def _remainder_32(b: Builder, numbers: Var, divisor: Var) -> Var:
    """``numbers % divisor``, unsigned, for 0 < divisor < 2**28; exact, in double arithmetic."""
    dividend = b.convert("uitofp", numbers, "double")
    quotient = b.unary("floor", b.mul(dividend, b.div(1.0, divisor)))
    rest = b.fma(b.neg(quotient), divisor, dividend)
    rest = b.select(b.compare("olt", rest, 0.0), b.add(rest, divisor), rest)
    rest = b.select(b.compare("oge", rest, divisor), b.sub(rest, divisor), rest)
    return b.convert("fptosi", rest, "i32")


def remainder_body(target: dtype, draws: int) -> Body:
    """``draw % count + low``: parameters ``count`` and ``low`` (int64)."""

    def transform_32(b: Builder, numbers: Var, _: Var) -> Var:
        count = parameter(b, 0)
        divisor = b.splat(b.convert("uitofp", count, "double"), lanes(numbers.type))
        rest = _remainder_32(b, numbers, divisor)
        low = splat_parameter(b, 1, numbers, I64)
        if _narrow(target):
            return _store_integers(b, b.add(rest, b.convert("trunc", low, "i32")), target)
        return _store_integers(b, b.add(b.convert("sext", rest, I64), low), target)

    def transform_64(b: Builder, numbers: Var, _: Var) -> Var:
        count = splat_parameter(b, 0, numbers, I64)
        rest = b.emit(numbers.type, f"urem {join(b, numbers)}, {count.name}")
        return _store_integers(b, b.add(rest, splat_parameter(b, 1, numbers, I64)), target)

    transform: Transform = transform_32 if draws == 1 else transform_64
    return fill_body(target, draws, transform)


def bits_body(target: dtype, draws: int) -> Body:
    """``draw & mask``, taken as a signed number: parameter ``mask`` (int64)."""

    def transform(b: Builder, numbers: Var, _: Var) -> Var:
        mask = splat_parameter(b, 0, numbers, I64)
        if draws == 2:
            return _store_integers(b, b.and_(join(b, numbers), mask), target)
        kept = b.and_(numbers, b.convert("trunc", mask, "i32"))
        return _store_integers(b, kept, target)

    return fill_body(target, draws, transform)
