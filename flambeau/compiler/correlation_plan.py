"""Correlation problems: the layouts and orders that they can be computed in, and what those cost.

Forward convolution and its gradient by the input are both a few `CorrelationPass`es over one
`SourceLayout`.  `correlation_steps` turns a problem into steps.  Everything is decided by shapes
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from flambeau.compiler.correlation_layout import SourceLayout, Window
from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.kernel_step import Pointer
from flambeau.compiler.library_plan import ceil_div

# Padded images and results in another order live in the workspace for this much of the batch at a
# time: small enough for the second-level caches, large enough to keep many threads busy.
SLICE_BYTES = 4 << 20

# Interleaved images: a task reads from all of them, so they should stay in that cache together.
# With more (512 channels of 7 x 7 planes), interleaving lost what fuller vectors gain.
INTERLEAVED_BYTES = 512 << 10

# A block of images, or a strip of one, is padded and correlated by one thread; its padded source
# should stay in that thread's second-level cache.
BLOCK_BYTES = 512 << 10

# There should be so many blocks, so that threads find work; with fewer than the least, padding is
# a step of its own.
BLOCKS = 16
LEAST_BLOCKS = 8

# What it costs when the padded source of an image does not stay in the second-level cache.
FAR_SOURCE_FACTOR = 1.1


# The same where every tap of a position is far from the others: in a source that is read from where
# it lies, or that has a phase for each.
FAR_MEMORY_FACTOR = 1.6


# A source with a phase for each element of the window that does stay in the cache.
SPLIT_FACTOR = 1.2

# With weights of so many bytes, a block has at least so many positions for each reading of them.
MANY_WEIGHT_BYTES = 1 << 20
LEAST_BLOCK_POSITIONS = 128


@dataclass(frozen=True, slots=True)
class CorrelationPass:
    """One correlation: its taps, and the positions of the output plane that it computes.

    Tap t of row r uses ``weight[r * weight_row + weight_taps[t]]``; position (i, j) reads from
    ``i * row_step + j`` of the source plane and writes ``out_start + i * out_row + j``.
    """

    weight_taps: np.ndarray
    source_offsets: np.ndarray
    row_step: int
    out_rows: int
    out_columns: int
    out_row: int
    out_start: int = 0


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How the finished plane is read out of a plane of ``size`` elements in the workspace."""

    size: int
    row_table: np.ndarray
    column_table: np.ndarray


@dataclass(frozen=True, slots=True)
class CorrelationProblem:
    """What all passes share.  ``rows`` and ``channels`` are per group; strides in elements."""

    images: int
    groups: int
    rows: int
    channels: int
    layout: SourceLayout
    passes: tuple[CorrelationPass, ...]
    out_rows: int
    out_columns: int
    arrangement: Arrangement | None
    weight_row: int
    weight_group: int
    source: Pointer
    weight: Pointer
    bias: Pointer | None
    out: Pointer
    row_stride: int = 1
    """Rows of the source in memory between two output rows"""
    interleaved: bool = False
    """Whether the rows of all images of a slice lie side by side: for planes so small that vectors
    would be half empty, if the layout makes a plane's positions neighbours."""
    strips: int = 1
    """Equal strips of output rows, each computed as if it were an image: the layout is a strip's"""

    @property
    def source_image(self) -> int:
        """Elements of an image (or strip) of the source as it is read."""
        return self.groups * self.channels * self.layout.plane

    @property
    def memory_image(self) -> int:
        """Elements of an image of the source in memory."""
        layout = self.layout
        return self.groups * self.channels * layout.memory_rows * layout.memory_columns

    @property
    def out_plane(self) -> int:
        """Elements of a plane as the passes write it."""
        return self.arrangement.size if self.arrangement else self.out_rows * self.out_columns

    @property
    def out_image(self) -> int:
        return self.groups * self.rows * self.out_plane

    @property
    def final_image(self) -> int:
        """Elements of an image of the output."""
        return self.groups * self.rows * self.out_rows * self.out_columns

    @property
    def is_scattered(self) -> bool:
        """Whether the passes write to the workspace, to be arranged from there."""
        return self.arrangement is not None or self.interleaved

    def block_images(self, tile: TileShape) -> int:
        """Images of a block: several small ones, so that they share register tiles."""
        elements = self.source_image + (self.out_image if self.is_scattered else 0)
        fit = BLOCK_BYTES // max(1, elements * tile.size)
        return 1 if self.strips > 1 else max(1, min(fit, self.images // BLOCKS))

    def in_blocks(self, tile: TileShape) -> bool:
        """Whether blocks are padded and correlated by one task each."""
        images = self.block_images(tile)
        blocks = self.images // images * self.strips
        one = self.passes[0]
        weights = self.groups * self.rows * len(one.weight_taps)
        positions = images * one.out_rows * one.out_columns
        if weights * tile.size > MANY_WEIGHT_BYTES and positions < LEAST_BLOCK_POSITIONS:
            return False
        simple = len(self.passes) == 1 and not self.interleaved and not self.reads_memory(tile)
        return simple and blocks >= LEAST_BLOCKS

    def reads_memory(self, tile: TileShape) -> bool:
        """Whether the source needs no copy; a vector may reach into the next image, no further."""
        in_memory = self.layout.is_in_memory and not self.interleaved
        return in_memory and self.source_image >= tile.lanes

    def slice_images(self, tile: TileShape) -> int:
        """How many images are in work at a time where padding is a step of its own."""
        elements = self.out_image if self.is_scattered else 0
        if not self.reads_memory(tile):
            elements += self.source_image
        nbytes = INTERLEAVED_BYTES if self.interleaved else SLICE_BYTES
        fit = nbytes // (elements * tile.size) if elements else self.images
        return max(1, min(fit, self.images))

    def cycles(self, tile: TileShape) -> float:
        """An estimate of what an image costs, to choose a layout by."""
        rows = self.groups * self.rows
        images = self.slice_images(tile) if self.interleaved else 1
        products = sum(
            len(one.weight_taps) * one.out_rows * ceil_div(images * one.out_columns, tile.lanes) / 2
            for one in self.passes
        )
        total = rows * products / images
        copied = not self.reads_memory(tile)
        split = self.layout.row_phases > 1
        if self.source_image * tile.size > 2 * BLOCK_BYTES:
            total *= FAR_SOURCE_FACTOR if copied and not split else FAR_MEMORY_FACTOR
        elif split:
            total *= SPLIT_FACTOR
        if copied:
            total += self.groups * self.channels * self.layout.copy_cycles(tile.lanes)
        if self.is_scattered:
            total += rows * self.out_rows * self.out_columns / self.strips * 1.5
        return total * self.strips


def flatten(
    one: CorrelationPass, layout: SourceLayout
) -> tuple[CorrelationPass, Arrangement | None] | None:
    """The pass with its rows joined to one, or None where they are not next to each other.

    The joined row contains the source's columns between two rows of positions, so its result may
    need an `Arrangement`.
    """
    length = layout.phase_columns
    if one.row_step != length or not one.out_rows or not one.out_columns:
        return None
    columns = (one.out_rows - 1) * length + one.out_columns
    joined = CorrelationPass(one.weight_taps, one.source_offsets, length, 1, columns, columns)
    if one.out_columns == length == one.out_row:
        return joined, None
    rows, places = np.arange(one.out_rows) * length, np.arange(one.out_columns)
    return joined, Arrangement(columns, rows, places)


def with_flattened(problem: CorrelationProblem) -> list[CorrelationProblem]:
    """A problem of one pass as it is, and flattened and interleaved where that is possible."""
    (one,) = problem.passes
    flattened = flatten(one, problem.layout)
    if flattened is None:
        return [problem]
    joined, arrangement = flattened
    flat = replace(problem, passes=(joined,), arrangement=arrangement)
    if problem.strips > 1:
        return [problem, flat] if arrangement is None else [problem]
    if arrangement is None:
        return [problem, flat, replace(flat, interleaved=True)]
    return [problem, flat]


def strip_counts(window: Window, image_bytes: int) -> list[int]:
    """1, and the fewest strips of equal height whose share of ``image_bytes`` fits a block."""
    rows = window.out[0]
    fitting = [
        strips
        for strips in range(2, rows + 1)
        if rows % strips == 0
        and image_bytes <= strips * BLOCK_BYTES
        and (rows > strips or window.kernel[0] == 1)
    ]
    return [1, *fitting[:1]] if image_bytes > BLOCK_BYTES else [1]


def pointwise_rows(positions: int, image_bytes: int) -> int:
    """The rows that a plane is best seen as, where a window of one element makes any number do:
    each a strip, so that a strip's source is a few long runs.
    """
    fewest = ceil_div(image_bytes, BLOCK_BYTES)
    most = min(positions, 2 * fewest)
    return next((rows for rows in range(fewest, most + 1) if positions % rows == 0), 1)


Formulation = Callable[[Window, SourceLayout, int], CorrelationProblem]


def cheapest(
    window: Window, image_bytes: int, tile: TileShape, formulate: Formulation
) -> CorrelationProblem:
    """The best of all layouts and strips; ``formulate`` makes a problem of one pass of them."""
    choices = []
    for strips in strip_counts(window, image_bytes):
        part = window.strip(strips)
        for layout in part.layouts(copied=strips > 1):
            choices += with_flattened(formulate(part, layout, strips))
    possible = [choice for choice in choices if choice.strips == 1 or choice.in_blocks(tile)]
    return min(possible, key=lambda choice: choice.cycles(tile))
