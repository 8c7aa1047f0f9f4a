"""Plans in single precision, run on operands in half precision: copied, computed, copied back.

Sums are then in single precision and rounded once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

from flambeau.compiler.builder import BEGIN, END, KERNEL_PARAMETERS, Builder, Var, module
from flambeau.compiler.gemm_micro import TileShape, tile_shape
from flambeau.compiler.gemm_pack import (
    load_widened,
    memory_type,
    read_words,
    store_narrowed,
)
from flambeau.compiler.kernel_step import WORKSPACE, KernelStep, Pointer, Word
from flambeau.compiler.library_plan import KernelModule, LibraryPlan, PlanWriter, ceil_div
from flambeau.compiler.target import Target
from flambeau.core.dtype import bfloat16, dtype, float16, float32

# What the kernels call them.
HALF_TYPES = {float16: "half", bfloat16: "bfloat"}

WIDEN, NARROW = "widen", "narrow"

# target[i] = source[i]; a task is a run of `RUN` elements.
WORDS = ("source", "target", "count")

RUN = 1 << 12

_POINTERS = frozenset({"source", "target"})


@functools.cache
def conversion_module(tile: TileShape) -> KernelModule:
    """The kernels for one type of half precision."""
    return KernelModule(
        key=f"widened {tile.stored} {tile.lanes}",
        source=functools.partial(_source, tile),
        words={WIDEN: WORDS, NARROW: WORDS},
    )


def _source(tile: TileShape) -> str:
    parts = [_copy(tile, WIDEN), _copy(tile, NARROW)]
    return module([text for text, _ in parts], [builder for _, builder in parts])


def _copy(tile: TileShape, name: str) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, WORDS, _POINTERS)

    def copy_run(task: Var, _: list[Var]) -> None:
        first = builder.mul(task, RUN)
        stop = builder.min(builder.add(first, RUN), words["count"])
        index, _ = builder.loop(first, stop, tile.lanes, [], lambda i, _: copy(i, None))
        left = builder.sub(stop, index)
        rest = builder.compare("sgt", left, 0)
        builder.if_(rest, lambda: copy(index, builder.mask(left, tile.lanes)))

    def copy(index: Var, mask: Var | None) -> None:
        stored = memory_type(tile)
        if name == WIDEN:
            source = builder.gep(stored, words["source"], index)
            value = load_widened(builder, tile, source, tile.lanes, mask)
            _store(builder.gep(tile.element, words["target"], index), value, mask)
        else:
            value = _load(builder.gep(tile.element, words["source"], index), mask)
            target = builder.gep(stored, words["target"], index)
            store_narrowed(builder, tile, value, target, mask)

    def _load(address: Var, mask: Var | None) -> Var:
        if mask is None:
            return builder.load(tile.vector, address, tile.size)
        return builder.masked_load(tile.vector, address, mask, tile.size)

    def _store(address: Var, value: Var, mask: Var | None) -> None:
        if mask is None:
            builder.store(value, address, tile.size)
        else:
            builder.masked_store(value, address, mask, tile.size)

    builder.loop(BEGIN, END, 1, [], copy_run)
    return builder.function(name, KERNEL_PARAMETERS), builder


def widened(
    plan: LibraryPlan,
    stored: dtype,
    target: Target,
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
) -> LibraryPlan:
    """``plan``, made for single precision, on operands that are ``stored`` in half precision.

    ``inputs`` and ``outputs`` are the operands in question with their numbers of elements; others
    are left alone.
    """
    writer = PlanWriter()
    writer.reserve(plan.workspace_bytes)
    conversions = conversion_module(tile_shape(HALF_TYPES[stored], target))
    copies = {
        name: writer.reserve(count * float32.itemsize)
        for name, count in (*inputs.items(), *outputs.items())
    }

    def add(function: str, source: Pointer, copy: Pointer, count: int) -> None:
        words: dict[str, Word] = {"source": source, "target": copy, "count": count}
        grain = max(1, (1 << 14) // RUN)
        writer.add(conversions.step(function, words, ceil_div(count, RUN), grain))

    for name, count in inputs.items():
        add(WIDEN, Pointer(name), copies[name], count)
    writer.steps += [_on_copies(step, copies) for step in plan.steps]
    for name, count in outputs.items():
        add(NARROW, copies[name], Pointer(name), count)
    return replace(writer.finish(), constants=plan.constants)


def _on_copies(step: KernelStep, copies: Mapping[str, Pointer]) -> KernelStep:
    return replace(step, words=tuple(_on_copy(word, copies) for word in step.words))


def _on_copy(word: Word, copies: Mapping[str, Pointer]) -> Word:
    if isinstance(word, Pointer) and word.operand in copies:
        start = copies[word.operand]
        return Pointer(WORKSPACE, start.byte_offset + word.byte_offset)
    return word
