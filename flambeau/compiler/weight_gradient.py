"""Kernels for a convolution's gradients by weight and bias: sums over images and positions.

``grad_weight[filter, tap] = sum of grad[filter, position] * source[position + offset[tap]]``.
Positions are the lanes; a tile of filters and taps keeps its sums in vectors, which are added up
across lanes at the end of a part of the images.  The source is laid out as for a correlation.
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
    lanes,
    module,
)
from flambeau.compiler.correlation import advance, split_number
from flambeau.compiler.gemm_micro import TileShape, multiply_add
from flambeau.compiler.gemm_pack import panel_start, read_words
from flambeau.compiler.library_plan import KernelModule

CONTRACT, COMBINE, BIAS_SUM = "contract", "combine", "bias_sum"

# A task is a tile of one part; target[part][group][filter][tap].
CONTRACT_WORDS = (
    "grad", "source", "target", "tap_offsets", "images", "part_images", "part_stride",
    "grad_image", "grad_channel", "source_image", "source_group",
    "rows", "columns", "grad_row", "source_row", "groups", "filters", "taps",
    "row_panels", "row_height", "tall_row_panels", "tap_panels", "tap_height", "tall_tap_panels",
    "accumulate",
)  # fmt: skip

# total[i] = parts[0][i] + parts[1][i] + …; a task is a vector of elements.
COMBINE_WORDS = ("parts", "total", "count", "elements")

# target[part][channel] = sum of a plane over the part's images; a task is a channel of a part.
BIAS_SUM_WORDS = ("grad", "target", "images", "part_images", "channels", "plane")

_POINTERS = frozenset({"grad", "source", "target", "tap_offsets", "parts", "total"})

# Independent sums that hide the latency of an addition.
CHAINS = 4


def tile_limits(tile: TileShape) -> tuple[int, int]:
    """The most filters and taps of a tile: rows + rows * taps + 2 vectors stay in registers."""
    return (4, 6) if tile.registers > 16 else (3, 3)


@functools.cache
def weight_gradient_module(tile: TileShape) -> KernelModule:
    """The kernels for one element type: shapes are arguments."""
    return KernelModule(
        key=f"weight_gradient {tile.element} {tile.lanes}",
        source=functools.partial(_source, tile),
        words={CONTRACT: CONTRACT_WORDS, COMBINE: COMBINE_WORDS, BIAS_SUM: BIAS_SUM_WORDS},
    )


def _source(tile: TileShape) -> str:
    most_rows, most_taps = tile_limits(tile)
    parts = [
        _tile_function(tile, rows, taps)
        for rows in range(1, most_rows + 1)
        for taps in range(1, most_taps + 1)
    ]
    parts += [_finish_function(tile), _contract(tile), _combine(tile), _bias_sum(tile)]
    return module([text for text, _ in parts], [builder for _, builder in parts])


def sum_of_lanes(builder: Builder, value: Var) -> Var:
    """The lanes added up, halves first."""
    width = lanes(value.type)
    while width > 2:
        width //= 2
        low = builder.shuffle(value, value, range(width))
        high = builder.shuffle(value, value, range(width, 2 * width))
        value = builder.add(low, high)
    return builder.add(builder.extract(value, 0), builder.extract(value, 1))


# -- the register tile -----------------------------------------------------------------------------

_TILE_WORDS = (
    "images", "grad_image", "source_image", "rows", "grad_row", "source_row", "columns",
    "grad_channel", "taps", "accumulate",
)  # fmt: skip
_TILE_PARAMETERS = "ptr %grad, ptr %source, ptr %tap_offsets, ptr %target, " + ", ".join(
    f"i64 %{name}" for name in _TILE_WORDS
)
_FINISH_PARAMETERS = "ptr %sums, ptr %target, i64 %rows, i64 %columns, i64 %stride, i64 %accumulate"


def _tile_name(rows: int, taps: int) -> str:
    return f"contract_{rows}x{taps}"


def _tile_function(tile: TileShape, rows: int, taps: int) -> tuple[str, Builder]:
    """The sums of ``rows`` filters and ``taps`` taps over all images and rows of positions."""
    builder = Builder()
    word = {name: Var(I64, f"%{name}") for name in _TILE_WORDS}
    stack = builder.emit(PTR, f"alloca [{rows * taps} x {tile.vector}], align 64")
    offsets = [
        builder.load(I64, builder.gep(I64, Var(PTR, "%tap_offsets"), tap), 8) for tap in range(taps)
    ]

    def add_row(grad: Var, source: Var, sums: list[Var]) -> list[Var]:
        grads = [
            builder.gep(tile.element, grad, builder.mul(word["grad_channel"], row))
            for row in range(rows)
        ]
        sources = [builder.gep(tile.element, source, tap_offset) for tap_offset in offsets]

        def add_columns(column: Var, sums: list[Var], mask: Var | None) -> list[Var]:
            def load(pointer: Var) -> Var:
                address = builder.gep(tile.element, pointer, column)
                if mask is None:
                    return builder.load(tile.vector, address, tile.size)
                return builder.masked_load(tile.vector, address, mask, tile.size)

            values = [load(pointer) for pointer in grads]
            updated = list(sums)
            for tap, pointer in enumerate(sources):
                there = load(pointer)
                for row, value in enumerate(values):
                    number = row * taps + tap
                    updated[number] = multiply_add(builder, tile, value, there, sums[number])
            return updated

        column, sums = builder.loop(
            0,
            word["columns"],
            tile.lanes,
            sums,
            lambda column, sums: add_columns(column, sums, None),
        )
        left = builder.sub(word["columns"], column)
        return builder.if_else(
            builder.compare("sgt", left, 0),
            lambda: add_columns(column, sums, builder.mask(left, tile.lanes)),
            lambda: sums,
        )

    def add_image(_: Var, state: list[Var]) -> list[Var]:
        grad, source, *sums = state

        def next_row(_: Var, row_state: list[Var]) -> list[Var]:
            grad_row, source_row, *row_sums = row_state
            row_sums = add_row(grad_row, source_row, row_sums)
            grad_row = builder.gep(tile.element, grad_row, word["grad_row"])
            source_row = builder.gep(tile.element, source_row, word["source_row"])
            return [grad_row, source_row, *row_sums]

        _, row_state = builder.loop(0, word["rows"], 1, [grad, source, *sums], next_row)
        grad = builder.gep(tile.element, grad, word["grad_image"])
        source = builder.gep(tile.element, source, word["source_image"])
        return [grad, source, *row_state[2:]]

    zeros = [builder.zero(tile.vector)] * (rows * taps)
    start = [Var(PTR, "%grad"), Var(PTR, "%source"), *zeros]
    _, state = builder.loop(0, word["images"], 1, start, add_image)
    for number, value in enumerate(state[2:]):
        builder.store(value, builder.gep(tile.vector, stack, number), 64)
    builder.do(
        f"call void @finish({stack}, ptr %target, i64 {rows}, i64 {taps}, "
        "i64 %taps, i64 %accumulate)"
    )
    return builder.function(_tile_name(rows, taps), _TILE_PARAMETERS, internal=True), builder


def _finish_function(tile: TileShape) -> tuple[str, Builder]:
    """target[row * stride + column] (=, +=) the sum of the lanes of each of the tile's sums."""
    builder = Builder()
    rows, columns, stride = Var(I64, "%rows"), Var(I64, "%columns"), Var(I64, "%stride")
    adds = builder.compare("ne", Var(I64, "%accumulate"), 0)

    def finish_row(row: Var, _: list[Var]) -> None:
        first = builder.mul(row, columns)
        target = builder.gep(tile.element, Var(PTR, "%target"), builder.mul(row, stride))

        def finish_column(column: Var, _: list[Var]) -> None:
            place = builder.gep(tile.vector, Var(PTR, "%sums"), builder.add(first, column))
            total = sum_of_lanes(builder, builder.load(tile.vector, place, 64))
            address = builder.gep(tile.element, target, column)
            (total,) = builder.if_else(
                adds,
                lambda: [builder.add(builder.load(tile.element, address, tile.size), total)],
                lambda: [total],
            )
            builder.store(total, address, tile.size)

        builder.loop(0, columns, 1, [], finish_column)

    builder.loop(0, rows, 1, [], finish_row)
    return builder.function("finish", _FINISH_PARAMETERS, internal=True), builder


# -- the driver ------------------------------------------------------------------------------------


def _contract(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, CONTRACT_WORDS, _POINTERS)

    def run_task(task: Var, _: list[Var]) -> None:
        tap_panel, rest = split_number(builder, task, words["tap_panels"])
        row_panel, rest = split_number(builder, rest, words["row_panels"])
        group, part = split_number(builder, rest, words["groups"])
        first_row, rows = _panel(builder, words, row_panel, "row")
        first_tap, taps = _panel(builder, words, tap_panel, "tap")
        first_image = builder.mul(part, words["part_images"])
        images = builder.min(words["part_images"], builder.sub(words["images"], first_image))
        channel = builder.add(builder.mul(group, words["filters"]), first_row)

        grad = advance(builder, tile, words["grad"], first_image, words["grad_image"])
        grad = advance(builder, tile, grad, channel, words["grad_channel"])
        source = advance(builder, tile, words["source"], first_image, words["source_image"])
        source = advance(builder, tile, source, group, words["source_group"])
        target = advance(builder, tile, words["target"], part, words["part_stride"])
        target = advance(builder, tile, target, channel, words["taps"])
        arguments = [
            grad,
            source,
            builder.gep(I64, words["tap_offsets"], first_tap),
            builder.gep(tile.element, target, first_tap),
            images,
            *(words[name] for name in _TILE_WORDS[1:]),
        ]
        _call_tile(builder, tile, rows, taps, ", ".join(map(str, arguments)))

    builder.loop(BEGIN, END, 1, [], run_task)
    return builder.function(CONTRACT, KERNEL_PARAMETERS), builder


def _call_tile(builder: Builder, tile: TileShape, rows: Var, taps: Var, arguments: str) -> None:
    most_rows, most_taps = tile_limits(tile)

    def call(row_count: int, tap_count: int) -> None:
        builder.do(f"call void @{_tile_name(row_count, tap_count)}({arguments})")

    cases = {
        row_count * (most_taps + 1) + tap_count: functools.partial(call, row_count, tap_count)
        for row_count in range(1, most_rows + 1)
        for tap_count in range(1, most_taps + 1)
    }
    builder.switch(builder.add(builder.mul(rows, most_taps + 1), taps), cases)


def _panel(builder: Builder, words: dict[str, Var], panel: Var, kind: str) -> tuple[Var, Var]:
    """First index and size of a panel of rows or taps."""
    height, tall = words[f"{kind}_height"], words[f"tall_{kind}_panels"]
    first = panel_start(builder, panel, height, tall)
    after = panel_start(builder, builder.add(panel, 1), height, tall)
    return first, builder.sub(after, first)


# -- sums of parts and of planes -------------------------------------------------------------------


def _combine(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, COMBINE_WORDS, _POINTERS)

    def combine_vector(task: Var, _: list[Var]) -> None:
        first = builder.mul(task, tile.lanes)
        mask = builder.mask(builder.sub(words["elements"], first), tile.lanes)
        start = builder.gep(tile.element, words["parts"], first)

        def load_part(part: Var) -> Var:
            address = advance(builder, tile, start, part, words["elements"])
            return builder.masked_load(tile.vector, address, mask, tile.size)

        (total,) = builder.loop(
            1,
            words["count"],
            1,
            [load_part(builder.constant(0))],
            lambda part, sums: [builder.add(sums[0], load_part(part))],
        )[1]
        address = builder.gep(tile.element, words["total"], first)
        builder.masked_store(total, address, mask, tile.size)

    builder.loop(BEGIN, END, 1, [], combine_vector)
    return builder.function(COMBINE, KERNEL_PARAMETERS), builder


def _bias_sum(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, BIAS_SUM_WORDS, _POINTERS)
    image_stride = builder.mul(words["channels"], words["plane"])

    def sum_channel(task: Var, _: list[Var]) -> None:
        channel, part = split_number(builder, task, words["channels"])
        first_image = builder.mul(part, words["part_images"])
        stop = builder.min(builder.add(first_image, words["part_images"]), words["images"])
        start = advance(builder, tile, words["grad"], channel, words["plane"])

        def add_plane(image: Var, sums: list[Var]) -> list[Var]:
            plane = advance(builder, tile, start, image, image_stride)
            return _sum_plane(builder, tile, plane, words["plane"], sums)

        zeros = [builder.zero(tile.vector)] * CHAINS
        sums = builder.loop(first_image, stop, 1, zeros, add_plane)[1]
        total = builder.add(builder.add(sums[0], sums[1]), builder.add(sums[2], sums[3]))
        total = sum_of_lanes(builder, total)
        builder.store(total, builder.gep(tile.element, words["target"], task), tile.size)

    builder.loop(BEGIN, END, 1, [], sum_channel)
    return builder.function(BIAS_SUM, KERNEL_PARAMETERS), builder


def _sum_plane(
    builder: Builder, tile: TileShape, plane: Var, size: Var, sums: list[Var]
) -> list[Var]:
    def address(index: Var) -> Var:
        return builder.gep(tile.element, plane, index)

    def add_vectors(index: Var, sums: list[Var]) -> list[Var]:
        places = [builder.add(index, j * tile.lanes) for j in range(CHAINS)]
        values = [builder.load(tile.vector, address(place), tile.size) for place in places]
        return [builder.add(total, value) for total, value in zip(sums, values)]

    def add_rest(index: Var, sums: list[Var]) -> list[Var]:
        mask = builder.mask(builder.sub(size, index), tile.lanes)
        value = builder.masked_load(tile.vector, address(index), mask, tile.size)
        return [builder.add(sums[0], value), *sums[1:]]

    index, sums = builder.loop(0, size, CHAINS * tile.lanes, sums, add_vectors)
    stop = builder.add(size, tile.lanes - 1)
    _, sums = builder.loop(index, stop, tile.lanes, sums, add_rest)
    return sums
