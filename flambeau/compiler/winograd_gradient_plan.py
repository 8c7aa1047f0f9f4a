"""Planning the gradient by the weight of F(2 x 2, 3 x 3): in blocks or in slices, as forward."""

from __future__ import annotations

from flambeau.compiler.convolution import ConvolutionProblem
from flambeau.compiler.correlation_layout import GRAIN_MOVES, image_offset
from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.kernel_step import Pointer, Word
from flambeau.compiler.library_plan import PlanWriter, balanced_panels, ceil_div
from flambeau.compiler.winograd import MULTIPLY, PLACES
from flambeau.compiler.winograd_gradient import (
    BLOCKS,
    CHANNELS,
    FINISH,
    GRADIENT,
    winograd_gradient_module,
)
from flambeau.compiler.winograd_plan import (
    CALL_CYCLES,
    INPUT_CYCLES,
    LEAST_CHANNELS,
    OUTPUT_CYCLES,
    WEIGHTS_CYCLES,
    WORTH,
    block_of_tiles,
    odd_vectors,
)

# Transformed input and gradient of a block: with the sums they should stay in the second-level
# cache.
BLOCK_BYTES = 768 << 10

# With fewer tiles in a block, the sums are read and written too often.
LEAST_BLOCK_TILES = 96

# Sums of a worker; with more, they do not stay in that cache from one block to the next.
WORKER_SUM_BYTES = 1 << 20

# Sums of all workers.
SUM_BYTES = 8 << 20

MOST_WORKERS = 8

# Transformed input and gradient of a slice: at least so much, and enough that they are more than
# the sums, which every slice reads and writes.
SLICE_BYTES = 2 << 20


class WinogradGradientPlanner:
    """Writes the steps that compute ``grad_weight`` from ``grad_output`` and ``input``."""

    def __init__(self, writer: PlanWriter, tile: TileShape, problem: ConvolutionProblem) -> None:
        self.writer, self.tile, self.problem = writer, tile, problem
        self.module = winograd_gradient_module(tile)
        self.tiles = ceil_div(problem.out_size[0], 2), ceil_div(problem.out_size[1], 2)
        self.image_tiles = self.tiles[0] * self.tiles[1]
        self.groups = ceil_div(problem.in_channels, tile.lanes)
        # Rows an odd number of vectors apart do not compete for the same lines of a cache.
        self.tile_row = odd_vectors(problem.in_channels, tile)
        self.sums_place = problem.out_channels * self.tile_row + tile.lanes
        self.sums_size = PLACES * self.sums_place

    def is_worth_it(self, plain_cycles: float) -> bool:
        """Whether it beats plain sums that take ``plain_cycles``: decided by shapes alone."""
        problem = self.problem
        enough = min(problem.in_channels, problem.out_channels) >= LEAST_CHANNELS
        return enough and self._cycles() < WORTH * plain_cycles

    def _cycles(self) -> float:
        problem, tile = self.problem, self.tile
        rows, columns = self.tiles
        tiles = problem.batch * self.image_tiles
        products = PLACES * problem.out_channels * self.groups * tiles / 2
        lines = problem.batch * rows * ceil_div(columns, tile.lanes)
        ends = lines * problem.out_channels * OUTPUT_CYCLES + tiles * self.groups * INPUT_CYCLES
        transposed = ceil_div(2 * columns + 2, tile.lanes) * (2 * rows + 2)
        ends += problem.batch * self.groups * transposed * 6 * tile.lanes
        calls = PLACES * ceil_div(problem.out_channels, tile.rows)
        calls *= ceil_div(self.groups, tile.vectors) * ceil_div(tiles, LEAST_BLOCK_TILES)
        finish = problem.out_channels * self.groups * WEIGHTS_CYCLES
        return products + ends + calls * 3 * CALL_CYCLES + finish

    def plan(self) -> None:
        if self.sums_size * self.tile.size <= WORKER_SUM_BYTES:
            self._plan_blocks()
        else:
            self._plan_slices()

    # -- slices --------------------------------------------------------------------------------

    def _plan_slices(self) -> None:
        """Each of the transforms and the products is a step over some images."""
        problem, tile = self.problem, self.tile
        image_bytes = PLACES * (problem.out_channels + self.tile_row) * self.image_tiles * tile.size
        nbytes = max(SLICE_BYTES, self.sums_size * tile.size)
        most = max(LEAST_BLOCK_TILES, nbytes * self.image_tiles // image_bytes)
        images, rows = block_of_tiles(problem.batch, self.tiles, most)
        self._lay_out(rows, images * rows * self.tiles[1])
        scratch = self._reserve(self.groups * self.scratch)
        source = self._reserve(PLACES * self.source_place)
        gradient = self._reserve(PLACES * self.gradient_place)
        sums = self._reserve(self.sums_size)
        follows = 0
        for first in range(0, problem.batch, images):
            for row in range(0, self.tiles[0], rows):
                extent = min(images, problem.batch - first), min(rows, self.tiles[0] - row)
                tiles = extent[0] * extent[1] * self.tiles[1]
                moves = PLACES * tiles
                channels = self._channels(scratch, self.scratch, source, first, row, extent)
                self._add(CHANNELS, channels, self.groups, moves * tile.lanes)
                own = self._gradient(gradient, first, row, extent)
                self._add(GRADIENT, own, problem.out_channels, moves)
                multiply = self._multiply(gradient, source, sums, tiles, follows)
                self._add(MULTIPLY, multiply, PLACES * self._strips(), 1 << 30)
                follows = 1
        self._finish(sums, 1)

    def _add(self, function: str, arguments: dict[str, Word], tasks: int, moves: int) -> None:
        step = self.module.step(function, arguments, tasks, GRAIN_MOVES // max(1, moves))
        self.writer.add(step)

    def _reserve(self, elements: int) -> Pointer:
        return self.writer.reserve(elements * self.tile.size)

    # -- blocks --------------------------------------------------------------------------------

    def _plan_blocks(self) -> None:
        """One task transforms and multiplies a block after the other, and keeps sums of its own."""
        problem, tile = self.problem, self.tile
        tile_bytes = PLACES * (problem.out_channels + self.tile_row) * tile.size
        most = max(LEAST_BLOCK_TILES, BLOCK_BYTES // tile_bytes)
        images, rows = block_of_tiles(problem.batch, self.tiles, most)
        strips = ceil_div(self.tiles[0], rows)
        blocks = ceil_div(problem.batch, images) * strips
        fit = SUM_BYTES // (self.sums_size * tile.size)
        workers = max(1, min(blocks, MOST_WORKERS, fit))
        self._lay_out(rows, images * rows * self.tiles[1])
        sizes = [self.scratch, PLACES * self.source_place, PLACES * self.gradient_place]
        lengths = [ceil_div(size, 64) * 64 for size in sizes]
        region = self._reserve(workers * sum(lengths))
        source = image_offset(tile, region, 1, lengths[0])
        gradient = image_offset(tile, region, 1, lengths[0] + lengths[1])
        sums = self._reserve(workers * self.sums_size)
        extent = images, rows
        parts = {
            CHANNELS: self._channels(region, 0, source, 0, 0, extent),
            GRADIENT: self._gradient(gradient, 0, 0, extent),
            MULTIPLY: self._multiply(gradient, source, sums, 0, 0),
        }
        arguments: dict[str, Word] = {
            f"{part}.{name}": word for part, words in parts.items() for name, word in words.items()
        }
        arguments |= {
            "blocks": blocks,
            "workers": workers,
            "region": sum(lengths),
            "sums_stride": self.sums_size,
            "image_count": problem.batch,
            "block_images": images,
            "strips": strips,
            "strip_rows": rows,
            "tile_rows": self.tiles[0],
            "channel_groups": self.groups,
            "filters": problem.out_channels,
            "multiply_tasks": PLACES * self._strips(),
        }
        self.writer.add(self.module.step(BLOCKS, arguments, workers))
        self._finish(sums, workers)

    # -- the parts' words ----------------------------------------------------------------------

    def _lay_out(self, rows: int, tiles: int) -> None:
        """Fixes the strides for ``rows`` rows of tiles in a plane, ``tiles`` tiles at a time."""
        lanes = self.tile.lanes
        self.source_place = tiles * self.tile_row + lanes
        self.gradient_row = odd_vectors(tiles + lanes - 1, self.tile)
        self.gradient_place = self.problem.out_channels * self.gradient_row + lanes
        self.scratch_line = ceil_div(2 * self.tiles[1] + 2, lanes) * lanes * lanes
        self.scratch = (2 * rows + 2) * self.scratch_line

    def _strips(self) -> int:
        return ceil_div(self.groups, self.tile.vectors)

    def _channels(
        self,
        scratch: Pointer,
        scratch_group: int,
        target: Pointer,
        first: int,
        row: int,
        extent: tuple[int, int],
    ) -> dict[str, Word]:
        problem = self.problem
        image = problem.in_channels * problem.in_size[0] * problem.in_size[1]
        return {
            "source": image_offset(self.tile, Pointer("input"), first, image),
            "scratch": scratch,
            "target": target,
            "images": extent[0],
            "rows": extent[1],
            "columns": self.tiles[1],
            "channels": problem.in_channels,
            "source_image": image,
            "source_rows": problem.in_size[0],
            "source_columns": problem.in_size[1],
            "top": problem.pad_low[0] - 2 * row,
            "left": problem.pad_low[1],
            "scratch_group": scratch_group,
            "scratch_line": self.scratch_line,
            "target_place": self.source_place,
            "target_tile": self.tile_row,
        }

    def _gradient(
        self, target: Pointer, first: int, row: int, extent: tuple[int, int]
    ) -> dict[str, Word]:
        problem = self.problem
        image = problem.out_channels * problem.out_size[0] * problem.out_size[1]
        return {
            "source": image_offset(self.tile, Pointer("grad_output"), first, image),
            "target": target,
            "images": extent[0],
            "rows": extent[1],
            "columns": self.tiles[1],
            "source_image": image,
            "source_rows": problem.out_size[0],
            "source_columns": problem.out_size[1],
            "first_row": 2 * row,
            "target_place": self.gradient_place,
            "target_filter": self.gradient_row,
        }

    def _multiply(
        self, gradient: Pointer, source: Pointer, sums: Pointer, tiles: int, accumulate: int
    ) -> dict[str, Word]:
        panels, height, tall = balanced_panels(self.problem.out_channels, self.tile.rows)
        return {
            "weights": gradient,
            "source": source,
            "target": sums,
            "weights_place": self.gradient_place,
            "weights_row": self.gradient_row,
            "source_place": self.source_place,
            "source_k": self.tile_row,
            "target_place": self.sums_place,
            "target_row": self.tile_row,
            "k": tiles,
            "vectors": self.groups,
            "strips": self._strips(),
            "first_panel": 0,
            "last_panel": panels,
            "height": height,
            "tall_panels": tall,
            "accumulate": accumulate,
        }

    def _finish(self, sums: Pointer, parts: int) -> None:
        problem = self.problem
        arguments: dict[str, Word] = {
            "sums": sums,
            "out": Pointer("grad_weight"),
            "parts": parts,
            "part_stride": self.sums_size,
            "place_stride": self.sums_place,
            "filter_stride": self.tile_row,
            "channels": problem.in_channels,
        }
        moves = PLACES * parts * problem.in_channels
        self._add(FINISH, arguments, problem.out_channels, moves)
