"""CRC-32 as zip archives have it, by carry-less multiplication: several bytes per clock cycle.

A message is a polynomial over GF(2).  Four vectors of 128-bit lanes hold the remainder of what was
read so far, up to a factor: for each next block they are moved up by its length (each half of a
lane times a power of x modulo the generator) and the block is added.  What is left at the end has
the same remainder as the whole, and is a message of one block's length.
"""

from __future__ import annotations

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
from flambeau.compiler.target import Target

FUNCTION = "fold"
_GENERATOR = 0x104C11DB7
_VECTORS = 4


def vector_bytes(target: Target) -> int:
    """How wide the target multiplies without carry; 0 where it cannot."""
    if {"vpclmulqdq", "avx512f"} <= target.features and target.name == "avx512":
        return 64
    if {"vpclmulqdq", "avx2"} <= target.features and target.name in ("avx512", "avx2"):
        return 32
    return 16 if {"pclmul", "sse4.1"} <= target.features else 0


def block_bytes(target: Target) -> int:
    """How many bytes one turn of the loop takes."""
    return _VECTORS * vector_bytes(target)


def _power(exponent: int) -> int:
    """``x**exponent`` modulo the generator, its bits in the order that messages have, times x."""
    value = 1
    for _ in range(exponent):
        value <<= 1
        if value >> 32:
            value ^= _GENERATOR
    return int(f"{value:032b}"[::-1], 2) << 1


def fold_source(target: Target) -> str:
    """Words: data, state (one block, in and out: zeros with the start in the first four bytes).

    The task range is in blocks.  The state becomes a message of one block with the remainder of the
    state and the blocks after it.
    """
    b = Builder()
    size = vector_bytes(target)
    type_ = vector(I64, size // 8)
    data, state = b.argument(ARGS, 0, PTR), b.argument(ARGS, 1, PTR)
    distance = 8 * _VECTORS * size
    halves = [_power(distance + 32), _power(distance - 32)] * (size // 16)
    factors = Var(type_, "<" + ", ".join(f"i64 {k}" for k in halves) + ">")
    name = {16: "llvm.x86.pclmulqdq", 32: "llvm.x86.pclmulqdq.256", 64: "llvm.x86.pclmulqdq.512"}

    def block(number: Var, carried: list[Var]) -> list[Var]:
        start = b.gep("i8", data, b.mul(number, _VECTORS * size))
        following = []
        for k, before in enumerate(carried):
            raised = [
                b.intrinsic(name[size], type_, before, factors, Var("i8", half))
                for half in ("0", "17")
            ]
            new = b.load(type_, b.gep("i8", start, k * size), 1)
            following.append(b.xor(b.xor(raised[0], raised[1]), new))
        return following

    before = [b.load(type_, b.gep("i8", state, k * size), 1) for k in range(_VECTORS)]
    _, after = b.loop(BEGIN, END, 1, before, block)
    for k, value in enumerate(after):
        b.store(value, b.gep("i8", state, k * size), 1)
    return module([b.function(FUNCTION, KERNEL_PARAMETERS)], [b])
