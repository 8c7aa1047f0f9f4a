"""Correlation kernels: the direct implicit matrix product behind forward and backward convolution.

For each image, ``out[row, position] = bias[row] + sum over taps of weight[row, tap] *
source[position + offset[tap]]``.  A *tap* is a pair of input channel and place in the kernel
window; its offset comes from a table, so the patches of the image are never copied out.
Neighbouring positions of one output row are the lanes of a vector, which the layout of the source
makes contiguous: padding is written out and, for a stride s, a plane is stored as s phases (columns
0, s, 2s …, then 1, s + 1 …).  Each output element is one chain of additions in the order of the
taps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from flambeau.compiler.builder import (
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
from flambeau.compiler.correlation_blocks import BLOCKS, BlockKernel
from flambeau.compiler.gemm_micro import ROWS_PER_BASE, TileShape, multiply_add, opaque
from flambeau.compiler.gemm_pack import panel_start, read_words
from flambeau.compiler.library_plan import KernelModule

PACK, PAD, PAD_PAIRS, PAD_ANY = "pack_weights", "pad", "pad_pairs", "pad_any"
CORRELATE, ARRANGE = "correlate", "arrange"

# packed[group][panel][tap][row]; panels have ``height`` rows, the later ones one less (and junk in
# its place); the weight of a row and tap lies at ``row * row_stride + tap_table[tap]``.
# A task is a panel.
PACK_WORDS = (
    "weight", "packed", "tap_table", "taps", "group_stride", "row_stride",
    "rows", "panels", "height", "tall_panels",
)  # fmt: skip

# A task is a row of a plane (an image and channel), in all phases.  Row r of row phase q is row
# ``r * row_step + q * row_phase_step - top`` of the source, and column j of phase p its column
# ``j * column_step + p * phase_step - left``; what the source lacks is zero.
PAD_WORDS = (
    "source", "padded", "channels", "source_rows", "source_columns",
    "image_stride", "channel_stride", "row_phase_stride", "phase_stride", "row_stride",
    "padded_rows", "phase_rows", "phase_columns", "phases",
    "row_step", "column_step", "row_phase_step", "phase_step", "top", "left",
)  # fmt: skip

# A task is ``vectors`` (see `vector_counts`) groups of columns, of all rows of one block of panels.
# The weight of a row and tap lies at ``row * weight_row + tap_weights[tap]`` of the panel, which
# begins at ``group * weight_group + first row * weight_first + panel * weight_panel``.
CORRELATE_WORDS = (
    "source", "weights", "out", "tap_offsets", "tap_weights", "taps", "bias", "bias_step",
    "weight_group", "weight_first", "weight_panel", "weight_row",
    "image_stride", "group_stride", "row_step",
    "out_image", "out_channel", "out_row", "columns", "column_groups", "total_groups", "chunks",
    "groups", "rows", "panels", "panel_blocks", "panels_per_block", "height", "tall_panels",
    "vectors",
)  # fmt: skip

# A task is a row: target[image][channel][row][j] =
# source[image * image_stride + channel * channel_stride + row_table[row] + column_table[j]].
ARRANGE_WORDS = (
    "source", "target", "channels", "image_stride", "channel_stride", "rows", "columns",
    "row_table", "column_table",
)  # fmt: skip

BLOCK_KERNEL = BlockKernel(
    {0: PAD, 1: PAD_PAIRS, 2: PAD_ANY},
    PAD_WORDS,
    (CORRELATE, CORRELATE_WORDS),
    (ARRANGE, ARRANGE_WORDS),
)

_POINTERS = frozenset(
    {"weight", "packed", "tap_table", "source", "padded", "out", "tap_offsets", "bias", "target",
     "row_table", "column_table", "weights", "tap_weights"}
)  # fmt: skip


# Taps that are packed for all rows of a panel before the next ones: their lines stay in the cache.
TAP_BLOCK = 16


def vector_counts(tile: TileShape) -> dict[int, int]:
    """Column vectors of a tile -> the most rows whose sums still fit into the registers."""
    spare = tile.registers - 2
    return {2: tile.rows, 4: (spare - 4) // 4} if tile.registers > 16 else {2: tile.rows, 4: 2}


@functools.cache
def correlation_module(tile: TileShape) -> KernelModule:
    """The kernels for one element type: shapes are arguments."""
    return KernelModule(
        key=f"correlation {tile.element} {tile.lanes}",
        source=functools.partial(_source, tile),
        words={
            PACK: PACK_WORDS,
            PAD: PAD_WORDS,
            PAD_PAIRS: PAD_WORDS,
            PAD_ANY: PAD_WORDS,
            CORRELATE: CORRELATE_WORDS,
            ARRANGE: ARRANGE_WORDS,
            BLOCKS: BLOCK_KERNEL.words,
        },
    )


def _source(tile: TileShape) -> str:
    parts = [
        _tile_function(tile, rows, vectors)
        for vectors, most in vector_counts(tile).items()
        for rows in range(1, most + 1)
    ]
    parts += [
        _correlate(tile),
        _pack(tile),
        _pad(tile, PAD, _copy_row),
        _pad(tile, PAD_PAIRS, _split_pairs),
        _pad(tile, PAD_ANY, _split_any),
        _arrange(tile),
        BLOCK_KERNEL.function(tile),
    ]
    return module([text for text, _ in parts], [builder for _, builder in parts])


# -- the register tile -----------------------------------------------------------------------------


def _tile_name(rows: int, vectors: int) -> str:
    return f"tile_{rows}x{vectors}"


def _tile_function(tile: TileShape, rows: int, vectors: int) -> tuple[str, Builder]:
    """``rows`` outputs at ``vectors`` groups of positions, each with its own source and target."""
    builder = Builder()
    weights, bias = Var(PTR, "%weights"), Var(PTR, "%bias")
    sources = [Var(PTR, f"%source{j}") for j in range(vectors)]
    row_steps = [
        opaque(builder, builder.mul(Var(I64, "%weight_row"), row))
        for row in range(min(rows, ROWS_PER_BASE + 1))
    ]

    def tap_entry(table: str, tap: Var) -> Var:
        return builder.load(I64, builder.gep(I64, Var(PTR, table), tap), 8)

    def add_tap(tap: Var, sums: list[Var]) -> list[Var]:
        tap_offset = tap_entry("%tap_offsets", tap)
        columns = [
            builder.load(tile.vector, builder.gep(tile.element, source, tap_offset), tile.size)
            for source in sources
        ]
        base = builder.gep(tile.element, weights, tap_entry("%tap_weights", tap))
        updated = []
        for row in range(rows):
            step = row % ROWS_PER_BASE
            if row and not step:
                base = opaque(builder, builder.gep(tile.element, base, row_steps[ROWS_PER_BASE]))
            address = builder.gep(tile.element, base, row_steps[step]) if step else base
            weight = builder.load(tile.element, address, tile.size)
            spread = builder.splat(weight, tile.lanes)
            for j, column in enumerate(columns):
                chain = sums[row * vectors + j]
                updated.append(multiply_add(builder, tile, spread, column, chain))
        return updated

    def add_two_taps(tap: Var, sums: list[Var]) -> list[Var]:
        return add_tap(builder.add(tap, 1), add_tap(tap, sums))

    sums = []
    for row in range(rows):
        place = builder.gep(tile.element, bias, builder.mul(Var(I64, "%bias_step"), row))
        start = builder.splat(builder.load(tile.element, place, tile.size), tile.lanes)
        sums += [start] * vectors
    taps = Var(I64, "%taps")
    tap, sums = builder.loop(0, taps, 2, sums, add_two_taps)
    _, sums = builder.loop(tap, taps, 1, sums, add_tap)
    _store_tile(builder, tile, sums, vectors)
    return builder.function(_tile_name(rows, vectors), _tile_parameters(vectors), internal=True), (
        builder
    )


def _tile_parameters(vectors: int) -> str:
    shared = (
        "ptr %weights, i64 %weight_row, ptr %tap_offsets, ptr %tap_weights, i64 %taps, ptr %bias, "
        "i64 %bias_step, i64 %channel"
    )
    own = [f"ptr %source{j}, ptr %out{j}, i64 %count{j}" for j in range(vectors)]
    return ", ".join([shared, *own])


def _store_tile(builder: Builder, tile: TileShape, sums: list[Var], vectors: int) -> None:
    counts = [Var(I64, f"%count{j}") for j in range(vectors)]
    smallest = counts[0]
    for count in counts[1:]:
        smallest = builder.min(smallest, count)

    def store(masked: bool) -> list[Var]:
        masks = [builder.mask(count, tile.lanes) for count in counts] if masked else []
        for row in range(len(sums) // vectors):
            start = builder.mul(Var(I64, "%channel"), row)
            for j in range(vectors):
                address = builder.gep(tile.element, Var(PTR, f"%out{j}"), start)
                value = sums[row * vectors + j]
                if masked:
                    builder.masked_store(value, address, masks[j], tile.size)
                else:
                    builder.store(value, address, tile.size)
        return []

    full = builder.compare("sge", smallest, tile.lanes)
    builder.if_else(full, lambda: store(False), lambda: store(True))


# -- the driver ------------------------------------------------------------------------------------


def _correlate(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, CORRELATE_WORDS, _POINTERS)

    def run_task(task: Var, _: list[Var]) -> None:
        chunk, rest = split_number(builder, task, words["chunks"])
        block, rest = split_number(builder, rest, words["panel_blocks"])
        group, image = split_number(builder, rest, words["groups"])
        source = advance(builder, tile, words["source"], image, words["image_stride"])
        source = advance(builder, tile, source, group, words["group_stride"])
        first_row = builder.mul(group, words["rows"])
        out = advance(builder, tile, words["out"], image, words["out_image"])
        out = advance(builder, tile, out, first_row, words["out_channel"])
        weights = advance(builder, tile, words["weights"], group, words["weight_group"])
        bias = advance(builder, tile, words["bias"], first_row, words["bias_step"])
        first_panel = builder.mul(block, words["panels_per_block"])
        last_panel = builder.min(
            builder.add(first_panel, words["panels_per_block"]), words["panels"]
        )

        def run_panels(vectors: int) -> None:
            places = _chunk_places(builder, tile, words, chunk, vectors, source, out)
            builder.loop(
                first_panel,
                last_panel,
                1,
                [],
                lambda panel, _: _run_panel(builder, tile, words, panel, places, weights, bias),
            )

        cases = {vectors: functools.partial(run_panels, vectors) for vectors in vector_counts(tile)}
        builder.switch(words["vectors"], cases)

    builder.loop(BEGIN, END, 1, [], run_task)
    return builder.function(CORRELATE, KERNEL_PARAMETERS), builder


def _chunk_places(
    builder: Builder,
    tile: TileShape,
    words: dict[str, Var],
    chunk: Var,
    vectors: int,
    source: Var,
    out: Var,
) -> list[tuple[Var, Var, Var]]:
    """(source, out, count of columns) of the groups of a chunk; past the last group, count 0."""
    number = builder.mul(chunk, vectors)
    column_group, row = split_number(builder, number, words["column_groups"])
    places = []
    for j in range(vectors):
        start = builder.mul(column_group, tile.lanes)
        exists = builder.compare("slt", builder.add(number, j), words["total_groups"])
        source_at = builder.add(builder.mul(row, words["row_step"]), start)
        out_at = builder.add(builder.mul(row, words["out_row"]), start)
        places.append(
            (
                builder.gep(tile.element, source, builder.select(exists, source_at, 0)),
                builder.gep(tile.element, out, builder.select(exists, out_at, 0)),
                builder.select(exists, builder.sub(words["columns"], start), 0),
            )
        )
        column_group = builder.add(column_group, 1)
        wraps = builder.compare("sge", column_group, words["column_groups"])
        column_group = builder.select(wraps, 0, column_group)
        row = builder.add(row, builder.convert("zext", wraps, I64))
    return places


def _run_panel(
    builder: Builder,
    tile: TileShape,
    words: dict[str, Var],
    panel: Var,
    places: list[tuple[Var, Var, Var]],
    weights: Var,
    bias: Var,
) -> None:
    first = panel_start(builder, panel, words["height"], words["tall_panels"])
    after = builder.add(panel, 1)
    rows = builder.sub(panel_start(builder, after, words["height"], words["tall_panels"]), first)
    shift = builder.mul(first, words["out_channel"])
    weights = advance(builder, tile, weights, first, words["weight_first"])
    arguments = [
        advance(builder, tile, weights, panel, words["weight_panel"]),
        words["weight_row"],
        words["tap_offsets"],
        words["tap_weights"],
        words["taps"],
        advance(builder, tile, bias, first, words["bias_step"]),
        words["bias_step"],
        words["out_channel"],
    ]
    for source, out, count in places:
        arguments += [source, builder.gep(tile.element, out, shift), count]
    text = ", ".join(map(str, arguments))
    vectors = len(places)

    def call(height: int) -> None:
        builder.do(f"call void @{_tile_name(height, vectors)}({text})")

    heights = range(1, vector_counts(tile)[vectors] + 1)
    builder.switch(rows, {height: functools.partial(call, height) for height in heights})


def split_number(builder: Builder, number: Var, size: Var) -> tuple[Var, Var]:
    """Remainder and quotient of ``number`` by ``size``."""
    quotient = builder.div(number, size)
    return builder.sub(number, builder.mul(quotient, size)), quotient


def advance(builder: Builder, tile: TileShape, pointer: Var, count: Var, stride: Var) -> Var:
    return builder.gep(tile.element, pointer, builder.mul(count, stride))


# -- weights ---------------------------------------------------------------------------------------


def _pack(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, PACK_WORDS, _POINTERS)

    def pack_panel(task: Var, _: list[Var]) -> None:
        panel, group = split_number(builder, task, words["panels"])
        first = panel_start(builder, panel, words["height"], words["tall_panels"])
        after = panel_start(builder, builder.add(panel, 1), words["height"], words["tall_panels"])
        rows = builder.sub(after, first)
        weight = advance(builder, tile, words["weight"], group, words["group_stride"])
        weight = advance(builder, tile, weight, first, words["row_stride"])
        panel_taps = builder.mul(words["height"], words["taps"])
        packed = advance(builder, tile, words["packed"], task, panel_taps)

        def pack_taps(first_tap: Var, _: list[Var]) -> None:
            last_tap = builder.min(builder.add(first_tap, TAP_BLOCK), words["taps"])

            def pack_row(row: Var, _: list[Var]) -> None:
                source = advance(builder, tile, weight, row, words["row_stride"])
                target = builder.gep(tile.element, packed, row)

                def pack_tap(tap: Var, _: list[Var]) -> None:
                    place = builder.load(I64, builder.gep(I64, words["tap_table"], tap), 8)
                    address = builder.gep(tile.element, source, place)
                    value = builder.load(tile.element, address, tile.size)
                    builder.store(
                        value, advance(builder, tile, target, tap, words["height"]), tile.size
                    )

                builder.loop(first_tap, last_tap, 1, [], pack_tap)

            builder.loop(0, rows, 1, [], pack_row)

        stop = builder.add(words["taps"], TAP_BLOCK - 1)
        builder.loop(0, stop, TAP_BLOCK, [], pack_taps)

    builder.loop(BEGIN, END, 1, [], pack_panel)
    return builder.function(PACK, KERNEL_PARAMETERS), builder


# -- the padded source -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """One row to copy: its source, of which ``valid`` columns exist, and its place in phase 0."""

    source: Var
    valid: Var
    target: Var


RowCopier = Callable[[Builder, TileShape, dict[str, Var], _Row], None]


def _pad(tile: TileShape, name: str, copy_row: RowCopier) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, PAD_WORDS, _POINTERS)
    memory_plane = builder.mul(words["source_rows"], words["source_columns"])

    def pad_row(task: Var, _: list[Var]) -> None:
        number, plane = split_number(builder, task, words["padded_rows"])
        row, row_phase = split_number(builder, number, words["phase_rows"])
        source_row = builder.sub(builder.mul(row, words["row_step"]), words["top"])
        source_row = builder.add(source_row, builder.mul(row_phase, words["row_phase_step"]))
        inside = builder.compare("ult", source_row, words["source_rows"])
        source_row = builder.select(inside, source_row, 0)
        source = advance(builder, tile, words["source"], plane, memory_plane)
        source = advance(builder, tile, source, source_row, words["source_columns"])
        channel, image = split_number(builder, plane, words["channels"])
        target = advance(builder, tile, words["padded"], image, words["image_stride"])
        target = advance(builder, tile, target, channel, words["channel_stride"])
        target = advance(builder, tile, target, row_phase, words["row_phase_stride"])
        target = advance(builder, tile, target, row, words["row_stride"])
        valid = builder.select(inside, words["source_columns"], 0)
        copy_row(builder, tile, words, _Row(source, valid, target))

    builder.loop(BEGIN, END, 1, [], pad_row)
    return builder.function(name, KERNEL_PARAMETERS), builder


def load_columns(builder: Builder, tile: TileShape, source: Var, column: Var, valid: Var) -> Var:
    """The source's columns from ``column`` on, zero where it has none (also before 0)."""
    inside = builder.compare(
        "ult", _lane_columns(builder, tile, column), _narrow(builder, tile, valid)
    )
    address = builder.gep(tile.element, source, column)
    return builder.masked_load(tile.vector, address, inside, tile.size)


def _lane_columns(builder: Builder, tile: TileShape, first: Var) -> Var:
    return builder.add(_narrow(builder, tile, first), builder.lane_numbers(tile.lanes))


def _narrow(builder: Builder, tile: TileShape, number: Var) -> Var:
    """The i64 ``number`` as i32 in every lane."""
    return builder.splat(builder.convert("trunc", number, "i32"), tile.lanes)


def _store_columns(
    builder: Builder, tile: TileShape, value: Var, target: Var, column: Var, columns: Var
) -> None:
    mask = builder.mask(builder.sub(columns, column), tile.lanes)
    builder.masked_store(value, builder.gep(tile.element, target, column), mask, tile.size)


def for_columns(
    builder: Builder, tile: TileShape, columns: Var, body: Callable[[Var], None]
) -> None:
    """``body(first column)`` for each vector of columns; the last one may be partial."""
    stop = builder.add(columns, tile.lanes - 1)
    builder.loop(0, stop, tile.lanes, [], lambda column, _: body(column))


def _for_phases(
    builder: Builder,
    tile: TileShape,
    words: dict[str, Var],
    row: _Row,
    body: Callable[[Var, Var], None],
) -> None:
    """``body(target, shift)``: column j of a phase is the source's ``j * column_step + shift``."""

    def run_phase(phase: Var, _: list[Var]) -> None:
        shift = builder.sub(builder.mul(phase, words["phase_step"]), words["left"])
        body(advance(builder, tile, row.target, phase, words["phase_stride"]), shift)

    builder.loop(0, words["phases"], 1, [], run_phase)


def _copy_row(builder: Builder, tile: TileShape, words: dict[str, Var], row: _Row) -> None:
    """Column step 1."""
    columns = words["phase_columns"]

    def copy_phase(target: Var, shift: Var) -> None:
        def copy(column: Var) -> None:
            first = builder.add(column, shift)
            value = load_columns(builder, tile, row.source, first, row.valid)
            _store_columns(builder, tile, value, target, column, columns)

        for_columns(builder, tile, columns, copy)

    _for_phases(builder, tile, words, row, copy_phase)


def _split_pairs(builder: Builder, tile: TileShape, words: dict[str, Var], row: _Row) -> None:
    """Column step 2, two phases one column apart."""
    columns = words["phase_columns"]
    odd_target = builder.gep(tile.element, row.target, words["phase_stride"])
    evens = [2 * lane for lane in range(tile.lanes)]
    odds = [2 * lane + 1 for lane in range(tile.lanes)]

    def copy(column: Var) -> None:
        first = builder.sub(builder.mul(column, 2), words["left"])
        low = load_columns(builder, tile, row.source, first, row.valid)
        first = builder.add(first, tile.lanes)
        high = load_columns(builder, tile, row.source, first, row.valid)
        for lanes, target in ((evens, row.target), (odds, odd_target)):
            value = builder.shuffle(low, high, lanes)
            _store_columns(builder, tile, value, target, column, columns)

    for_columns(builder, tile, columns, copy)


def _split_any(builder: Builder, tile: TileShape, words: dict[str, Var], row: _Row) -> None:
    """Any column step, any phases."""
    columns = words["phase_columns"]
    step = _narrow(builder, tile, words["column_step"])
    valid = _narrow(builder, tile, row.valid)

    def copy_phase(target: Var, shift: Var) -> None:
        shifts = _narrow(builder, tile, shift)

        def copy(column: Var) -> None:
            index = builder.mul(_lane_columns(builder, tile, column), step)
            index = builder.add(index, shifts)
            inside = builder.compare("ult", index, valid)
            value = builder.gather(tile.vector, row.source, index, inside, tile.size)
            _store_columns(builder, tile, value, target, column, columns)

        for_columns(builder, tile, columns, copy)

    _for_phases(builder, tile, words, row, copy_phase)


# -- results in another order ----------------------------------------------------------------------


def _arrange(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, ARRANGE_WORDS, _POINTERS)
    columns = words["columns"]

    def arrange_row(task: Var, _: list[Var]) -> None:
        row, plane = split_number(builder, task, words["rows"])
        channel, image = split_number(builder, plane, words["channels"])
        source = advance(builder, tile, words["source"], image, words["image_stride"])
        source = advance(builder, tile, source, channel, words["channel_stride"])
        start = builder.load(I64, builder.gep(I64, words["row_table"], row), 8)
        source = builder.gep(tile.element, source, start)
        target = advance(builder, tile, words["target"], task, columns)

        def arrange(column: Var) -> None:
            table = builder.gep("i32", words["column_table"], column)
            index = builder.load(vector("i32", tile.lanes), table, 4)
            mask = builder.mask(builder.sub(columns, column), tile.lanes)
            value = builder.gather(tile.vector, source, index, mask, tile.size)
            address = builder.gep(tile.element, target, column)
            builder.masked_store(value, address, mask, tile.size)

        for_columns(builder, tile, columns, arrange)

    builder.loop(BEGIN, END, 1, [], arrange_row)
    return builder.function(ARRANGE, KERNEL_PARAMETERS), builder
