"""Scatter kernels: values written or combined at computed places, in a fixed order.

Rows at offsets: ``destination[offsets[r] + j] op= values[r * length + j]`` for rows ``r`` in order.
Elements along a dimension: ``destination[o, index[o, i, n], n] op= values[o, i, n]`` for ``i`` in
order.  Tasks are ranges of ``j``, or of ``o`` and ``n``, so no two threads meet at one element and
every element combines its values in the same order: the result is the same for any number of
threads, without atomics.
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


# Columns that one task takes along a dimension.
_BLOCK = 1024


def _combine(b: Builder, dtype: dtype, mode: str, address: Var, source: Var, width: int) -> None:
    """``address op= source`` for neighbouring elements."""
    size, type_ = dtype.itemsize, vector(dtype.llvm, width)
    new = b.load(type_, source, size)
    if mode != "set":
        have = emit.from_memory(b, b.load(type_, address, size), dtype)
        value = emit.combine(b, mode, dtype, have, emit.from_memory(b, new, dtype))
        if dtype in (types.float16, types.bfloat16):
            value = emit.convert(b, value, types.float32, dtype)
        new = emit.to_memory(b, value, dtype)
    b.store(new, address, size)


def scatter_source(dtype: dtype, mode: str) -> str:
    """Words: destination, values, offsets, rows, length."""
    b = Builder()
    destination = b.argument(ARGS, 0, "ptr")
    values = b.argument(ARGS, 1, "ptr")
    offsets = b.argument(ARGS, 2, "ptr")
    rows, length = b.argument(ARGS, 3), b.argument(ARGS, 4)
    element = dtype.llvm

    def row(r: Var, _: list[Var]) -> None:
        offset = b.load(I64, b.gep(I64, offsets, r), 8)
        target = b.gep(element, destination, offset)
        source = b.gep(element, values, b.mul(r, length))

        def piece(width: int) -> Callable[[Var, list[Var]], None]:
            def body(j: Var, _: list[Var]) -> None:
                _combine(
                    b, dtype, mode, b.gep(element, target, j), b.gep(element, source, j), width
                )

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


def along_source(dtype: dtype, index_type: dtype, mode: str) -> str:
    """Words: destination, values, index, count, inner, size, value step (0 for one value)."""
    b = Builder()
    destination, values, index = (b.argument(ARGS, k, "ptr") for k in range(3))
    count, inner, size, step = (b.argument(ARGS, k) for k in range(3, 7))
    element = dtype.llvm

    def task(number: Var, _: list[Var]) -> None:
        blocks = b.div(b.add(inner, _BLOCK - 1), _BLOCK)
        outer, first = b.div(number, blocks), b.mul(b.rem(number, blocks), _BLOCK)
        last = b.min(b.add(first, _BLOCK), inner)
        rows = b.mul(outer, count)
        target = b.gep(element, destination, b.mul(b.mul(outer, size), inner))

        def row(i: Var, _: list[Var]) -> None:
            start = b.mul(b.add(rows, i), inner)

            def column(n: Var, _: list[Var]) -> None:
                at = b.add(start, n)
                raw = b.load(
                    index_type.llvm, b.gep(index_type.llvm, index, at), index_type.itemsize
                )
                entry = b.convert("sext", raw, I64)
                entry = b.select(b.compare("slt", entry, 0), b.add(entry, size), entry)
                address = b.gep(element, target, b.add(b.mul(entry, inner), n))
                _combine(b, dtype, mode, address, b.gep(element, values, b.mul(at, step)), 1)

            b.loop(first, last, 1, [], column)

        b.loop(0, count, 1, [], row)

    b.loop(BEGIN, END, 1, [], task)
    return module([b.function("scatter_along", KERNEL_PARAMETERS)], [b])


def plan_scatter_along(
    dtype: dtype, index_type: dtype, mode: str, blocks: tuple[int, int, int], size: int, step: int
) -> tuple[KernelStep, ...]:
    """Operands ``destination`` (outer, size, inner), ``values`` and ``index``, ``blocks`` of
    (outer, count, inner); ``step`` is 0 where ``values`` is a single number.
    """
    outer, count, inner = blocks
    width = -(-inner // _BLOCK)
    native = KernelStep(
        f"scatter along {dtype.name} {index_type.name} {mode}",
        lambda: along_source(dtype, index_type, mode),
        "scatter_along",
        (Pointer("destination"), Pointer("values"), Pointer("index"), count, inner, size, step),
        outer * width if count else 0,
        max(1, _GRAIN // max(count * min(inner, _BLOCK), 1)),
    )
    return (native,)


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
