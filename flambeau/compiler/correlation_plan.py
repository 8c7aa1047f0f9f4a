"""Planning correlations: layouts of the source, cuts of the batch, and the steps that result.

Forward convolution and its gradient by the input are both a few `CorrelationPass`es over one
`SourceLayout`; this file turns them into steps.  Everything is decided by shapes alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from flambeau.compiler.correlation import (
    ARRANGE,
    CORRELATE,
    PACK,
    correlation_module,
    vector_counts,
)
from flambeau.compiler.correlation_layout import (
    GRAIN_MOVES,
    SourceLayout,
    add_pad_step,
    image_by_image,
    image_offset,
    row_by_row,
)
from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.kernel_step import Pointer
from flambeau.compiler.library_plan import PlanWriter, balanced_panels, ceil_div, offset

# Padded images and results in another order live in the workspace for this much of the batch at a
# time: small enough for the second-level caches, large enough to keep many threads busy.
SLICE_BYTES = 4 << 20

# Interleaved images: a task reads from all of them, so they should stay in that cache together.
# With more (512 channels of 7 x 7 planes), interleaving lost what fuller vectors gain.
INTERLEAVED_BYTES = 512 << 10

# A block of packed weights that stays in the second-level cache while all positions pass by.
PANEL_BLOCK_BYTES = 512 << 10

# Below this many tasks, the rows are cut further so that many threads find work.
ENOUGH_TASKS = 32

# Multiply-adds that are worth handing to another thread (about 5 us).
GRAIN_PRODUCTS = 1 << 18


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
    interleaved: bool = False
    """Whether the rows of all images of a slice lie side by side: for planes so small that vectors
    would be half empty, if the layout makes a plane's positions neighbours."""

    @property
    def source_image(self) -> int:
        """Elements of an image of the source as it is read."""
        return self.groups * self.channels * self.layout.plane

    @property
    def out_plane(self) -> int:
        """Elements of a plane as the passes write it."""
        return self.arrangement.size if self.arrangement else self.out_rows * self.out_columns

    @property
    def out_image(self) -> int:
        return self.groups * self.rows * self.out_plane

    def reads_memory(self, tile: TileShape) -> bool:
        """Whether the source needs no copy; a vector may reach into the next image, no further."""
        in_memory = self.layout.is_in_memory and not self.interleaved
        return in_memory and self.source_image >= tile.lanes

    def slice_images(self, tile: TileShape) -> int:
        """How many images are in work at a time."""
        elements = self.out_image if self.arrangement or self.interleaved else 0
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
        if not self.reads_memory(tile):
            total += self.groups * self.channels * self.layout.copy_cycles(tile.lanes)
        if self.arrangement or self.interleaved:
            total += rows * self.out_rows * self.out_columns * 1.5
        return total


@dataclass(frozen=True, slots=True)
class Slice:
    """Images ``first .. first + count - 1``, read from memory or from a copy in the workspace."""

    first: int
    count: int
    direct: bool


class CorrelationPlanner:
    """Writes the steps of one `CorrelationProblem` into a plan."""

    def __init__(self, writer: PlanWriter, tile: TileShape, problem: CorrelationProblem) -> None:
        self.writer = writer
        self.tile = tile
        self.problem = problem
        self.module = correlation_module(tile)
        self.direct = problem.reads_memory(tile)

    def plan(self) -> None:
        problem, size = self.problem, self.tile.size
        slices = list(self._slices())
        copied = max((s.count for s in slices if not s.direct), default=0)
        self.padded = self.writer.reserve(copied * problem.source_image * size)
        if problem.arrangement or problem.interleaved:
            most = max((s.count for s in slices), default=0)
            self.scattered = self.writer.reserve(most * problem.out_image * size)
        packed = [self._pack(one) for one in problem.passes]
        for images in slices:
            if not images.direct:
                self._pad(images)
            for one, weights in zip(problem.passes, packed):
                self._correlate(one, weights, images)
            if problem.arrangement:
                self._arrange(images, problem.arrangement)
            elif problem.interleaved:
                self._separate(images)

    def _slices(self) -> Iterator[Slice]:
        problem = self.problem
        if not problem.images:
            return
        readable = problem.images - 1 if self.direct else problem.images
        count = problem.slice_images(self.tile)
        for first in range(0, readable, count):
            yield Slice(first, min(count, readable - first), self.direct)
        if self.direct:
            # Whole vectors are read: past the last image there may be nothing, so it is copied.
            yield Slice(readable, 1, False)

    def _pack(self, one: CorrelationPass) -> _PackedWeights:
        problem, tile = self.problem, self.tile
        taps = len(one.weight_taps)
        groups = one.out_rows * ceil_div(one.out_columns, tile.lanes)
        if one.out_rows == 1:
            groups = ceil_div(one.out_columns * problem.images, tile.lanes)
        vectors = _choose_vectors(tile, problem.rows, groups)
        most = vector_counts(tile)[vectors]
        panels, height, tall_panels = balanced_panels(problem.rows, most)
        packed = self.writer.reserve(problem.groups * problem.rows * taps * tile.size)
        arguments = {
            "weight": problem.weight,
            "packed": packed,
            "tap_table": self.writer.constant(one.weight_taps.astype(np.int64)),
            "taps": taps,
            "group_stride": problem.weight_group,
            "row_stride": problem.weight_row,
            "rows": problem.rows,
            "panels": panels,
            "height": height,
            "tall_panels": tall_panels,
        }
        tasks = problem.groups * panels if taps else 0
        grain = GRAIN_MOVES // max(1, height * taps)
        self.writer.add(self.module.step(PACK, arguments, tasks, grain))
        return _PackedWeights(packed, vectors, panels, height, tall_panels)

    def _pad(self, images: Slice) -> None:
        problem, layout = self.problem, self.problem.layout
        planes = problem.groups * problem.channels
        in_memory = planes * layout.memory_rows * layout.memory_columns
        source = image_offset(self.tile, problem.source, images.first, in_memory)
        if problem.interleaved:
            placement = row_by_row(layout, images.count)
        else:
            placement = image_by_image(layout, planes)
        add_pad_step(
            self.writer, self.tile, layout, placement, source, self.padded, images.count, planes
        )

    def _correlate(self, one: CorrelationPass, weights: _PackedWeights, images: Slice) -> None:
        problem, tile = self.problem, self.tile
        taps = len(one.source_offsets)
        source, out = self.padded, problem.out
        if images.direct:
            source = image_offset(tile, problem.source, images.first, problem.source_image)
        if problem.arrangement or problem.interleaved:
            out = self.scattered
        else:
            out = image_offset(tile, out, images.first, problem.out_image)
        # Where an image has one row of positions, images take the place of rows: vectors of
        # different images then share a register tile.  Interleaved images are one long row.
        joined = one.out_rows == 1
        side_by_side = images.count if problem.interleaved else 1
        images_left = 1 if joined else images.count
        columns = one.out_columns * side_by_side
        column_groups = ceil_div(columns, tile.lanes)
        rows = images.count // side_by_side if joined else one.out_rows
        total_groups = column_groups * rows
        chunks = ceil_div(total_groups, weights.vectors)
        other_tasks = images_left * problem.groups * chunks
        block = _panels_per_block(weights, taps * tile.size, other_tasks)
        blocks = ceil_div(weights.panels, block)
        arguments = {
            "source": source,
            "packed": weights.packed,
            "out": offset(out, one.out_start * tile.size),
            "tap_offsets": self.writer.constant(one.source_offsets * side_by_side),
            "taps": taps,
            "bias": problem.bias or self.writer.constant(np.zeros(1)),
            "bias_step": 1 if problem.bias else 0,
            "image_stride": problem.source_image,
            "group_stride": problem.channels * problem.layout.plane * side_by_side,
            "row_step": problem.source_image if joined else one.row_step,
            "out_image": problem.out_image,
            "out_channel": problem.out_plane * side_by_side,
            "out_row": problem.out_image if joined else one.out_row,
            "columns": columns,
            "column_groups": column_groups,
            "total_groups": total_groups,
            "chunks": chunks,
            "groups": problem.groups,
            "rows": problem.rows,
            "panels": weights.panels,
            "panel_blocks": blocks,
            "panels_per_block": block,
            "height": weights.height,
            "tall_panels": weights.tall_panels,
            "vectors": weights.vectors,
        }
        tasks = other_tasks * blocks if problem.rows else 0
        work = taps * min(problem.rows, block * weights.height) * weights.vectors * tile.lanes
        grain = GRAIN_PRODUCTS // max(1, work)
        self.writer.add(self.module.step(CORRELATE, arguments, tasks, grain))

    def _arrange(self, images: Slice, arrangement: Arrangement) -> None:
        problem = self.problem
        self._add_arrange(
            images,
            channels=problem.groups * problem.rows,
            image_stride=problem.out_image,
            channel_stride=arrangement.size,
            row_table=arrangement.row_table,
            column_table=arrangement.column_table,
        )

    def _separate(self, images: Slice) -> None:
        """Brings interleaved results into the order of images."""
        problem = self.problem
        count, columns = images.count, problem.out_columns
        channels, plane = problem.groups * problem.rows, count * problem.out_plane
        rows = np.arange(problem.out_rows)[:, None] * count * columns
        places = (rows + np.arange(columns)).reshape(-1)
        if problem.out_plane == 1:
            places = np.arange(channels) * plane
            channels = 1
        self._add_arrange(
            images,
            channels=channels,
            image_stride=columns,
            channel_stride=plane,
            row_table=np.zeros(1),
            column_table=places,
        )

    def _add_arrange(
        self,
        images: Slice,
        channels: int,
        image_stride: int,
        channel_stride: int,
        row_table: np.ndarray,
        column_table: np.ndarray,
    ) -> None:
        problem, rows, columns = self.problem, len(row_table), len(column_table)
        image = channels * rows * columns
        arguments = {
            "source": self.scattered,
            "target": image_offset(self.tile, problem.out, images.first, image),
            "channels": channels,
            "image_stride": image_stride,
            "channel_stride": channel_stride,
            "rows": rows,
            "columns": columns,
            "row_table": self.writer.constant(row_table.astype(np.int64)),
            "column_table": self.writer.constant(column_table.astype(np.int32)),
        }
        tasks = images.count * channels * rows if columns else 0
        grain = GRAIN_MOVES // max(1, columns)
        self.writer.add(self.module.step(ARRANGE, arguments, tasks, grain))


@dataclass(frozen=True, slots=True)
class _PackedWeights:
    packed: Pointer
    vectors: int
    panels: int
    height: int
    tall_panels: int


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
    if arrangement is None:
        return [problem, flat, replace(flat, interleaved=True)]
    return [problem, flat]


def _choose_vectors(tile: TileShape, rows: int, groups: int) -> int:
    """The width of the register tile that computes ``groups`` vectors of columns soonest."""

    def cycles(vectors: int) -> float:
        most = vector_counts(tile)[vectors]
        panels, height, tall = balanced_panels(rows, most)
        counts = ((height, tall), (height - 1, panels - tall))
        per_tap = sum(count * _cycles_per_tap(h, vectors) for h, count in counts)
        return ceil_div(groups, vectors) * per_tap

    return min(vector_counts(tile), key=cycles)


def _cycles_per_tap(rows: int, vectors: int) -> float:
    """Two multiply-adds of latency 4 and two loads per cycle; unaligned loads count twice."""
    return max(rows * vectors / 2, (2 * vectors + rows + 1) / 2, 4.0)


def _panels_per_block(weights: _PackedWeights, tap_bytes: int, other_tasks: int) -> int:
    """Panels that one task runs through: as many as the cache holds and the threads can spare."""
    fit = max(1, PANEL_BLOCK_BYTES // max(1, weights.height * tap_bytes))
    wanted_blocks = ceil_div(ENOUGH_TASKS, max(1, other_tasks))
    return max(1, min(fit, weights.panels // min(wanted_blocks, weights.panels)))
