"""Kernels of Winograd's minimal filtering F(2 x 2, 3 x 3): a convolution as 16 matrix products.

The output is cut into tiles of 2 x 2, each of which reads 4 x 4 of the input.  With

    V = Bt d B       of the input's tile d (additions only),
    U = G g Gt       of the window's weights g,
    y = At (sum over channels of U * V) A

there are 16 products per tile and channel where the plain sum takes 36.  At each of the sixteen
*places* of U and V the sum over channels is a matrix product ``[filters, channels] @ [channels,
tiles]``.  Rounding errors are about twice those of the plain sum; an infinity or a NaN reaches the
whole tile rather than only the windows that see it.
"""

from __future__ import annotations

import functools

from flambeau.compiler.block_parts import BlockParts, block_words
from flambeau.compiler.builder import (
    BEGIN,
    END,
    I64,
    KERNEL_PARAMETERS,
    Builder,
    Var,
    module,
)
from flambeau.compiler.correlation import advance, for_columns, load_columns
from flambeau.compiler.gemm_micro import TileShape, call_micro_kernel, micro_kernels
from flambeau.compiler.gemm_pack import panel_start, read_words
from flambeau.compiler.library_plan import KernelModule
from flambeau.compiler.winograd_transforms import columns_of, filter_line, result_line, source_line

WEIGHTS, INPUT, MULTIPLY, OUTPUT = "weights", "input", "multiply", "output"
BLOCKS = "winograd_blocks"

PLACES = 16

# target[place_table[place] + row * target_row + column] of the window that begins at
# ``row * row_stride + column * column_stride``; a task is a row.  Whole vectors are written.
WEIGHTS_WORDS = (
    "weight", "target", "place_table", "columns", "row_stride", "column_stride", "target_row",
)  # fmt: skip

# target[place][channel][tile], tiles in the order image, row, column; whole vectors are written.
# Line r of the padded plane is row ``r - top`` of the source's; its column ``-left`` comes first.
# ``scratch`` holds each line transformed, as four lines of ``scratch_line``.  A task is a channel.
INPUT_WORDS = (
    "source", "scratch", "target", "images", "rows", "columns",
    "source_image", "source_rows", "source_columns", "top", "left",
    "scratch_channel", "scratch_line", "target_place", "target_channel",
)  # fmt: skip

# target[place][row][tile] (=, += if ``accumulate``) sum over k of weights[place][row][k] *
# source[place][k][tile], for rows of the panels ``first_panel .. last_panel - 1``.  A task is a
# strip of tile vectors of a place.
MULTIPLY_WORDS = (
    "weights", "source", "target", "weights_place", "weights_row",
    "source_place", "source_k", "target_place", "target_row", "k", "vectors", "strips",
    "first_panel", "last_panel", "height", "tall_panels", "accumulate",
)  # fmt: skip

# out[image][channel][2 * rows][2 * columns] as far as ``out_rows`` and ``out_columns`` reach; a
# task is a channel.
OUTPUT_WORDS = (
    "source", "out", "bias", "bias_step", "source_place", "source_row", "images", "rows", "columns",
    "out_image", "out_channel", "out_rows", "out_columns",
)  # fmt: skip

# A task is a worker: it runs through its share of the blocks, in a region of its own.  A block is a
# strip of tile rows of a few images.
CONTROL_WORDS = (
    "blocks", "workers", "region", "image_count", "block_images", "strips", "strip_rows",
    "tile_rows", "channels", "panels", "panel_group", "panel_groups",
)  # fmt: skip

_PARTS = {INPUT: INPUT_WORDS, MULTIPLY: MULTIPLY_WORDS, OUTPUT: OUTPUT_WORDS}
BLOCKS_WORDS = block_words(_PARTS, CONTROL_WORDS)

_POINTERS = frozenset(
    {"weight", "weights", "target", "place_table", "scratch", "source", "out", "bias"}
)


@functools.cache
def winograd_module(tile: TileShape) -> KernelModule:
    """The kernels for one element type: shapes are arguments."""
    return KernelModule(
        key=f"winograd {tile.element} {tile.lanes}",
        source=functools.partial(_source, tile),
        words={
            WEIGHTS: WEIGHTS_WORDS,
            INPUT: INPUT_WORDS,
            MULTIPLY: MULTIPLY_WORDS,
            OUTPUT: OUTPUT_WORDS,
            BLOCKS: BLOCKS_WORDS,
        },
    )


def _source(tile: TileShape) -> str:
    parts = [
        *micro_kernels(tile),
        _weights(tile),
        _input(tile),
        multiply_function(tile),
        _output(tile),
        _blocks(tile),
    ]
    return module([text for text, _ in parts], [builder for _, builder in parts])


# -- weights ---------------------------------------------------------------------------------------


def _weights(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, WEIGHTS_WORDS, _POINTERS)
    columns = words["columns"]
    step = builder.splat(builder.convert("trunc", words["column_stride"], "i32"), tile.lanes)
    window = builder.mul(builder.lane_numbers(tile.lanes), step)
    places = [
        builder.load(I64, builder.gep(I64, words["place_table"], place), 8)
        for place in range(PLACES)
    ]

    def transform_row(row: Var, _: list[Var]) -> None:
        weight = advance(builder, tile, words["weight"], row, words["row_stride"])
        target = advance(builder, tile, words["target"], row, words["target_row"])

        def transform(column: Var) -> None:
            mask = builder.mask(builder.sub(columns, column), tile.lanes)
            source = advance(builder, tile, weight, column, words["column_stride"])
            taps = [
                builder.gather(
                    tile.vector, builder.gep(tile.element, source, tap), window, mask, tile.size
                )
                for tap in range(9)
            ]
            lines = [filter_line(builder, taps[first : first + 3]) for first in (0, 3, 6)]
            square = columns_of([filter_line(builder, line) for line in columns_of(lines)])
            for place, value in enumerate(value for line in square for value in line):
                start = builder.gep(tile.element, target, places[place])
                builder.store(value, builder.gep(tile.element, start, column), tile.size)

        for_columns(builder, tile, columns, transform)

    builder.loop(BEGIN, END, 1, [], transform_row)
    return builder.function(WEIGHTS, KERNEL_PARAMETERS), builder


# -- the input's tiles -----------------------------------------------------------------------------


def _input(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, INPUT_WORDS, _POINTERS)
    plane = builder.mul(words["source_rows"], words["source_columns"])
    lines = builder.add(builder.mul(words["rows"], 2), 2)

    def transform_channel(channel: Var, _: list[Var]) -> None:
        source = advance(builder, tile, words["source"], channel, plane)
        scratch = advance(builder, tile, words["scratch"], channel, words["scratch_channel"])
        target = advance(builder, tile, words["target"], channel, words["target_channel"])

        def transform_image(image: Var, _: list[Var]) -> None:
            own = advance(builder, tile, source, image, words["source_image"])
            first = builder.mul(builder.mul(image, words["rows"]), words["columns"])
            start = builder.gep(tile.element, target, first)

            def read_line(line: Var, _: list[Var]) -> None:
                _transform_line(builder, tile, words, own, scratch, line)

            def transform_row(row: Var, _: list[Var]) -> None:
                _transform_tiles(builder, tile, words, scratch, start, row)

            builder.loop(0, lines, 1, [], read_line)
            builder.loop(0, words["rows"], 1, [], transform_row)

        builder.loop(0, words["images"], 1, [], transform_image)

    builder.loop(BEGIN, END, 1, [], transform_channel)
    return builder.function(INPUT, KERNEL_PARAMETERS), builder


def _transform_line(
    builder: Builder, tile: TileShape, words: dict[str, Var], source: Var, scratch: Var, line: Var
) -> None:
    """Pads a line of a plane and transforms it along its columns."""
    row = builder.sub(line, words["top"])
    inside = builder.compare("ult", row, words["source_rows"])
    start = advance(builder, tile, source, builder.select(inside, row, 0), words["source_columns"])
    valid = builder.select(inside, words["source_columns"], 0)
    target = advance(builder, tile, scratch, builder.mul(line, 4), words["scratch_line"])
    even, odd = ([2 * lane + shift for lane in range(tile.lanes)] for shift in (0, 1))

    def transform(column: Var) -> None:
        first = builder.sub(builder.mul(column, 2), words["left"])
        values = []
        for shift in (0, 2):
            low, high = (
                load_columns(builder, tile, start, builder.add(first, shift + half), valid)
                for half in (0, tile.lanes)
            )
            values += [builder.shuffle(low, high, even), builder.shuffle(low, high, odd)]
        address = builder.gep(tile.element, target, column)
        for value in source_line(builder, values):
            builder.store(value, address, tile.size)
            address = builder.gep(tile.element, address, words["scratch_line"])

    for_columns(builder, tile, words["columns"], transform)


def _transform_tiles(
    builder: Builder, tile: TileShape, words: dict[str, Var], scratch: Var, target: Var, row: Var
) -> None:
    """Transforms a row of tiles along the rows of the plane."""
    target = advance(builder, tile, target, row, words["columns"])
    scratch = advance(builder, tile, scratch, builder.mul(row, 8), words["scratch_line"])

    def transform(column: Var) -> None:
        address = builder.gep(tile.element, scratch, column)
        square = []
        for _ in range(4):
            line = []
            for _ in range(4):
                line.append(builder.load(tile.vector, address, tile.size))
                address = builder.gep(tile.element, address, words["scratch_line"])
            square.append(line)
        places = columns_of([source_line(builder, column) for column in columns_of(square)])
        address = builder.gep(tile.element, target, column)
        for value in (value for line in places for value in line):
            builder.store(value, address, tile.size)
            address = builder.gep(tile.element, address, words["target_place"])

    for_columns(builder, tile, words["columns"], transform)


# -- the products ----------------------------------------------------------------------------------


def multiply_function(tile: TileShape) -> tuple[str, Builder]:
    """The kernel `MULTIPLY`; it calls the micro kernels."""
    builder = Builder()
    words = read_words(builder, MULTIPLY_WORDS, _POINTERS)

    def run_task(task: Var, _: list[Var]) -> None:
        place = builder.div(task, words["strips"])
        strip = builder.sub(task, builder.mul(place, words["strips"]))
        first_vector = builder.mul(strip, tile.vectors)
        vectors = builder.min(builder.sub(words["vectors"], first_vector), tile.vectors)
        first_tile = builder.mul(first_vector, tile.lanes)
        weights = advance(builder, tile, words["weights"], place, words["weights_place"])
        source = advance(builder, tile, words["source"], place, words["source_place"])
        target = advance(builder, tile, words["target"], place, words["target_place"])
        source = builder.gep(tile.element, source, first_tile)
        target = builder.gep(tile.element, target, first_tile)

        def run_panel(panel: Var, _: list[Var]) -> None:
            height, tall = words["height"], words["tall_panels"]
            first = panel_start(builder, panel, height, tall)
            rows = builder.sub(panel_start(builder, builder.add(panel, 1), height, tall), first)
            arguments = {
                "a": advance(builder, tile, weights, first, words["weights_row"]),
                "a_row": words["weights_row"],
                "a_k": builder.constant(1),
                "b": source,
                "b_k": words["source_k"],
                "k": words["k"],
                "c": advance(builder, tile, target, first, words["target_row"]),
                "c_row": words["target_row"],
                "accumulate": words["accumulate"],
            }
            call_micro_kernel(builder, tile, rows, vectors, arguments)

        builder.loop(words["first_panel"], words["last_panel"], 1, [], run_panel)

    builder.loop(BEGIN, END, 1, [], run_task)
    return builder.function(MULTIPLY, KERNEL_PARAMETERS), builder


# -- the output ------------------------------------------------------------------------------------


def _output(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, OUTPUT_WORDS, _POINTERS)
    columns, out_columns = words["columns"], words["out_columns"]
    lanes = tile.lanes
    low = [lane // 2 + (lane % 2) * lanes for lane in range(lanes)]
    high = [lane + lanes // 2 for lane in low]

    def finish_channel(channel: Var, _: list[Var]) -> None:
        source = advance(builder, tile, words["source"], channel, words["source_row"])
        plane = advance(builder, tile, words["out"], channel, words["out_channel"])
        place = builder.mul(channel, words["bias_step"])
        bias = builder.load(
            tile.element, builder.gep(tile.element, words["bias"], place), tile.size
        )
        bias = builder.splat(bias, lanes)

        def finish(image: Var, row: Var, column: Var, number: Var) -> None:
            address = builder.gep(tile.element, source, number)
            square = []
            for _ in range(4):
                line = []
                for _ in range(4):
                    line.append(builder.load(tile.vector, address, tile.size))
                    address = builder.gep(tile.element, address, words["source_place"])
                square.append(line)
            halves = [result_line(builder, column) for column in columns_of(square)]
            lines = [result_line(builder, line) for line in columns_of(halves)]
            first_column = builder.mul(column, 2)
            left = builder.sub(out_columns, first_column)
            out = advance(builder, tile, plane, image, words["out_image"])
            out_row = builder.mul(row, 2)
            out = advance(builder, tile, out, out_row, out_columns)
            out = builder.gep(tile.element, out, first_column)
            full = builder.compare("sge", left, 2 * lanes)

            def store_line(line: list[Var], out: Var) -> None:
                even, odd = (builder.add(value, bias) for value in line)
                parts = [builder.shuffle(even, odd, low), builder.shuffle(even, odd, high)]
                places = [out, builder.gep(tile.element, out, lanes)]

                def store(masked: bool) -> list[Var]:
                    for number, (value, place) in enumerate(zip(parts, places, strict=True)):
                        if masked:
                            count = builder.sub(left, number * lanes)
                            mask = builder.mask(count, lanes)
                            builder.masked_store(value, place, mask, tile.size)
                        else:
                            builder.store(value, place, tile.size)
                    return []

                builder.if_else(full, lambda: store(False), lambda: store(True))

            store_line(lines[0], out)
            second = builder.gep(tile.element, out, out_columns)
            exists = builder.compare("slt", builder.add(out_row, 1), words["out_rows"])
            builder.if_(exists, lambda: store_line(lines[1], second))

        def finish_row(image: Var, row: Var, _: list[Var]) -> None:
            number = builder.mul(builder.add(builder.mul(image, words["rows"]), row), columns)

            def finish_vector(column: Var) -> None:
                finish(image, row, column, builder.add(number, column))

            for_columns(builder, tile, columns, finish_vector)

        def finish_image(image: Var, _: list[Var]) -> None:
            builder.loop(0, words["rows"], 1, [], functools.partial(finish_row, image))

        builder.loop(0, words["images"], 1, [], finish_image)

    builder.loop(BEGIN, END, 1, [], finish_channel)
    return builder.function(OUTPUT, KERNEL_PARAMETERS), builder


# -- blocks ----------------------------------------------------------------------------------------


def _blocks(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    block = BlockParts(builder, tile, _PARTS, CONTROL_WORDS)
    word = block.shared

    def run_block(number: Var, _: list[Var]) -> None:
        cut = builder.div(number, word["strips"])
        strip = builder.sub(number, builder.mul(cut, word["strips"]))
        first_image = builder.mul(cut, word["block_images"])
        images = builder.min(word["block_images"], builder.sub(word["image_count"], first_image))
        first_row = builder.mul(strip, word["strip_rows"])
        rows = builder.min(word["strip_rows"], builder.sub(word["tile_rows"], first_row))
        source_row = builder.mul(first_row, 2)
        block.move("input.source", builder.mul(first_image, word["input.source_image"]))
        block.set("input.top", builder.sub(word["input.top"], source_row))
        block.set("input.images", images)
        block.set("input.rows", rows)
        block.call("input", 0, word["channels"])
        tiles = builder.mul(builder.mul(images, rows), word["input.columns"])
        vectors = builder.div(builder.add(tiles, tile.lanes - 1), tile.lanes)
        strips = builder.div(builder.add(vectors, tile.vectors - 1), tile.vectors)
        block.set("multiply.vectors", vectors)
        block.set("multiply.strips", strips)
        block.set("output.images", images)
        block.set("output.rows", rows)
        block.set("output.out_rows", builder.sub(word["output.out_rows"], source_row))
        out = builder.mul(first_image, word["output.out_image"])
        out = builder.add(out, builder.mul(source_row, word["output.out_columns"]))
        block.move("output.out", out)
        builder.loop(0, word["panel_groups"], 1, [], functools.partial(run_panels, strips))

    def run_panels(strips: Var, group: Var, _: list[Var]) -> None:
        """The sums of each group of panels fill the same part of the region."""
        first = builder.mul(group, word["panel_group"])
        last = builder.min(builder.add(first, word["panel_group"]), word["panels"])
        height, tall = word["multiply.height"], word["multiply.tall_panels"]
        first_row = panel_start(builder, first, height, tall)
        last_row = panel_start(builder, last, height, tall)
        skipped = builder.mul(first_row, word["multiply.target_row"])
        sums = builder.sub(region[0], skipped)
        block.move("multiply.target", sums)
        block.move("output.source", sums)
        block.set("multiply.first_panel", first)
        block.set("multiply.last_panel", last)
        block.call("multiply", 0, builder.mul(strips, PLACES))
        block.call("output", first_row, last_row)

    region: list[Var] = []

    def run_worker(worker: Var, _: list[Var]) -> None:
        region[:] = [builder.mul(worker, word["region"])]
        for name in ("input.scratch", "input.target", "multiply.source"):
            block.move(name, region[0])
        first = builder.div(builder.mul(worker, word["blocks"]), word["workers"])
        after = builder.mul(builder.add(worker, 1), word["blocks"])
        builder.loop(first, builder.div(after, word["workers"]), 1, [], run_block)

    builder.loop(BEGIN, END, 1, [], run_worker)
    return builder.function(BLOCKS, KERNEL_PARAMETERS), builder
