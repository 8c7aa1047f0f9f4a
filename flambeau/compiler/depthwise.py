"""Depthwise convolution, one input channel to each filter, with windows that move by one column.

There is nothing to share between filters, so what counts is the way of a plane: a strip of it is
padded into scratch that stays in the first-level cache, and the sums of up to eight rows of a
vector of columns are in registers while the taps pass by.  Each output element is one chain of
additions in the order of the taps, as in `correlation`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from flambeau.compiler.builder import (
    BEGIN,
    END,
    I64,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
    module,
)
from flambeau.compiler.correlation import advance, for_columns, load_columns
from flambeau.compiler.gemm_micro import TileShape, multiply_add
from flambeau.compiler.gemm_pack import read_words
from flambeau.compiler.kernel_step import Pointer, Word
from flambeau.compiler.library_plan import KernelModule, PlanWriter, ceil_div

DEPTHWISE = "depthwise"

# out[image][filter] of source[image][filter / multiplier], with weight[filter][tap].  A task is a
# worker, which has its share of the planes and ``scratch_size`` elements of scratch.  Row r of a
# strip reads from line ``r * row_stride`` of the scratch on.
WORDS = (
    "source", "weight", "bias", "bias_step", "out", "scratch", "tap_offsets", "taps",
    "planes", "workers", "filters", "multiplier", "scratch_size", "line",
    "in_rows", "in_columns", "out_rows", "out_columns", "top", "left",
    "row_stride", "row_reach", "strip_rows",
)  # fmt: skip

_POINTERS = frozenset({"source", "weight", "bias", "out", "scratch", "tap_offsets"})

# Rows whose sums are in registers at a time: enough chains to hide the latency of an addition.
MOST_ROWS = 8

# A strip's padded source stays in the first-level cache.
SCRATCH_BYTES = 24 << 10

WORKERS = 32

_TILE_PARAMETERS = (
    "ptr %source, i64 %source_row, ptr %tap_offsets, ptr %weight, i64 %taps, ptr %bias, "
    "ptr %out, i64 %out_row, i64 %count"
)


@functools.cache
def depthwise_module(tile: TileShape) -> KernelModule:
    """The kernel for one element type: shapes are arguments."""
    return KernelModule(
        key=f"depthwise {tile.element} {tile.lanes}",
        source=functools.partial(_source, tile),
        words={DEPTHWISE: WORDS},
    )


def _source(tile: TileShape) -> str:
    parts = [_tile_function(tile, rows) for rows in range(1, MOST_ROWS + 1)]
    parts.append(_depthwise(tile))
    return module([text for text, _ in parts], [builder for _, builder in parts])


def _tile_function(tile: TileShape, rows: int) -> tuple[str, Builder]:
    """``rows`` output rows of a vector of columns, ``count`` of which exist."""
    builder = Builder()
    values = {"source": Var(PTR, "%source"), "out": Var(PTR, "%out")}
    sources, outs = (
        [advance(builder, tile, values[name], builder.constant(row), Var(I64, f"%{name}_row"))
         for row in range(rows)]
        for name in ("source", "out")
    )  # fmt: skip
    start = builder.load(tile.element, Var(PTR, "%bias"), tile.size)
    sums = [builder.splat(start, tile.lanes)] * rows

    def add_tap(tap: Var, sums: list[Var]) -> list[Var]:
        shift = builder.load(I64, builder.gep(I64, Var(PTR, "%tap_offsets"), tap), 8)
        place = builder.gep(tile.element, Var(PTR, "%weight"), tap)
        weight = builder.splat(builder.load(tile.element, place, tile.size), tile.lanes)
        updated = []
        for source, total in zip(sources, sums, strict=True):
            address = builder.gep(tile.element, source, shift)
            value = builder.load(tile.vector, address, tile.size)
            updated.append(multiply_add(builder, tile, weight, value, total))
        return updated

    _, sums = builder.loop(0, Var(I64, "%taps"), 1, sums, add_tap)
    count = Var(I64, "%count")

    def store(masked: bool) -> list[Var]:
        mask = builder.mask(count, tile.lanes)
        for out, total in zip(outs, sums, strict=True):
            if masked:
                builder.masked_store(total, out, mask, tile.size)
            else:
                builder.store(total, out, tile.size)
        return []

    full = builder.compare("sge", count, tile.lanes)
    builder.if_else(full, lambda: store(False), lambda: store(True))
    return builder.function(f"rows_{rows}", _TILE_PARAMETERS, internal=True), builder


def _depthwise(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, WORDS, _POINTERS)
    in_plane = builder.mul(words["in_rows"], words["in_columns"])
    out_plane = builder.mul(words["out_rows"], words["out_columns"])
    source_row = builder.mul(words["row_stride"], words["line"])

    def run_worker(worker: Var, _: list[Var]) -> None:
        scratch = advance(builder, tile, words["scratch"], worker, words["scratch_size"])
        first = builder.div(builder.mul(worker, words["planes"]), words["workers"])
        after = builder.mul(builder.add(worker, 1), words["planes"])
        last = builder.div(after, words["workers"])
        builder.loop(first, last, 1, [], functools.partial(run_plane, scratch))

    def run_plane(scratch: Var, plane: Var, _: list[Var]) -> None:
        number = builder.rem(plane, words["filters"])
        # Planes of the source are as many times fewer, image by image.
        seen = builder.div(plane, words["multiplier"])
        source = advance(builder, tile, words["source"], seen, in_plane)
        out = advance(builder, tile, words["out"], plane, out_plane)
        weight = advance(builder, tile, words["weight"], number, words["taps"])
        bias = advance(builder, tile, words["bias"], number, words["bias_step"])
        stop = builder.add(words["out_rows"], builder.sub(words["strip_rows"], 1))
        strips = builder.div(stop, words["strip_rows"])

        def run_strip(strip: Var, _: list[Var]) -> None:
            first = builder.mul(strip, words["strip_rows"])
            rows = builder.min(words["strip_rows"], builder.sub(words["out_rows"], first))
            top = builder.sub(builder.mul(first, words["row_stride"]), words["top"])
            lines = builder.mul(builder.sub(rows, 1), words["row_stride"])
            lines = builder.add(builder.add(lines, words["row_reach"]), 1)
            builder.loop(0, lines, 1, [], functools.partial(read_line, source, scratch, top))
            target = advance(builder, tile, out, first, words["out_columns"])
            run_rows(scratch, target, weight, bias, rows)

        builder.loop(0, strips, 1, [], run_strip)

    def read_line(source: Var, scratch: Var, top: Var, line: Var, _: list[Var]) -> None:
        row = builder.add(top, line)
        inside = builder.compare("ult", row, words["in_rows"])
        place = builder.select(inside, row, 0)
        start = advance(builder, tile, source, place, words["in_columns"])
        valid = builder.select(inside, words["in_columns"], 0)
        target = advance(builder, tile, scratch, line, words["line"])

        def copy(column: Var) -> None:
            shifted = builder.sub(column, words["left"])
            value = load_columns(builder, tile, start, shifted, valid)
            builder.store(value, builder.gep(tile.element, target, column), tile.size)

        for_columns(builder, tile, words["line"], copy)

    def run_rows(scratch: Var, target: Var, weight: Var, bias: Var, rows: Var) -> None:
        def run_columns(column: Var) -> None:
            count = builder.sub(words["out_columns"], column)
            stop = builder.add(rows, MOST_ROWS - 1)

            def run_group(row: Var, _: list[Var]) -> None:
                source = advance(builder, tile, scratch, row, source_row)
                out = advance(builder, tile, target, row, words["out_columns"])
                arguments = [
                    builder.gep(tile.element, source, column), source_row,
                    words["tap_offsets"], weight, words["taps"], bias,
                    builder.gep(tile.element, out, column), words["out_columns"], count,
                ]  # fmt: skip
                text = ", ".join(map(str, arguments))

                def call(height: int) -> None:
                    builder.do(f"call void @rows_{height}({text})")

                left = builder.min(builder.sub(rows, row), MOST_ROWS)
                heights = range(1, MOST_ROWS + 1)
                builder.switch(left, {h: functools.partial(call, h) for h in heights})

            builder.loop(0, stop, MOST_ROWS, [], run_group)

        for_columns(builder, tile, words["out_columns"], run_columns)

    builder.loop(BEGIN, END, 1, [], run_worker)
    return builder.function(DEPTHWISE, KERNEL_PARAMETERS), builder


# -- planning --------------------------------------------------------------------------------------

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DepthwiseProblem:
    """``filters`` planes of each image, ``multiplier`` of them from the same plane of ``memory``.

    Tap t of the weights is ``taps[t]`` = (rows, columns) from the first element of the window; the
    window moves by ``row_stride`` rows, and by one column.
    """

    images: int
    filters: int
    multiplier: int
    memory: Pair
    out: Pair
    low: Pair
    taps: tuple[Pair, ...]
    row_stride: int
    source: Pointer
    weight: Pointer
    bias: Pointer | None
    target: Pointer


def add_depthwise_step(writer: PlanWriter, tile: TileShape, problem: DepthwiseProblem) -> None:
    """The one step that computes ``problem``."""
    planes = problem.images * problem.filters
    if not planes or not problem.out[0] * problem.out[1]:
        return
    row_reach, column_reach = (max(tap[axis] for tap in problem.taps) for axis in range(2))
    # Whole vectors are read from every column on.
    columns = ceil_div(problem.out[1], tile.lanes) * tile.lanes + column_reach
    line = ceil_div(columns, tile.lanes) * tile.lanes
    lines = max(row_reach + 1, SCRATCH_BYTES // (line * tile.size))
    strip_rows = min(problem.out[0], (lines - row_reach - 1) // problem.row_stride + 1)
    strips = ceil_div(problem.out[0], strip_rows)
    strip_rows = ceil_div(problem.out[0], strips)
    size = ((strip_rows - 1) * problem.row_stride + row_reach + 1) * line
    workers = min(planes, WORKERS)
    offsets = [row * line + column for row, column in problem.taps]
    arguments: dict[str, Word] = {
        "source": problem.source,
        "weight": problem.weight,
        "bias": problem.bias or writer.constant(np.zeros(1)),
        "bias_step": 1 if problem.bias else 0,
        "out": problem.target,
        "scratch": writer.reserve(workers * size * tile.size),
        "tap_offsets": writer.constant(np.array(offsets, np.int64)),
        "taps": len(problem.taps),
        "planes": planes,
        "workers": workers,
        "filters": problem.filters,
        "multiplier": problem.multiplier,
        "scratch_size": size,
        "line": line,
        "in_rows": problem.memory[0],
        "in_columns": problem.memory[1],
        "out_rows": problem.out[0],
        "out_columns": problem.out[1],
        "top": problem.low[0],
        "left": problem.low[1],
        "row_stride": problem.row_stride,
        "row_reach": row_reach,
        "strip_rows": strip_rows,
    }
    writer.add(depthwise_module(tile).step(DEPTHWISE, arguments, workers))
