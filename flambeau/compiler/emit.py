"""Kernel instructions to LLVM instructions, scalar or in vectors of any width.

No fast-math flag is ever set: each operation rounds as IEEE 754 says, so a value is the same bits
whether it is computed in a vector, in a loop's tail, alone or fused with others.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.builder import Builder, Var, element_type, is_float, lanes, vector
from flambeau.compiler.kernel import RARE, Instruction, Tracer, Value
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

# How a value of each type sits in a register while it is computed with.
REGISTER = {
    types.bool_: "i1",
    types.uint8: "i8",
    types.int8: "i8",
    types.int16: "i16",
    types.int32: "i32",
    types.int64: "i64",
    types.float16: "float",
    types.bfloat16: "float",
    types.float32: "float",
    types.float64: "double",
}

_COMPARISONS = {
    "lt": ("olt", "slt", "ult"),
    "le": ("ole", "sle", "ule"),
    "gt": ("ogt", "sgt", "ugt"),
    "ge": ("oge", "sge", "uge"),
    "eq": ("oeq", "eq", "eq"),
    "ne": ("une", "ne", "ne"),
}


def register_type(dtype: dtype, width: int) -> str:
    return vector(REGISTER[dtype], width)


# -- memory ------------------------------------------------------------------------------------


def from_memory(b: Builder, raw: Var, dtype: dtype) -> Var:
    """The register form of what was loaded."""
    if dtype is types.bool_:
        return b.compare("ne", raw, 0)
    if dtype is types.float16:
        return b.convert("fpext", raw, "float")
    if dtype is types.bfloat16:
        wide = b.convert("zext", raw, "i32")
        return b.convert("bitcast", b.shl(wide, 16), "float")
    return raw


def to_memory(b: Builder, value: Var, dtype: dtype) -> Var:
    """The memory form of a register; float16 and bfloat16 values are already rounded."""
    if dtype is types.bool_:
        return b.convert("zext", value, "i8")
    if dtype is types.float16:
        return b.convert("fptrunc", value, "half")
    if dtype is types.bfloat16:
        bits = b.convert("bitcast", value, "i32")
        return b.convert("trunc", b.lshr(bits, 16), "i16")
    return value


# -- conversions -------------------------------------------------------------------------------


def _round_to_half(b: Builder, x: Var) -> Var:
    return b.convert("fpext", b.convert("fptrunc", x, "half"), "float")


def _round_to_bfloat16(b: Builder, x: Var) -> Var:
    """Nearest, ties to even, by integer arithmetic: every CPU has it."""
    bits = b.convert("bitcast", x, "i32")
    odd = b.and_(b.lshr(bits, 16), 1)
    rounded = b.and_(b.add(b.add(bits, odd), 0x7FFF), -65536)
    result = b.convert("bitcast", rounded, "float")
    not_a_number = b.compare("uno", x, x)
    return b.select(not_a_number, b.constant(float("nan"), x.type), result)


def convert(b: Builder, x: Var, source: dtype, target: dtype) -> Var:
    """``x.to(target)`` with C's conversions, as PyTorch's CPU kernels have them."""
    if source is target:
        return x
    if target is types.bool_:
        return b.compare("une" if is_float(x.type) else "ne", x, b.zero(x.type))
    if target.is_floating_point:
        return _convert_to_float(b, x, source, target)
    return _convert_to_integer(b, x, source, target)


def _convert_to_float(b: Builder, x: Var, source: dtype, target: dtype) -> Var:
    register = REGISTER[target]
    if not is_float(x.type):
        instruction = "sitofp" if source.is_signed else "uitofp"
        x = b.convert(instruction, x, register)
    elif element_type(x.type) != register:
        x = b.convert("fpext" if register == "double" else "fptrunc", x, register)
    if target is types.float16:
        return _round_to_half(b, x)
    if target is types.bfloat16:
        return _round_to_bfloat16(b, x)
    return x


def _convert_to_integer(b: Builder, x: Var, source: dtype, target: dtype) -> Var:
    register = REGISTER[target]
    if is_float(x.type):
        # Through a wide integer, as C does: a small type then wraps instead of being undefined.
        wide = b.convert("fptosi", x, "i64" if target.itemsize == 8 else "i32")
        return b.convert("trunc", wide, register) if target.itemsize < 4 else wide
    if source.itemsize == target.itemsize and source is not types.bool_:
        return x
    if source.itemsize > target.itemsize:
        return b.convert("trunc", x, register)
    return b.convert("sext" if source.is_signed else "zext", x, register)


# -- arithmetic --------------------------------------------------------------------------------


def _divide_integers(b: Builder, x: Var, y: Var, dtype: dtype, instruction: str) -> Var:
    """Division that cannot trap: by zero gives 0, the smallest number by -1 wraps."""
    zero = b.compare("eq", y, 0)
    one = b.constant(1, x.type)
    safe = b.select(zero, one, y)
    if not dtype.is_signed:
        result = b.emit(x.type, f"u{instruction} {x}, {safe.name}")
        return b.select(zero, b.zero(x.type), result)
    minus_one = b.compare("eq", y, -1)
    safe = b.select(minus_one, one, safe)
    result = b.emit(x.type, f"s{instruction} {x}, {safe.name}")
    if instruction == "div":
        result = b.select(minus_one, b.neg(x), result)
    return b.select(zero, b.zero(x.type), result)


def _emit_add(b: Builder, i: Instruction, x: Var, y: Var) -> Var:
    return b.or_(x, y) if i.dtype is types.bool_ else b.add(x, y)


def _emit_mul(b: Builder, i: Instruction, x: Var, y: Var) -> Var:
    return b.and_(x, y) if i.dtype is types.bool_ else b.mul(x, y)


def _emit_div(b: Builder, i: Instruction, x: Var, y: Var) -> Var:
    return b.div(x, y) if is_float(x.type) else _divide_integers(b, x, y, i.dtype, "div")


def _emit_rem(b: Builder, i: Instruction, x: Var, y: Var) -> Var:
    return b.rem(x, y) if is_float(x.type) else _divide_integers(b, x, y, i.dtype, "rem")


def _emit_abs(b: Builder, i: Instruction, x: Var) -> Var:
    if is_float(x.type):
        return b.unary("fabs", x)
    if not i.dtype.is_signed:
        return x
    return b.select(b.compare("slt", x, 0), b.neg(x), x)


def _emit_shift(b: Builder, i: Instruction, x: Var, y: Var) -> Var:
    return b.ashr(x, y) if i.dtype.is_signed else b.lshr(x, y)


_EMITTERS: dict[str, Callable[..., Var]] = {
    "add": _emit_add,
    "sub": lambda b, i, x, y: b.sub(x, y),
    "mul": _emit_mul,
    "div": _emit_div,
    "rem": _emit_rem,
    "neg": lambda b, i, x: b.neg(x),
    "abs": _emit_abs,
    "and": lambda b, i, x, y: b.and_(x, y),
    "or": lambda b, i, x, y: b.or_(x, y),
    "xor": lambda b, i, x, y: b.xor(x, y),
    "shl": lambda b, i, x, y: b.shl(x, y),
    "shr": _emit_shift,
    "fma": lambda b, i, x, y, z: b.fma(x, y, z),
    "select": lambda b, i, c, x, y: b.select(c, x, y),
    "sqrt": lambda b, i, x: b.unary("sqrt", x),
    "floor": lambda b, i, x: b.unary("floor", x),
    "ceil": lambda b, i, x: b.unary("ceil", x),
    "trunc": lambda b, i, x: b.unary("trunc", x),
    "roundeven": lambda b, i, x: b.unary("roundeven", x),
    "copysign": lambda b, i, x, y: b.binary("copysign", x, y),
}


def emit_instruction(
    b: Builder, i: Instruction, arguments: list[Var], sources: list[dtype], width: int
) -> Var:
    """One instruction that neither touches memory nor reduces; ``sources`` are the arguments'
    types.
    """
    if i.operation == "constant":
        assert not isinstance(i.attribute, str) and i.attribute is not None
        return b.constant(i.attribute, register_type(i.dtype, width))
    if i.operation == "cast":
        return convert(b, arguments[0], sources[0], i.dtype)
    if i.operation == "bitcast":
        return b.convert("bitcast", arguments[0], REGISTER[i.dtype])
    if i.operation == "rare":
        return _emit_rare(b, i, arguments, sources, width)
    if i.operation == "repeat":
        return _emit_repeat(b, i, arguments, sources, width)
    comparison = _COMPARISONS.get(i.operation)
    if comparison is not None:
        ordered, signed, unsigned = comparison
        if is_float(arguments[0].type):
            predicate = ordered
        else:
            predicate = signed if sources[0].is_signed else unsigned
        return b.compare(predicate, *arguments)
    return _EMITTERS[i.operation](b, i, *arguments)


def _emit_rare(
    b: Builder, i: Instruction, arguments: list[Var], sources: list[dtype], width: int
) -> Var:
    """A loop that runs once, or not at all where no lane meets the condition."""
    condition, usual, *operands = arguments
    needed = condition
    if width > 1:
        needed = b.intrinsic(f"llvm.vector.reduce.or.v{width}i1", "i1", condition)
    times = b.convert("zext", needed, "i64")

    def body(_: Var, carried: list[Var]) -> list[Var]:
        found = emit_function(b, RARE[str(i.attribute)], operands, sources[2:], width)
        return [b.select(condition, found[0], carried[0])]

    return b.loop(0, times, 1, [usual], body)[1][0]


def _emit_repeat(
    b: Builder, i: Instruction, arguments: list[Var], sources: list[dtype], width: int
) -> Var:
    """A loop of as many steps as the lane with the most of them needs."""
    times, *operands = arguments
    states = _state_count(str(i.attribute), sources[1:])
    if width > 1:
        times = b.intrinsic(f"llvm.vector.reduce.umax.v{width}i64", "i64", times)

    def body(_: Var, carried: list[Var]) -> list[Var]:
        inputs = [*carried, *operands[states:]]
        return emit_function(b, RARE[str(i.attribute)], inputs, sources[1:], width)

    return b.loop(0, times, 1, operands[:states], body)[1][0]


Traced = Callable[..., Value | tuple[Value, ...]]


def _trace_function(function: Traced, dtypes: list[dtype]) -> tuple[Tracer, tuple[Value, ...]]:
    tracer = Tracer()
    parameters = [tracer.add("parameter", (), d, k) for k, d in enumerate(dtypes)]
    result = function(*parameters)
    return tracer, result if isinstance(result, tuple) else (result,)


def _state_count(name: str, dtypes: list[dtype]) -> int:
    """How many values a step hands on to the next."""
    return len(_trace_function(RARE[name], dtypes)[1])


def emit_function(
    b: Builder, function: Traced, operands: list[Var], dtypes: list[dtype], width: int
) -> list[Var]:
    """Traces a function of kernel values and writes out its instructions."""
    tracer, results = _trace_function(function, dtypes)
    known: list[Var] = []
    for i in tracer.instructions:
        if i.operation == "parameter":
            assert isinstance(i.attribute, int)
            known.append(operands[i.attribute])
            continue
        sources = [tracer.instructions[a].dtype for a in i.arguments]
        known.append(emit_instruction(b, i, [known[a] for a in i.arguments], sources, width))
    return [known[result.index] for result in results]


# -- reductions --------------------------------------------------------------------------------

_IDENTITIES: dict[str, float] = {"sum": 0, "prod": 1, "any": 0, "all": 1}


def identity(b: Builder, combine: str, dtype: dtype, type_: str) -> Var:
    """The value that changes nothing when combined."""
    if combine in _IDENTITIES:
        return b.constant(_IDENTITIES[combine], type_)
    lowest = combine in ("max", "argmax")
    if dtype.is_floating_point:
        return b.constant(float("-inf") if lowest else float("inf"), type_)
    if dtype is types.bool_:
        return b.constant(not lowest, type_)
    limits = types.iinfo(dtype)
    return b.constant(limits.min if lowest else limits.max, type_)


def _better(b: Builder, combine: str, dtype: dtype, x: Var, y: Var) -> Var:
    """Whether ``y`` replaces ``x`` as the extreme value; NaN replaces every number."""
    if is_float(x.type):
        beats = b.compare("ogt" if combine.endswith("max") else "olt", y, x)
        y_nan = b.compare("uno", y, y)
        x_number = b.compare("ord", x, x)
        return b.and_(b.or_(beats, y_nan), x_number)
    direction = "gt" if combine.endswith("max") else "lt"
    return b.compare(("s" if dtype.is_signed else "u") + direction, y, x)


def combine(b: Builder, kind: str, dtype: dtype, x: Var, y: Var) -> Var:
    """``x`` combined with ``y``, in this order."""
    if kind == "sum":
        return b.or_(x, y) if dtype is types.bool_ else b.add(x, y)
    if kind == "prod":
        return b.and_(x, y) if dtype is types.bool_ else b.mul(x, y)
    if kind == "any":
        return b.or_(x, y)
    if kind == "all":
        return b.and_(x, y)
    if is_float(x.type):
        # A NaN in ``x`` beats every comparison, so only one in ``y`` needs a word of its own.
        beats = b.compare("ogt" if kind == "max" else "olt", y, x)
        return b.select(b.compare("uno", y, y), y, b.select(beats, y, x))
    return b.select(_better(b, kind, dtype, x, y), y, x)


def combine_indexed(
    b: Builder, kind: str, dtype: dtype, x: tuple[Var, Var], y: tuple[Var, Var]
) -> tuple[Var, Var]:
    """argmax and argmin on (value, index) pairs; of equal values the lower index wins."""
    replaces = _better(b, kind, dtype, x[0], y[0])
    if is_float(x[0].type):
        both_nan = b.and_(b.compare("uno", x[0], x[0]), b.compare("uno", y[0], y[0]))
        same = b.or_(b.compare("oeq", x[0], y[0]), both_nan)
    else:
        same = b.compare("eq", x[0], y[0])
    earlier = b.and_(same, b.compare("slt", y[1], x[1]))
    take = b.or_(replaces, earlier)
    return b.select(take, y[0], x[0]), b.select(take, y[1], x[1])


def horizontal(b: Builder, accumulator: list[Var], step: Callable[..., list[Var]]) -> list[Var]:
    """All lanes combined into one by halving: the same tree for every length of the loop."""
    width = lanes(accumulator[0].type)
    while width > 1:
        width //= 2
        low = [_lanes(b, a, 0, width) for a in accumulator]
        high = [_lanes(b, a, width, width) for a in accumulator]
        accumulator = step(low, high)
    return accumulator


def _lanes(b: Builder, a: Var, first: int, count: int) -> Var:
    if count == 1:
        return b.extract(a, first)
    return b.shuffle(a, a, range(first, first + count))
