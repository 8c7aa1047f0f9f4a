"""The Mersenne twister (mt19937) as generated code, and the loop that every random kernel shares.

A generator is one block of 32-bit words, laid out by the constants below.  ``@draw`` writes the
next ``count`` numbers to memory; kernels draw a chunk into the block's own scratch words, where it
stays in the first-level cache, and turn it into elements in vectors of a fixed width.  Integer work
and correctly rounded operations only, so the bits are the same on every processor.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.builder import (
    ARGS,
    BEGIN,
    END,
    I64,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
    module,
    vector,
)
from flambeau.core.dtype import dtype

# The block, in 32-bit words.  Behind the state lies a copy of its beginning, then padding: a vector
# that starts inside the state may be read whole.
STATE_LENGTH = 624
SHIFT_LENGTH = 397
LEFT = 656
NEXT = 657
NORMAL_IS_VALID = 658
NORMAL = 660
SCRATCH = 704
CHUNK = 2048
BLOCK_WORDS = SCRATCH + CHUNK + 32

# What the words of an argument block mean; the four parameters are int64, double or pointers.
STATE_WORD, OUT_WORD, PARAMETER = 0, 1, 2
ARGUMENT_WORDS = 6

_LANES = 16
_VECTOR = vector("i32", _LANES)


def block_word(b: Builder, state: Var, word: int) -> Var:
    """The address of a word of the generator's block."""
    return b.gep("i32", state, word)


def parameter(b: Builder, index: int, type_: str = I64) -> Var:
    return b.argument(ARGS, PARAMETER + index, type_)


# -- the engine --------------------------------------------------------------------------------


def _load_state(b: Builder, state: Var, index: Var | int) -> Var:
    return b.load(_VECTOR, b.gep("i32", state, index), 4)


def _twisted(b: Builder, state: Var, i: Var, far: Var) -> Var:
    """The next 16 words of the state from place ``i`` on; ``far`` are the words 397 further on."""
    here, after = _load_state(b, state, i), _load_state(b, state, b.add(i, 1))
    mixed = b.or_(b.and_(here, -0x80000000), b.and_(after, 0x7FFFFFFF))
    odd = b.and_(after, 1)
    matrix = b.and_(b.neg(odd), 0x9908B0DF - (1 << 32))
    return b.xor(b.xor(b.lshr(mixed, 1), matrix), far)


def twist_function() -> str:
    """``@twist(state)``: the next 624 words in place of the old ones."""
    b = Builder()
    state = Var(PTR, "%state")

    def store(i: Var | int, value: Var) -> None:
        b.store(value, b.gep("i32", state, i), 4)

    def ahead(i: Var, _: list[Var]) -> None:
        store(i, _twisted(b, state, i, _load_state(b, state, b.add(i, SHIFT_LENGTH))))

    def behind(i: Var, _: list[Var]) -> None:
        far = _load_state(b, state, b.sub(i, STATE_LENGTH - SHIFT_LENGTH))
        store(i, _twisted(b, state, i, far))

    zero = b.constant(0)
    first = _twisted(b, state, zero, _load_state(b, state, SHIFT_LENGTH))
    store(zero, first)
    store(STATE_LENGTH, first)
    boundary = -(-(STATE_LENGTH - SHIFT_LENGTH) // _LANES) * _LANES
    b.loop(_LANES, boundary, _LANES, [], ahead)
    b.loop(boundary, STATE_LENGTH, _LANES, [], behind)
    return b.function("twist", "ptr %state", internal=True)


def _temper(b: Builder, y: Var) -> Var:
    y = b.xor(y, b.lshr(y, 11))
    y = b.xor(y, b.and_(b.shl(y, 7), 0x9D2C5680 - (1 << 32)))
    y = b.xor(y, b.and_(b.shl(y, 15), 0xEFC60000 - (1 << 32)))
    return b.xor(y, b.lshr(y, 18))


def draw_function() -> tuple[str, Builder]:
    """``@draw(state, out, count)``: the next ``count`` numbers; up to 15 words more are written."""
    b = Builder()
    state, out, count = Var(PTR, "%state"), Var(PTR, "%out"), Var(I64, "%count")
    left_address, next_address = block_word(b, state, LEFT), block_word(b, state, NEXT)

    def refill() -> None:
        b.do(f"call void @twist({state})")
        b.store(b.constant(STATE_LENGTH + 1, "i32"), left_address, 4)
        b.store(b.constant(0, "i32"), next_address, 4)

    def segment(_: Var, carried: list[Var]) -> list[Var]:
        [done] = carried
        wanted = b.sub(count, done)
        empty = b.compare("eq", b.load("i32", left_address, 4), 1)
        b.if_(b.and_(empty, b.compare("sgt", wanted, 0)), refill)
        left, position = b.load("i32", left_address, 4), b.load("i32", next_address, 4)
        available = b.sub(b.convert("sext", left, I64), 1)
        taken = b.min(wanted, available)
        source = b.gep("i32", state, b.convert("sext", position, I64))
        target = b.gep("i32", out, done)

        def copy(i: Var, _: list[Var]) -> None:
            numbers = _temper(b, b.load(_VECTOR, b.gep("i32", source, i), 4))
            b.store(numbers, b.gep("i32", target, i), 4)

        b.loop(0, b.and_(b.add(taken, _LANES - 1), -_LANES), _LANES, [], copy)
        moved = b.convert("trunc", taken, "i32")
        b.store(b.sub(left, moved), left_address, 4)
        b.store(b.add(position, moved), next_address, 4)
        return [b.add(done, taken)]

    segments = b.add(b.div(count, STATE_LENGTH), 2)
    b.loop(0, segments, 1, [b.constant(0)], segment)
    return b.function("draw", "ptr %state, ptr %out, i64 %count", internal=True), b


def draw(b: Builder, state: Var, out: Var, count: Var | int) -> None:
    number = count if isinstance(count, Var) else b.constant(count)
    b.do(f"call void @draw({state}, {out}, {number})")


# -- the loop of the kernels -------------------------------------------------------------------


def random_module(name: str, body: Callable[[Builder], None]) -> str:
    """A module of one kernel: ``name(args, begin, end)``, with the engine that it calls."""
    b = Builder()
    body(b)
    draw_text, draw_builder = draw_function()
    kernel = b.function(name, KERNEL_PARAMETERS)
    return module([twist_function(), draw_text, kernel], [b, draw_builder])


Transform = Callable[[Builder, Var, Var], Var]


def fill_body(target: dtype, draws: int, transform: Transform) -> Callable[[Builder], None]:
    """Fills ``out[begin:end]`` in order, with one 32-bit or (``draws`` 2) one 64-bit draw each.

    ``transform(b, numbers, index)`` turns a vector of draws, for the elements from ``index`` on,
    into what memory holds.  A 64-bit draw has its first number in the low half, as memory has it.
    """
    width = _LANES if draws == 1 else _LANES // 2
    numbers_type = vector("i32" if draws == 1 else I64, width)

    def body(b: Builder) -> None:
        state, out = b.argument(ARGS, STATE_WORD, PTR), b.argument(ARGS, OUT_WORD, PTR)
        scratch = block_word(b, state, SCRATCH)
        per_chunk = CHUNK // draws
        total = b.sub(END, BEGIN)
        chunks = b.div(b.add(total, per_chunk - 1), per_chunk)

        def chunk(k: Var, _: list[Var]) -> None:
            start = b.add(BEGIN, b.mul(k, per_chunk))
            count = b.min(b.sub(END, start), per_chunk)
            draw(b, state, scratch, b.mul(count, draws))

            def values(i: Var) -> tuple[Var, Var]:
                numbers = b.load(numbers_type, b.gep("i32", scratch, b.mul(i, draws)), 4)
                index = b.add(start, i)
                return transform(b, numbers, index), b.gep(target.llvm, out, index)

            def full(i: Var, _: list[Var]) -> None:
                value, address = values(i)
                b.store(value, address, target.itemsize)

            def tail() -> None:
                value, address = values(rest)
                b.masked_store(value, address, b.mask(b.sub(count, rest), width), target.itemsize)

            rest, _ = b.loop(0, count, width, [], full)
            b.if_(b.compare("slt", rest, count), tail)

        b.loop(0, chunks, 1, [], chunk)

    return body
