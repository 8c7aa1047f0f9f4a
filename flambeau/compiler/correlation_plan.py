"""Planning correlations: layouts of the source, cuts of the batch, and the steps that result.

Forward convolution and its gradient by the input are both a few `CorrelationPass`es over one
`SourceLayout`; this file turns them into steps.  Everything is decided by shapes alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flambeau.compiler.correlation import (
    ARRANGE,
    CORRELATE,
    PACK,
    PAD,
    PAD_ANY,
    PAD_PAIRS,
    correlation_module,
    vector_counts,
)
from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.kernel_step import Pointer
from flambeau.compiler.library_plan import (
    PlanWriter,
    balanced_panels,
    ceil_div,
    offset,
)

# Padded images and results in another order live in the workspace for this much of the batch at a
# time: small enough for the second-level caches, large enough to keep many threads busy.
SLICE_BYTES = 4 << 20

# A block of packed weights that stays in the second-level cache while all positions pass by.
PANEL_BLOCK_BYTES = 512 << 10

# Below this many tasks, the rows are cut further so that many threads find work.
ENOUGH_TASKS = 32

# Multiply-adds, or elements moved, that are worth handing to another thread (about 5 us).
GRAIN_PRODUCTS = 1 << 18
GRAIN_MOVES = 1 << 14


@dataclass(frozen=True, slots=True)
class SourceLayout:
    """One plane (image and channel) of a correlation's source, as it is read.

    Row r is row ``r * row_step - top`` of the plane in memory; a row consists of ``phases`` runs of
    ``phase_columns`` columns, of which column j of phase p is column
    ``j * column_step + p - left``.  What the plane in memory lacks is zero.
    """

    memory_rows: int
    memory_columns: int
    rows: int
    phase_columns: int
    phases: int = 1
    row_step: int = 1
    column_step: int = 1
    top: int = 0
    left: int = 0

    @property
    def row_length(self) -> int:
        return self.phases * self.phase_columns

    @property
    def plane(self) -> int:
        return self.rows * self.row_length

    def as_in_memory(self) -> SourceLayout | None:
        """The layout of the plane itself where it can be read as it is."""
        plain = self.phases == self.row_step == self.column_step == 1
        inside = self.rows <= self.memory_rows and self.phase_columns <= self.memory_columns
        if plain and inside and self.top == self.left == 0:
            rows, columns = self.memory_rows, self.memory_columns
            return SourceLayout(rows, columns, rows, columns)
        return None

    def tap_offset(self, row: int, column: int) -> int:
        """Where the tap ``row`` rows below and ``column`` columns right of a position lies."""
        phase, shift = column % self.column_step, column // self.column_step
        return row * self.row_length + phase * self.phase_columns + shift


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

    @property
    def out_plane(self) -> int:
        """Elements of a plane as the passes write it."""
        return self.arrangement.size if self.arrangement else self.out_rows * self.out_columns


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
        self.direct = _reads_memory(problem, tile)
        self.layout = problem.layout.as_in_memory() if self.direct else problem.layout
        assert self.layout is not None

    def plan(self) -> None:
        problem, size = self.problem, self.tile.size
        slices = list(self._slices())
        copied = max((s.count for s in slices if not s.direct), default=0)
        planes = problem.groups * problem.channels
        self.padded = self.writer.reserve(copied * planes * self.layout.plane * size)
        if problem.arrangement:
            most = max((s.count for s in slices), default=0)
            plane = problem.arrangement.size
            self.scattered = self.writer.reserve(
                most * problem.groups * problem.rows * plane * size
            )
        packed = [self._pack(one) for one in problem.passes]
        for images in slices:
            if not images.direct:
                self._pad(images)
            for one, weights in zip(problem.passes, packed):
                self._correlate(one, weights, images)
            if problem.arrangement:
                self._arrange(images)

    def _slices(self) -> Iterator[Slice]:
        problem = self.problem
        per_image = 0
        if problem.arrangement:
            per_image += problem.groups * problem.rows * problem.arrangement.size
        if not self.direct:
            per_image += problem.groups * problem.channels * self.layout.plane
        readable = problem.images - 1 if self.direct else problem.images
        count = SLICE_BYTES // (per_image * self.tile.size) if per_image else readable
        count = max(1, count)
        for first in range(0, readable, count):
            yield Slice(first, min(count, readable - first), self.direct)
        if self.direct:
            # Whole vectors are read: past the last image there may be nothing, so it is copied.
            yield Slice(readable, 1, False)

    def _pack(self, one: CorrelationPass) -> _PackedWeights:
        problem, tile = self.problem, self.tile
        taps = len(one.weight_taps)
        groups = _column_groups(one, tile)
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
        add_pad_step(
            self.writer,
            self.tile,
            self.layout,
            self.problem.source,
            self.padded,
            self.problem.groups * self.problem.channels,
            images,
        )

    def _correlate(self, one: CorrelationPass, weights: _PackedWeights, images: Slice) -> None:
        problem, tile = self.problem, self.tile
        plane, out_plane = self.layout.plane, problem.out_plane
        taps = len(one.source_offsets)
        channels, rows = problem.groups * problem.channels, problem.groups * problem.rows
        source = self.padded
        if images.direct:
            source = offset(problem.source, images.first * channels * plane * tile.size)
        if problem.arrangement:
            out = self.scattered
        else:
            out = offset(problem.out, images.first * rows * out_plane * tile.size)
        chunks = ceil_div(_column_groups(one, tile), weights.vectors)
        block = _panels_per_block(weights, taps * tile.size, images.count * problem.groups * chunks)
        blocks = ceil_div(weights.panels, block)
        arguments = {
            "source": source,
            "packed": weights.packed,
            "out": offset(out, one.out_start * tile.size),
            "tap_offsets": self.writer.constant(one.source_offsets.astype(np.int64)),
            "taps": taps,
            "bias": problem.bias or self.writer.constant(np.zeros(1)),
            "bias_step": 1 if problem.bias else 0,
            "image_stride": channels * plane,
            "group_stride": problem.channels * plane,
            "row_step": one.row_step,
            "out_image": rows * out_plane,
            "out_channel": out_plane,
            "out_row": one.out_row,
            "columns": one.out_columns,
            "column_groups": ceil_div(one.out_columns, tile.lanes),
            "total_groups": _column_groups(one, tile),
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
        tasks = images.count * problem.groups * blocks * chunks if problem.rows else 0
        work = taps * min(problem.rows, block * weights.height) * weights.vectors * tile.lanes
        grain = GRAIN_PRODUCTS // max(1, work)
        self.writer.add(self.module.step(CORRELATE, arguments, tasks, grain))

    def _arrange(self, images: Slice) -> None:
        problem, arrangement = self.problem, self.problem.arrangement
        assert arrangement is not None
        rows = problem.groups * problem.rows
        plane = problem.out_rows * problem.out_columns
        arguments = {
            "source": self.scattered,
            "target": offset(problem.out, images.first * rows * plane * self.tile.size),
            "source_plane": arrangement.size,
            "rows": problem.out_rows,
            "columns": problem.out_columns,
            "row_table": self.writer.constant(arrangement.row_table.astype(np.int64)),
            "column_table": self.writer.constant(arrangement.column_table.astype(np.int32)),
        }
        tasks = images.count * rows * problem.out_rows if problem.out_columns else 0
        grain = GRAIN_MOVES // max(1, problem.out_columns)
        self.writer.add(self.module.step(ARRANGE, arguments, tasks, grain))


@dataclass(frozen=True, slots=True)
class _PackedWeights:
    packed: Pointer
    vectors: int
    panels: int
    height: int
    tall_panels: int


def add_pad_step(
    writer: PlanWriter,
    tile: TileShape,
    layout: SourceLayout,
    source: Pointer,
    padded: Pointer,
    planes: int,
    images: Slice,
) -> None:
    """Copies ``images`` of ``planes`` planes each from ``source`` to ``padded``, as laid out."""
    name = PAD_ANY
    if layout.phases == layout.column_step == 1:
        name = PAD
    elif layout.phases == layout.column_step == 2:
        name = PAD_PAIRS
    memory_plane = layout.memory_rows * layout.memory_columns
    arguments = {
        "source": offset(source, images.first * planes * memory_plane * tile.size),
        "padded": padded,
        "source_rows": layout.memory_rows,
        "source_columns": layout.memory_columns,
        "padded_rows": layout.rows,
        "phase_columns": layout.phase_columns,
        "phases": layout.phases,
        "row_step": layout.row_step,
        "column_step": layout.column_step,
        "top": layout.top,
        "left": layout.left,
    }
    tasks = images.count * planes * layout.rows
    grain = GRAIN_MOVES // max(1, layout.row_length)
    writer.add(correlation_module(tile).step(name, arguments, tasks, grain))


def flatten(
    one: CorrelationPass, row_length: int, lanes: int
) -> tuple[CorrelationPass, Arrangement | None]:
    """The pass over rows joined to one, where that fills the vectors better.

    The joined row contains the source's columns between two rows of positions, so its result may
    need an `Arrangement`.
    """
    if one.row_step != row_length or one.out_rows <= 1 or not one.out_columns:
        return one, None
    columns = (one.out_rows - 1) * row_length + one.out_columns
    joined = CorrelationPass(
        one.weight_taps, one.source_offsets, row_length, 1, columns, columns, one.out_start
    )
    if one.out_columns == row_length == one.out_row:
        return joined, None
    # Writing the result twice costs something: 1.25 was the break-even for 14 x 14 planes.
    if ceil_div(columns, lanes) * 1.25 > one.out_rows * ceil_div(one.out_columns, lanes):
        return one, None
    rows, places = np.arange(one.out_rows) * row_length, np.arange(one.out_columns)
    return joined, Arrangement(columns, rows, places)


def _reads_memory(problem: CorrelationProblem, tile: TileShape) -> bool:
    """Whether the source needs no copy; a vector may reach into the next image, not further."""
    layout = problem.layout.as_in_memory()
    if layout is None or not problem.images:
        return False
    return problem.groups * problem.channels * layout.plane >= tile.lanes


def _column_groups(one: CorrelationPass, tile: TileShape) -> int:
    return one.out_rows * ceil_div(one.out_columns, tile.lanes)


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
