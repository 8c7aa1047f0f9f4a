"""The gradient by the weight for many filters: filters are the lanes.

``grad_weight[filter, tap] = sum of grad[filter, position] * source[position + offset[tap]]``.  The
output's gradient is first transposed to ``[position][filter]``; a tile of taps and vectors of
filters then takes one position at a time, whatever the shape of the plane or the stride.
"""

from __future__ import annotations

import functools

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
from flambeau.compiler.correlation import advance, split_number
from flambeau.compiler.gemm_micro import TileShape, multiply_add
from flambeau.compiler.gemm_pack import panel_start, read_words, transpose
from flambeau.compiler.library_plan import KernelModule

TRANSPOSE, CONTRACT = "transpose_grad", "contract_filters"

# packed[image][group][position][filter], ``width`` filters (whole vectors; what is behind the last
# filter is junk) and ``packed_positions`` positions (whole vectors).  A task is a vector of
# positions of an image and group.
TRANSPOSE_WORDS = ("grad", "packed", "positions", "packed_positions", "filters", "width")

# A task is a tile of one part; target[part][group][filter][tap].  A part is a strip of
# ``strip_rows`` rows of ``part_images`` images; there are ``strips`` of them.
CONTRACT_WORDS = (
    "packed", "source", "target", "tap_offsets", "images", "part_images", "part_stride",
    "strips", "strip_rows",
    "packed_group", "source_image", "source_group", "rows", "columns", "source_row",
    "source_column", "width", "groups", "filters", "taps",
    "filter_panels", "tap_panels", "tap_height", "tall_tap_panels", "accumulate",
)  # fmt: skip

_POINTERS = frozenset({"grad", "packed", "source", "target", "tap_offsets"})


@functools.cache
def filter_lanes_module(tile: TileShape) -> KernelModule:
    """The kernels for one element type: shapes are arguments."""
    return KernelModule(
        key=f"weight_gradient_filters {tile.element} {tile.lanes}",
        source=functools.partial(_source, tile),
        words={TRANSPOSE: TRANSPOSE_WORDS, CONTRACT: CONTRACT_WORDS},
    )


def _source(tile: TileShape) -> str:
    parts = [
        _tile_function(tile, taps, vectors)
        for taps in range(1, tile.rows + 1)
        for vectors in range(1, tile.vectors + 1)
    ]
    parts += [_finish_function(tile), _transpose(tile), _contract(tile)]
    return module([text for text, _ in parts], [builder for _, builder in parts])


# -- the register tile -----------------------------------------------------------------------------

_TILE_WORDS = (
    "images", "packed_image", "source_image", "rows", "columns", "source_row", "source_column",
    "width", "filters_left", "taps", "accumulate",
)  # fmt: skip
_TILE_PARAMETERS = "ptr %packed, ptr %source, ptr %tap_offsets, ptr %target, " + ", ".join(
    f"i64 %{name}" for name in _TILE_WORDS
)
_FINISH_PARAMETERS = (
    "ptr %sums, ptr %target, i64 %taps, i64 %width, i64 %filters, i64 %stride, i64 %accumulate"
)


def _tile_name(taps: int, vectors: int) -> str:
    return f"filters_{taps}x{vectors}"


def _tile_function(tile: TileShape, taps: int, vectors: int) -> tuple[str, Builder]:
    """The sums of ``taps`` taps and ``vectors`` vectors of filters over images and positions."""
    builder = Builder()
    word = {name: Var(I64, f"%{name}") for name in _TILE_WORDS}
    stack = builder.emit(PTR, f"alloca [{taps * vectors} x {tile.vector}], align 64")
    offsets = [
        builder.load(I64, builder.gep(I64, Var(PTR, "%tap_offsets"), tap), 8) for tap in range(taps)
    ]

    def add_position(_: Var, state: list[Var]) -> list[Var]:
        packed, source, *sums = state
        filters = [
            builder.load(tile.vector, builder.gep(tile.element, packed, j * tile.lanes), tile.size)
            for j in range(vectors)
        ]
        updated = []
        for tap, tap_offset in enumerate(offsets):
            address = builder.gep(tile.element, source, tap_offset)
            there = builder.load(tile.element, address, tile.size)
            spread = builder.splat(there, tile.lanes)
            for j, values in enumerate(filters):
                chain = sums[tap * vectors + j]
                updated.append(multiply_add(builder, tile, spread, values, chain))
        packed = builder.gep(tile.element, packed, word["width"])
        source = builder.gep(tile.element, source, word["source_column"])
        return [packed, source, *updated]

    def add_row(_: Var, state: list[Var]) -> list[Var]:
        packed, source, *sums = state
        _, after = builder.loop(0, word["columns"], 1, [packed, source, *sums], add_position)
        return [after[0], builder.gep(tile.element, source, word["source_row"]), *after[2:]]

    def add_image(_: Var, state: list[Var]) -> list[Var]:
        packed, source, *sums = state
        _, after = builder.loop(0, word["rows"], 1, [packed, source, *sums], add_row)
        packed = builder.gep(tile.element, packed, word["packed_image"])
        source = builder.gep(tile.element, source, word["source_image"])
        return [packed, source, *after[2:]]

    zeros = [builder.zero(tile.vector)] * (taps * vectors)
    start = [Var(PTR, "%packed"), Var(PTR, "%source"), *zeros]
    _, state = builder.loop(0, word["images"], 1, start, add_image)
    for number, value in enumerate(state[2:]):
        builder.store(value, builder.gep(tile.vector, stack, number), 64)
    filters = builder.min(word["filters_left"], vectors * tile.lanes)
    builder.do(
        f"call void @finish({stack}, ptr %target, i64 {taps}, i64 {vectors * tile.lanes}, "
        f"{filters}, i64 %taps, i64 %accumulate)"
    )
    return builder.function(_tile_name(taps, vectors), _TILE_PARAMETERS, internal=True), builder


def _finish_function(tile: TileShape) -> tuple[str, Builder]:
    """target[filter * stride + tap] (=, +=) sums[tap][filter]."""
    builder = Builder()
    adds = builder.compare("ne", Var(I64, "%accumulate"), 0)

    def finish_filter(number: Var, _: list[Var]) -> None:
        target = advance(builder, tile, Var(PTR, "%target"), number, Var(I64, "%stride"))
        sums = builder.gep(tile.element, Var(PTR, "%sums"), number)

        def finish_tap(tap: Var, _: list[Var]) -> None:
            place = advance(builder, tile, sums, tap, Var(I64, "%width"))
            total = builder.load(tile.element, place, tile.size)
            address = builder.gep(tile.element, target, tap)
            (total,) = builder.if_else(
                adds,
                lambda: [builder.add(builder.load(tile.element, address, tile.size), total)],
                lambda: [total],
            )
            builder.store(total, address, tile.size)

        builder.loop(0, Var(I64, "%taps"), 1, [], finish_tap)

    builder.loop(0, Var(I64, "%filters"), 1, [], finish_filter)
    return builder.function("finish", _FINISH_PARAMETERS, internal=True), builder


# -- the transposed gradient -----------------------------------------------------------------------


def _transpose(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, TRANSPOSE_WORDS, _POINTERS)
    blocks = builder.div(words["packed_positions"], tile.lanes)
    grad_group = builder.mul(words["filters"], words["positions"])
    packed_group = builder.mul(words["width"], words["packed_positions"])
    last_filter = builder.sub(words["filters"], 1)

    def transpose_block(task: Var, _: list[Var]) -> None:
        block, group = split_number(builder, task, blocks)
        position = builder.mul(block, tile.lanes)
        mask = builder.mask(builder.sub(words["positions"], position), tile.lanes)
        grad = advance(builder, tile, words["grad"], group, grad_group)
        grad = builder.gep(tile.element, grad, position)
        packed = advance(builder, tile, words["packed"], group, packed_group)
        packed = advance(builder, tile, packed, position, words["width"])

        def transpose_filters(first: Var, _: list[Var]) -> None:
            rows = []
            for lane in range(tile.lanes):
                number = builder.min(builder.add(first, lane), last_filter)
                row = advance(builder, tile, grad, number, words["positions"])
                rows.append(builder.masked_load(tile.vector, row, mask, tile.size))
            target = builder.gep(tile.element, packed, first)
            for value in transpose(builder, rows):
                builder.store(value, target, tile.size)
                target = builder.gep(tile.element, target, words["width"])

        builder.loop(0, words["width"], tile.lanes, [], transpose_filters)

    builder.loop(BEGIN, END, 1, [], transpose_block)
    return builder.function(TRANSPOSE, KERNEL_PARAMETERS), builder


# -- the driver ------------------------------------------------------------------------------------


def _contract(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, CONTRACT_WORDS, _POINTERS)
    words["packed_image"] = builder.mul(words["packed_group"], words["groups"])
    packed_row = builder.mul(words["columns"], words["width"])

    def run_task(task: Var, _: list[Var]) -> None:
        tap_panel, rest = split_number(builder, task, words["tap_panels"])
        filter_panel, rest = split_number(builder, rest, words["filter_panels"])
        group, part = split_number(builder, rest, words["groups"])
        height, tall = words["tap_height"], words["tall_tap_panels"]
        first_tap = panel_start(builder, tap_panel, height, tall)
        after = panel_start(builder, builder.add(tap_panel, 1), height, tall)
        first_filter = builder.mul(filter_panel, tile.columns)
        strip, image_part = split_number(builder, part, words["strips"])
        first_image = builder.mul(image_part, words["part_images"])
        first_row = builder.mul(strip, words["strip_rows"])

        packed = advance(builder, tile, words["packed"], first_image, words["packed_image"])
        packed = advance(builder, tile, packed, group, words["packed_group"])
        source = advance(builder, tile, words["source"], first_image, words["source_image"])
        source = advance(builder, tile, source, group, words["source_group"])
        packed = advance(builder, tile, packed, first_row, packed_row)
        source = advance(builder, tile, source, first_row, words["source_row"])
        target = advance(builder, tile, words["target"], part, words["part_stride"])
        channel = builder.add(builder.mul(group, words["filters"]), first_filter)
        target = advance(builder, tile, target, channel, words["taps"])
        tile_words = {
            **words,
            "images": builder.min(words["part_images"], builder.sub(words["images"], first_image)),
            "rows": builder.min(words["strip_rows"], builder.sub(words["rows"], first_row)),
            "filters_left": builder.sub(words["filters"], first_filter),
        }
        arguments = [
            builder.gep(tile.element, packed, first_filter),
            source,
            builder.gep(I64, words["tap_offsets"], first_tap),
            builder.gep(tile.element, target, first_tap),
            *(tile_words[name] for name in _TILE_WORDS),
        ]
        vectors = builder.div(builder.sub(words["width"], first_filter), tile.lanes)
        vectors = builder.min(vectors, tile.vectors)
        taps = builder.sub(after, first_tap)
        _call_tile(builder, tile, taps, vectors, ", ".join(map(str, arguments)))

    builder.loop(BEGIN, END, 1, [], run_task)
    return builder.function(CONTRACT, KERNEL_PARAMETERS), builder


def _call_tile(builder: Builder, tile: TileShape, taps: Var, vectors: Var, arguments: str) -> None:
    def call(tap_count: int, vector_count: int) -> None:
        builder.do(f"call void @{_tile_name(tap_count, vector_count)}({arguments})")

    cases = {
        tap_count * (tile.vectors + 1) + vector_count: functools.partial(
            call, tap_count, vector_count
        )
        for tap_count in range(1, tile.rows + 1)
        for vector_count in range(1, tile.vectors + 1)
    }
    builder.switch(builder.add(builder.mul(taps, tile.vectors + 1), vectors), cases)
