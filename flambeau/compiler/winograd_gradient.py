"""The gradient by the weight of F(2 x 2, 3 x 3).

With V the transform of the input's tiles, as in the forward pass, and

    D = A dy At      of the output gradient's tile,
    dg = Gt (sum over tiles of D * V) G

each of the sixteen places is a matrix product ``[filters, tiles] @ [tiles, channels]``.  So the
input's tiles are transformed with channels as lanes.
"""

from __future__ import annotations

import functools

from flambeau.compiler.block_parts import BlockParts, block_words
from flambeau.compiler.builder import (
    BEGIN,
    END,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
    module,
    vector,
)
from flambeau.compiler.correlation import advance, for_columns, load_columns
from flambeau.compiler.gemm_micro import TileShape, micro_kernels
from flambeau.compiler.gemm_pack import read_words, transpose
from flambeau.compiler.library_plan import KernelModule
from flambeau.compiler.winograd import MULTIPLY, MULTIPLY_WORDS, PLACES, multiply_function
from flambeau.compiler.winograd_transforms import (
    columns_of,
    gradient_line,
    source_line,
    window_line,
)

CHANNELS, GRADIENT, FINISH = "channels", "gradient", "finish"
BLOCKS = "winograd_gradient_blocks"

# target[place][tile][channel], tiles in the order image, row, column, whole vectors of channels
# (junk behind the last one).  Line r of the padded plane is row ``r - top`` of the source's; its
# column ``-left`` comes first.  ``scratch`` holds a plane as [line][column][channel]; a task is a
# vector of channels.
CHANNELS_WORDS = (
    "source", "scratch", "target", "images", "rows", "columns", "channels",
    "source_image", "source_rows", "source_columns", "top", "left",
    "scratch_group", "scratch_line", "target_place", "target_tile",
)  # fmt: skip

# target[place][filter][tile]: whole vectors are written.  A task is a filter.
GRADIENT_WORDS = (
    "source", "target", "images", "rows", "columns",
    "source_image", "source_rows", "source_columns", "first_row", "target_place", "target_filter",
)  # fmt: skip

# out[filter][channel][3][3] of sums[part][place][filter][channel], added over the parts; a task is
# a filter.
FINISH_WORDS = (
    "sums", "out", "parts", "part_stride", "place_stride", "filter_stride", "channels",
)  # fmt: skip

# A task is a worker: it adds up its share of the blocks, and its sums are a part.
CONTROL_WORDS = (
    "blocks", "workers", "region", "sums_stride", "image_count", "block_images", "strips",
    "strip_rows", "tile_rows", "channel_groups", "filters", "multiply_tasks",
)  # fmt: skip

_PARTS = {CHANNELS: CHANNELS_WORDS, GRADIENT: GRADIENT_WORDS, MULTIPLY: MULTIPLY_WORDS}
BLOCKS_WORDS = block_words(_PARTS, CONTROL_WORDS)

_POINTERS = frozenset({"source", "scratch", "target", "sums", "out"})


@functools.cache
def winograd_gradient_module(tile: TileShape) -> KernelModule:
    """The kernels for one element type: shapes are arguments."""
    return KernelModule(
        key=f"winograd_gradient {tile.element} {tile.lanes}",
        source=functools.partial(_source, tile),
        words={
            CHANNELS: CHANNELS_WORDS,
            GRADIENT: GRADIENT_WORDS,
            MULTIPLY: MULTIPLY_WORDS,
            FINISH: FINISH_WORDS,
            BLOCKS: BLOCKS_WORDS,
        },
    )


def _source(tile: TileShape) -> str:
    parts = [
        *micro_kernels(tile),
        multiply_function(tile),
        _channels(tile),
        _gradient(tile),
        _finish(tile),
        _blocks(tile),
    ]
    return module([text for text, _ in parts], [builder for _, builder in parts])


def _first_tile(builder: Builder, words: dict[str, Var], image: Var, row: Var) -> Var:
    """The number of the first tile of a row."""
    rows = builder.add(builder.mul(image, words["rows"]), row)
    return builder.mul(rows, words["columns"])


# -- the input's tiles, channels as lanes ----------------------------------------------------------


def _channels(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, CHANNELS_WORDS, _POINTERS)
    plane = builder.mul(words["source_rows"], words["source_columns"])
    lines = builder.add(builder.mul(words["rows"], 2), 2)

    def transform_group(group: Var, _: list[Var]) -> None:
        first = builder.mul(group, tile.lanes)
        last = builder.sub(words["channels"], 1)
        # What is behind the last channel repeats it.
        planes = [
            advance(
                builder,
                tile,
                words["source"],
                builder.min(builder.add(first, lane), last),
                plane,
            )
            for lane in range(tile.lanes)
        ]
        scratch = advance(builder, tile, words["scratch"], group, words["scratch_group"])
        target = builder.gep(tile.element, words["target"], first)

        def transform_image(image: Var, _: list[Var]) -> None:
            shift = builder.mul(image, words["source_image"])
            own = [builder.gep(tile.element, start, shift) for start in planes]

            def read_line(line: Var, _: list[Var]) -> None:
                _transpose_line(builder, tile, words, own, scratch, line)

            def transform_row(row: Var, _: list[Var]) -> None:
                start = advance(builder, tile, scratch, builder.mul(row, 2), words["scratch_line"])
                number = _first_tile(builder, words, image, row)
                _transform_row(builder, tile, words, start, target, number)

            builder.loop(0, lines, 1, [], read_line)
            builder.loop(0, words["rows"], 1, [], transform_row)

        builder.loop(0, words["images"], 1, [], transform_image)

    builder.loop(BEGIN, END, 1, [], transform_group)
    return builder.function(CHANNELS, KERNEL_PARAMETERS), builder


def _transpose_line(
    builder: Builder,
    tile: TileShape,
    words: dict[str, Var],
    planes: list[Var],
    scratch: Var,
    line: Var,
) -> None:
    """Pads a line of a vector of channels and stores it as [column][channel]."""
    row = builder.sub(line, words["top"])
    inside = builder.compare("ult", row, words["source_rows"])
    shift = builder.mul(builder.select(inside, row, 0), words["source_columns"])
    starts = [builder.gep(tile.element, plane, shift) for plane in planes]
    valid = builder.select(inside, words["source_columns"], 0)
    target = advance(builder, tile, scratch, line, words["scratch_line"])
    columns = builder.add(builder.mul(words["columns"], 2), 2)

    def copy(column: Var) -> None:
        first = builder.sub(column, words["left"])
        values = [load_columns(builder, tile, start, first, valid) for start in starts]
        place = builder.gep(tile.element, target, builder.mul(column, tile.lanes))
        for number, value in enumerate(transpose(builder, values)):
            address = builder.gep(tile.element, place, number * tile.lanes)
            builder.store(value, address, tile.size)

    for_columns(builder, tile, columns, copy)


def _transform_row(
    builder: Builder, tile: TileShape, words: dict[str, Var], scratch: Var, target: Var, number: Var
) -> None:
    lines = [
        advance(builder, tile, scratch, builder.constant(line), words["scratch_line"])
        for line in range(4)
    ]

    def transform(column: Var, _: list[Var]) -> None:
        first = builder.mul(column, 2 * tile.lanes)
        square = []
        for line in lines:
            start = builder.gep(tile.element, line, first)
            addresses = [builder.gep(tile.element, start, i * tile.lanes) for i in range(4)]
            values = [builder.load(tile.vector, address, tile.size) for address in addresses]
            square.append(source_line(builder, values))
        places = columns_of([source_line(builder, side) for side in columns_of(square)])
        address = advance(builder, tile, target, builder.add(number, column), words["target_tile"])
        for value in (value for line in places for value in line):
            builder.store(value, address, tile.size)
            address = builder.gep(tile.element, address, words["target_place"])

    builder.loop(0, words["columns"], 1, [], transform)


# -- the output gradient's tiles -------------------------------------------------------------------


def _gradient(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, GRADIENT_WORDS, _POINTERS)
    plane = builder.mul(words["source_rows"], words["source_columns"])
    even, odd = ([2 * lane + shift for lane in range(tile.lanes)] for shift in (0, 1))

    def transform_filter(number: Var, _: list[Var]) -> None:
        source = advance(builder, tile, words["source"], number, plane)
        target = advance(builder, tile, words["target"], number, words["target_filter"])

        def transform_row(image: Var, row: Var, _: list[Var]) -> None:
            own = advance(builder, tile, source, image, words["source_image"])
            first_row = builder.add(builder.mul(row, 2), words["first_row"])
            lines = []
            for line in range(2):
                at = builder.add(first_row, line)
                inside = builder.compare("slt", at, words["source_rows"])
                at = builder.select(inside, at, 0)
                start = advance(builder, tile, own, at, words["source_columns"])
                lines.append((start, builder.select(inside, words["source_columns"], 0)))
            first_tile = _first_tile(builder, words, image, row)
            place = builder.gep(tile.element, target, first_tile)

            def transform(column: Var) -> None:
                square = []
                first = builder.mul(column, 2)
                for start, valid in lines:
                    low, high = (
                        load_columns(builder, tile, start, builder.add(first, half), valid)
                        for half in (0, tile.lanes)
                    )
                    pair = [builder.shuffle(low, high, even), builder.shuffle(low, high, odd)]
                    square.append(gradient_line(builder, pair))
                places = columns_of([gradient_line(builder, side) for side in columns_of(square)])
                address = builder.gep(tile.element, place, column)
                for value in (value for line in places for value in line):
                    builder.store(value, address, tile.size)
                    address = builder.gep(tile.element, address, words["target_place"])

            for_columns(builder, tile, words["columns"], transform)

        def transform_image(image: Var, _: list[Var]) -> None:
            builder.loop(0, words["rows"], 1, [], functools.partial(transform_row, image))

        builder.loop(0, words["images"], 1, [], transform_image)

    builder.loop(BEGIN, END, 1, [], transform_filter)
    return builder.function(GRADIENT, KERNEL_PARAMETERS), builder


# -- the windows -----------------------------------------------------------------------------------


def _finish(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, FINISH_WORDS, _POINTERS)
    stack = builder.emit(PTR, f"alloca [{9 * tile.lanes} x {tile.element}], align 64")
    order = vector("i32", tile.lanes)
    tables = [
        [(k % 9) * tile.lanes + k // 9 for k in range(first, first + tile.lanes)]
        for first in range(0, 9 * tile.lanes, tile.lanes)
    ]

    def finish_filter(number: Var, _: list[Var]) -> None:
        sums = advance(builder, tile, words["sums"], number, words["filter_stride"])
        out = advance(builder, tile, words["out"], number, builder.mul(words["channels"], 9))

        def finish(channel: Var) -> None:
            start = builder.gep(tile.element, sums, channel)

            def add_part(part: Var, totals: list[Var]) -> list[Var]:
                address = advance(builder, tile, start, part, words["part_stride"])
                added = []
                for total in totals:
                    value = builder.load(tile.vector, address, tile.size)
                    added.append(builder.add(total, value))
                    address = builder.gep(tile.element, address, words["place_stride"])
                return added

            zeros = [builder.zero(tile.vector)] * PLACES
            _, totals = builder.loop(0, words["parts"], 1, zeros, add_part)
            square = [totals[first : first + 4] for first in range(0, PLACES, 4)]
            lines = [window_line(builder, line) for line in square]
            window = columns_of([window_line(builder, side) for side in columns_of(lines)])
            for tap, value in enumerate(value for line in window for value in line):
                address = builder.gep(tile.element, stack, tap * tile.lanes)
                builder.store(value, address, tile.size)
            first = builder.mul(channel, 9)
            left = builder.mul(builder.sub(words["channels"], channel), 9)
            target = builder.gep(tile.element, out, first)
            for k, table in enumerate(tables):
                index = Var(order, f"<{', '.join(f'i32 {place}' for place in table)}>")
                mask = builder.mask(builder.sub(left, k * tile.lanes), tile.lanes)
                value = builder.gather(tile.vector, stack, index, mask, tile.size)
                address = builder.gep(tile.element, target, k * tile.lanes)
                builder.masked_store(value, address, mask, tile.size)

        for_columns(builder, tile, words["channels"], finish)

    builder.loop(BEGIN, END, 1, [], finish_filter)
    return builder.function(FINISH, KERNEL_PARAMETERS), builder


# -- blocks ----------------------------------------------------------------------------------------


def _blocks(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    block = BlockParts(builder, tile, _PARTS, CONTROL_WORDS)
    word = block.shared

    def run_block(first_block: Var, number: Var, _: list[Var]) -> None:
        cut = builder.div(number, word["strips"])
        strip = builder.sub(number, builder.mul(cut, word["strips"]))
        first_image = builder.mul(cut, word["block_images"])
        images = builder.min(word["block_images"], builder.sub(word["image_count"], first_image))
        first_row = builder.mul(strip, word["strip_rows"])
        rows = builder.min(word["strip_rows"], builder.sub(word["tile_rows"], first_row))
        source_row = builder.mul(first_row, 2)
        for part in (CHANNELS, GRADIENT):
            block.move(f"{part}.source", builder.mul(first_image, word[f"{part}.source_image"]))
            block.set(f"{part}.images", images)
            block.set(f"{part}.rows", rows)
        block.set("channels.top", builder.sub(word["channels.top"], source_row))
        block.set("gradient.first_row", source_row)
        block.call(CHANNELS, 0, word["channel_groups"])
        block.call(GRADIENT, 0, word["filters"])
        tiles = builder.mul(builder.mul(images, rows), word["channels.columns"])
        block.set("multiply.k", tiles)
        follows = builder.compare("ne", number, first_block)
        block.set("multiply.accumulate", builder.select(follows, builder.constant(1), 0))
        block.call(MULTIPLY, 0, word["multiply_tasks"])

    def run_worker(worker: Var, _: list[Var]) -> None:
        region = builder.mul(worker, word["region"])
        for name in (
            "channels.scratch", "channels.target", "gradient.target",
            "multiply.weights", "multiply.source",
        ):  # fmt: skip
            block.move(name, region)
        block.move("multiply.target", builder.mul(worker, word["sums_stride"]))
        first = builder.div(builder.mul(worker, word["blocks"]), word["workers"])
        after = builder.mul(builder.add(worker, 1), word["blocks"])
        last = builder.div(after, word["workers"])
        builder.loop(first, last, 1, [], functools.partial(run_block, first))

    builder.loop(BEGIN, END, 1, [], run_worker)
    return builder.function(BLOCKS, KERNEL_PARAMETERS), builder
