"""Scatter kernels: values written or combined at computed offsets, in a fixed order.

``destination[offsets[r] + j] op= values[r * length + j]`` for rows ``r`` in order.  Tasks are
ranges of ``j``, so no two threads meet at one element and every element combines its values in row
order: the result is the same for any number of threads, without atomics.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler import emit
from flambeau.compiler.builder import (
    ARGS,
    BEGIN,
    END,
    I64,
    KERNEL_PARAMETERS,
    Builder,
    Var,
    module,
    vector,
)
from flambeau.compiler.kernel_step import KernelStep, Pointer
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

MODES = ("set", "sum", "prod", "max", "min")
_WIDTH = 16
_GRAIN = 4096


def scatter_source(dtype: dtype, mode: str) -> str:
    """Words: destination, values, offsets, rows, length."""
    b = Builder()
    destination = b.argument(ARGS, 0, "ptr")
    values = b.argument(ARGS, 1, "ptr")
    offsets = b.argument(ARGS, 2, "ptr")
    rows, length = b.argument(ARGS, 3), b.argument(ARGS, 4)
    size, element = dtype.itemsize, dtype.llvm

    def combine(address: Var, source: Var, width: int) -> None:
        type_ = vector(element, width)
        new = b.load(type_, source, size)
        if mode != "set":
            have = emit.from_memory(b, b.load(type_, address, size), dtype)
            value = emit.combine(b, mode, dtype, have, emit.from_memory(b, new, dtype))
            if dtype in (types.float16, types.bfloat16):
                value = emit.convert(b, value, types.float32, dtype)
            new = emit.to_memory(b, value, dtype)
        b.store(new, address, size)

    def row(r: Var, _: list[Var]) -> None:
        offset = b.load(I64, b.gep(I64, offsets, r), 8)
        target = b.gep(element, destination, offset)
        source = b.gep(element, values, b.mul(r, length))

        def piece(width: int) -> Callable[[Var, list[Var]], None]:
            def body(j: Var, _: list[Var]) -> None:
                combine(b.gep(element, target, j), b.gep(element, source, j), width)

            return body

        j, _ = b.loop(BEGIN, END, _WIDTH, [], piece(_WIDTH))
        b.loop(j, END, 1, [], piece(1))

    b.loop(0, rows, 1, [], row)
    return module([b.function("scatter", KERNEL_PARAMETERS)], [b])


def plan_scatter(dtype: dtype, mode: str, rows: int, length: int) -> tuple[KernelStep, ...]:
    """Operands ``destination``, ``values`` (rows, length) and ``offsets`` (rows, int64
    elements).
    """
    step = KernelStep(
        f"scatter {dtype.name} {mode}",
        lambda: scatter_source(dtype, mode),
        "scatter",
        (Pointer("destination"), Pointer("values"), Pointer("offsets"), rows, length),
        length if rows else 0,
        max(1, _GRAIN // max(rows, 1)),
    )
    return (step,)


def nonzero_source() -> str:
    """Writes the positions of true bytes, in order.  Words: mask, result, count."""
    b = Builder()
    mask, result, count = (
        b.argument(ARGS, 0, "ptr"),
        b.argument(ARGS, 1, "ptr"),
        b.argument(ARGS, 2),
    )

    def element(i: Var, carried: list[Var]) -> list[Var]:
        (at,) = carried
        b.store(i, b.gep(I64, result, at), 8)
        byte = b.load("i8", b.gep("i8", mask, i), 1)
        return [b.add(at, b.convert("zext", b.compare("ne", byte, 0), I64))]

    b.loop(0, count, 1, [b.constant(0)], element)
    return module([b.function("nonzero", KERNEL_PARAMETERS)], [b])


def plan_nonzero(count: int) -> tuple[KernelStep, ...]:
    """Operands ``mask`` (count bytes) and ``result`` (int64, one place more than there are
    trues).
    """
    words = (Pointer("mask"), Pointer("result"), count)
    return (KernelStep("nonzero", nonzero_source, "nonzero", words, 1 if count else 0),)
