"""Planning F(2 x 2, 3 x 3): when it is worth its transformations, and the steps it takes.

Two orders: *blocks*, which a task transforms, multiplies and finishes one after the other in its
second-level cache; and *slices*, where each of the three is a step over some images, for so many
channels that the transformed weights would otherwise be read again and again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flambeau.compiler.correlation_layout import GRAIN_MOVES, image_offset
from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.kernel_step import Pointer, Word
from flambeau.compiler.library_plan import PlanWriter, balanced_panels, ceil_div
from flambeau.compiler.winograd import (
    BLOCKS,
    INPUT,
    MULTIPLY,
    OUTPUT,
    PLACES,
    WEIGHTS,
    winograd_module,
)

Pair = tuple[int, int]

# The transformed input of a block: with the weights and the sums of a few rows it should stay in
# the second-level cache.
BLOCK_BYTES = 512 << 10

# With fewer tiles in a block, the weights are read too often: they do not stay in that cache.
LEAST_BLOCK_TILES = 64

# The sums of a group of panels, in the same cache.
SUM_BYTES = 128 << 10

# Tasks that blocks are shared out to: each needs a region of workspace, which is in no cache at
# first.
WORKERS = 8

# Transformed input and sums of a slice.
SLICE_BYTES = 8 << 20

# With so many channels the transformed weights of a block's pass do not stay in the cache.
MANY_CHANNELS = 256

# Fewer channels leave more to transform than is saved.
LEAST_CHANNELS = 16

# What of the plain sum's time it may take at most: the estimates are not exact, and plain sums keep
# infinities where they belong.
WORTH = 0.85

# Cycles: transforming a vector of windows, of input tiles and of output tiles; calling a micro
# kernel.
WEIGHTS_CYCLES, INPUT_CYCLES, OUTPUT_CYCLES, CALL_CYCLES = 200, 60, 50, 40


@dataclass(frozen=True, slots=True)
class WinogradProblem:
    """A 3 x 3 correlation of stride 1: ``rows`` filters over ``channels`` planes of ``memory``.

    The weights lie as ``[rows][channels][3][3]``; ``flipped`` means ``[channels][rows][3][3]`` with
    each window turned by half a turn, as the gradient by the input needs them.
    """

    images: int
    rows: int
    channels: int
    memory: Pair
    out: Pair
    low: Pair
    flipped: bool
    source: Pointer
    weight: Pointer
    bias: Pointer | None
    target: Pointer

    @property
    def tiles(self) -> Pair:
        """Rows and columns of tiles."""
        return ceil_div(self.out[0], 2), ceil_div(self.out[1], 2)

    @property
    def image_tiles(self) -> int:
        return self.tiles[0] * self.tiles[1]

    def is_worth_it(self, tile: TileShape, plain_cycles: float) -> bool:
        """Whether it beats plain sums that take ``plain_cycles``: decided by shapes alone."""
        enough = min(self.rows, self.channels) >= LEAST_CHANNELS
        return enough and self.cycles(tile) < WORTH * plain_cycles

    def cycles(self, tile: TileShape) -> float:
        """An estimate of what it all costs."""
        lanes = tile.lanes
        rows, columns = self.tiles
        lines = self.images * rows * ceil_div(columns, lanes)
        vectors = ceil_div(self.images * self.image_tiles, lanes)
        panels = ceil_div(self.rows, tile.rows)
        calls = PLACES * panels * ceil_div(vectors, tile.vectors)
        products = PLACES * self.rows * self.channels * vectors / 2
        weights = self.rows * ceil_div(self.channels, lanes) * WEIGHTS_CYCLES
        ends = lines * (self.channels * INPUT_CYCLES + self.rows * OUTPUT_CYCLES)
        return products + weights + ends + calls * CALL_CYCLES


class WinogradPlanner:
    """Writes the steps of one problem into a plan."""

    def __init__(self, writer: PlanWriter, tile: TileShape, problem: WinogradProblem) -> None:
        self.writer, self.tile, self.problem = writer, tile, problem
        self.module = winograd_module(tile)
        self.panels, self.height, self.tall_panels = balanced_panels(problem.rows, tile.rows)

    def plan(self) -> None:
        self._transform_weights()
        problem, size = self.problem, self.tile.size
        image_bytes = PLACES * (problem.channels + problem.rows) * problem.image_tiles * size
        if problem.channels >= MANY_CHANNELS and image_bytes <= SLICE_BYTES:
            self._plan_slices(image_bytes)
        else:
            self._plan_blocks()

    # -- the weights ---------------------------------------------------------------------------

    def _transform_weights(self) -> None:
        problem, tile = self.problem, self.tile
        rows, columns = problem.rows, problem.channels
        row_stride, column_stride = (9, 9 * rows) if problem.flipped else (9 * columns, 9)
        self.weights_row = odd_vectors(columns, tile)
        self.weights_place = rows * self.weights_row
        self.weights = self.writer.reserve(PLACES * self.weights_place * tile.size)
        places = np.arange(4)
        if problem.flipped:
            # Turning a window exchanges the outer lines of its transform and keeps the inner ones.
            places[[0, 3]] = 3, 0
        table = (places[:, None] * 4 + places).reshape(-1) * self.weights_place
        arguments: dict[str, Word] = {
            "weight": problem.weight,
            "target": self.weights,
            "place_table": self.writer.constant(table.astype(np.int64)),
            "columns": columns,
            "row_stride": row_stride,
            "column_stride": column_stride,
            "target_row": self.weights_row,
        }
        grain = GRAIN_MOVES // (16 * columns)
        self.writer.add(self.module.step(WEIGHTS, arguments, rows, grain))

    # -- slices --------------------------------------------------------------------------------

    def _plan_slices(self, image_bytes: int) -> None:
        problem, tile = self.problem, self.tile
        count = max(1, min(problem.images, SLICE_BYTES // image_bytes))
        self._lay_out(problem.tiles[0], count * problem.image_tiles)
        scratch = self.writer.reserve(problem.channels * self.scratch * tile.size)
        source = self.writer.reserve(PLACES * self.source_place * tile.size)
        sums_place = self._sums_place(problem.rows)
        sums = self.writer.reserve(PLACES * sums_place * tile.size)
        for first in range(0, problem.images, count):
            images = min(count, problem.images - first)
            tiles = images * problem.image_tiles
            transform = self._input(scratch, self.scratch, source, first, images)
            self._add(INPUT, transform, problem.channels, PLACES * tiles)
            multiply = self._multiply(source, sums, sums_place, tiles)
            strips = int(multiply["strips"])  # type: ignore[arg-type]
            self._add(MULTIPLY, multiply, PLACES * strips, 1 << 30)
            finish = self._output(sums, sums_place, first, images)
            self._add(OUTPUT, finish, problem.rows, PLACES * tiles)

    def _add(self, function: str, arguments: dict[str, Word], tasks: int, moves: int) -> None:
        step = self.module.step(function, arguments, tasks, GRAIN_MOVES // max(1, moves))
        self.writer.add(step)

    # -- blocks --------------------------------------------------------------------------------

    def _plan_blocks(self) -> None:
        problem, tile = self.problem, self.tile
        fit = BLOCK_BYTES // (PLACES * problem.channels * tile.size)
        images, rows = block_of_tiles(problem.images, problem.tiles, max(LEAST_BLOCK_TILES, fit))
        strips = ceil_div(problem.tiles[0], rows)
        blocks = ceil_div(problem.images, images) * strips
        workers = min(blocks, WORKERS)
        self._lay_out(rows, images * rows * problem.tiles[1])
        panel_bytes = PLACES * self.height * self.source_row * tile.size
        group = max(1, min(self.panels, SUM_BYTES // panel_bytes))
        sums_place = self._sums_place(group * self.height)
        sizes = [
            self.scratch,
            PLACES * self.source_place,
            PLACES * sums_place,
        ]
        lengths = [ceil_div(size, 64) * 64 for size in sizes]
        region = self.writer.reserve(workers * sum(lengths) * tile.size)
        source = image_offset(tile, region, 1, lengths[0])
        sums = image_offset(tile, region, 1, lengths[0] + lengths[1])
        tiles = images * rows * problem.tiles[1]
        parts = {
            "input": self._input(region, 0, source, 0, images),
            "multiply": self._multiply(source, sums, sums_place, tiles),
            "output": self._output(sums, sums_place, 0, images),
        }
        arguments: dict[str, Word] = {
            f"{part}.{name}": word for part, words in parts.items() for name, word in words.items()
        }
        arguments |= {
            "blocks": blocks,
            "workers": workers,
            "region": sum(lengths),
            "image_count": problem.images,
            "block_images": images,
            "strips": strips,
            "strip_rows": rows,
            "tile_rows": problem.tiles[0],
            "channels": problem.channels,
            "panels": self.panels,
            "panel_group": group,
            "panel_groups": ceil_div(self.panels, group),
        }
        self.writer.add(self.module.step(BLOCKS, arguments, workers))

    # -- the parts' words ----------------------------------------------------------------------

    def _lay_out(self, rows: int, tiles: int) -> None:
        """Fixes the strides for ``rows`` rows of tiles in a plane, ``tiles`` tiles at a time."""
        # Vectors are stored whole.  Places an odd number of vectors apart do not compete for the
        # same lines of a cache.
        self.source_row = odd_vectors(tiles + self.tile.lanes - 1, self.tile)
        self.source_place = self.problem.channels * self.source_row + self.tile.lanes
        self.scratch_line = ceil_div(self.problem.tiles[1], self.tile.lanes) * self.tile.lanes
        self.scratch = (2 * rows + 2) * 4 * self.scratch_line

    def _sums_place(self, rows: int) -> int:
        return rows * self.source_row + self.tile.lanes

    def _input(
        self, scratch: Pointer, scratch_channel: int, target: Pointer, first: int, images: int
    ) -> dict[str, Word]:
        problem = self.problem
        memory_image = problem.channels * problem.memory[0] * problem.memory[1]
        return {
            "source": image_offset(self.tile, problem.source, first, memory_image),
            "scratch": scratch,
            "target": target,
            "images": images,
            "rows": problem.tiles[0],
            "columns": problem.tiles[1],
            "source_image": memory_image,
            "source_rows": problem.memory[0],
            "source_columns": problem.memory[1],
            "top": problem.low[0],
            "left": problem.low[1],
            "scratch_channel": scratch_channel,
            "scratch_line": self.scratch_line,
            "target_place": self.source_place,
            "target_channel": self.source_row,
        }

    def _multiply(
        self, source: Pointer, sums: Pointer, sums_place: int, tiles: int
    ) -> dict[str, Word]:
        problem, tile = self.problem, self.tile
        vectors = ceil_div(tiles, tile.lanes)
        return {
            "weights": self.weights,
            "source": source,
            "target": sums,
            "weights_place": self.weights_place,
            "weights_row": self.weights_row,
            "source_place": self.source_place,
            "source_k": self.source_row,
            "target_place": sums_place,
            "target_row": self.source_row,
            "k": problem.channels,
            "vectors": vectors,
            "strips": ceil_div(vectors, tile.vectors),
            "first_panel": 0,
            "last_panel": self.panels,
            "height": self.height,
            "tall_panels": self.tall_panels,
            "accumulate": 0,
        }

    def _output(self, sums: Pointer, sums_place: int, first: int, images: int) -> dict[str, Word]:
        problem = self.problem
        plane = problem.out[0] * problem.out[1]
        return {
            "source": sums,
            "out": image_offset(self.tile, problem.target, first, problem.rows * plane),
            "bias": problem.bias or self.writer.constant(np.zeros(1)),
            "bias_step": 1 if problem.bias else 0,
            "source_place": sums_place,
            "source_row": self.source_row,
            "images": images,
            "rows": problem.tiles[0],
            "columns": problem.tiles[1],
            "out_image": problem.rows * plane,
            "out_channel": plane,
            "out_rows": problem.out[0],
            "out_columns": problem.out[1],
        }


def odd_vectors(elements: int, tile: TileShape) -> int:
    """``elements`` rounded up to an odd number of vectors."""
    return (ceil_div(elements, tile.lanes) | 1) * tile.lanes


def block_of_tiles(images: int, tiles: Pair, most: int) -> Pair:
    """(images, rows of tiles) of a block of about ``most`` of an image's ``tiles``."""
    rows, columns = tiles
    if rows * columns <= most:
        return max(1, min(most // (rows * columns), images)), rows
    strips = ceil_div(rows, max(1, most // columns))
    return 1, ceil_div(rows, strips)
