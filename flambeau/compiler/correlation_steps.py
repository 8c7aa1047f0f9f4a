"""The steps of a correlation problem: packing, and slices or blocks of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flambeau.compiler.correlation import (
    ARRANGE,
    ARRANGE_WORDS,
    BLOCK_KERNEL,
    CORRELATE,
    PACK,
    correlation_module,
    vector_counts,
)
from flambeau.compiler.correlation_blocks import BLOCKS
from flambeau.compiler.correlation_layout import (
    GRAIN_MOVES,
    image_by_image,
    image_offset,
    pad_arguments,
    pad_kernel,
    row_by_row,
)
from flambeau.compiler.correlation_plan import BLOCKS as ENOUGH_BLOCKS
from flambeau.compiler.correlation_plan import (
    SLICE_BYTES,
    Arrangement,
    CorrelationPass,
    CorrelationProblem,
)
from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.kernel_step import Pointer, Word
from flambeau.compiler.library_plan import PlanWriter, balanced_panels, ceil_div, offset

# A block of packed weights that stays in the second-level cache while all positions pass by.
PANEL_BLOCK_BYTES = 512 << 10

# Weights that so few tiles of positions read are read where they are, not packed (half as many if
# the taps of a row are not neighbours); measured on 512 channels of 7 x 7 planes.
FEW_READS = 8

# Below this many tasks, the rows are cut further so that many threads find work.
ENOUGH_TASKS = 32

# Multiply-adds that are worth handing to another thread (about 5 us).
GRAIN_PRODUCTS = 1 << 18


@dataclass(frozen=True, slots=True)
class _Call:
    """A kernel with its arguments by name; ``grain`` of its tasks are worth a thread."""

    function: str
    arguments: dict[str, Word]
    tasks: int
    grain: int


@dataclass(frozen=True, slots=True)
class _Slice:
    """Images ``first .. first + count - 1``, read from memory or from a copy in the workspace."""

    first: int
    count: int
    direct: bool = False


@dataclass(frozen=True, slots=True)
class _Panels:
    """``count`` panels of ``height`` rows, the later ones one less, and the vectors of a tile."""

    count: int
    height: int
    tall: int
    vectors: int


@dataclass(frozen=True, slots=True)
class _Weights:
    """Where the weights of a pass lie, packed or in place (see `CORRELATE_WORDS`), and the panels
    that their rows are cut into.
    """

    start: Pointer
    tap_weights: np.ndarray
    group: int
    first: int
    panel: int
    row: int
    panels: _Panels


class CorrelationPlanner:
    """Writes the steps of one `CorrelationProblem` into a plan."""

    def __init__(self, writer: PlanWriter, tile: TileShape, problem: CorrelationProblem) -> None:
        self.writer = writer
        self.tile = tile
        self.problem = problem
        self.module = correlation_module(tile)
        self.direct = problem.reads_memory(tile)

    def plan(self) -> None:
        problem = self.problem
        if not problem.images:
            return
        weights = [self._place_weights(one) for one in problem.passes]
        if problem.in_blocks(self.tile):
            self._plan_blocks(problem.passes[0], weights[0])
        else:
            self._plan_slices(weights)

    # -- slices: padding, correlation and arrangement are steps of their own -------------------

    def _plan_slices(self, weights: list[_Weights]) -> None:
        problem = self.problem
        slices = list(self._slices())
        copied = max((s.count for s in slices if not s.direct), default=0)
        self._reserve(copied, max(s.count for s in slices))
        for images in slices:
            if not images.direct:
                self._add(self._pad(images))
            for one, own in zip(problem.passes, weights):
                self._add(self._correlate(one, own, images))
            if problem.is_scattered:
                self._add(self._arrange(images))

    def _slices(self) -> Iterator[_Slice]:
        problem = self.problem
        readable = problem.images - 1 if self.direct else problem.images
        count = problem.slice_images(self.tile)
        for first in range(0, readable, count):
            yield _Slice(first, min(count, readable - first), self.direct)
        if self.direct:
            # Whole vectors are read: past the last image there may be nothing, so it is copied.
            yield _Slice(readable, 1)

    def _reserve(self, padded_images: int, scattered_images: int) -> None:
        problem, size = self.problem, self.tile.size
        self.padded = self.writer.reserve(padded_images * problem.source_image * size)
        if problem.is_scattered:
            self.scattered = self.writer.reserve(scattered_images * problem.out_image * size)

    def _add(self, call: _Call) -> None:
        self.writer.add(self.module.step(call.function, call.arguments, call.tasks, call.grain))

    # -- blocks: all three in one task ---------------------------------------------------------

    def _plan_blocks(self, one: CorrelationPass, weights: _Weights) -> None:
        problem, size = self.problem, self.tile.size
        count = problem.block_images(self.tile)
        # Slack, because the last vectors of a region reach past it.
        self.region = _rounded(count * problem.source_image + 2 * self.tile.lanes, self.tile)
        self.scattered_region = 0
        if problem.is_scattered:
            self.scattered_region = _rounded(count * problem.out_image, self.tile)
        region_bytes = (self.region + self.scattered_region) * size
        units = max(ENOUGH_BLOCKS, SLICE_BYTES // region_bytes) // problem.strips
        units = max(1, min(units, problem.images // count))
        self.padded = self.writer.reserve(units * problem.strips * self.region * size)
        if problem.is_scattered:
            self.scattered = self.writer.reserve(units * self.scattered_region * size)
        whole = problem.images // count * count
        for first in range(0, whole, units * count):
            blocks = min(units, (whole - first) // count)
            self._add_blocks(one, weights, _Slice(first, count), blocks)
        if whole < problem.images:
            self._add_blocks(one, weights, _Slice(whole, problem.images - whole), 1)

    def _add_blocks(
        self, one: CorrelationPass, weights: _Weights, images: _Slice, blocks: int
    ) -> None:
        """A step over ``blocks`` blocks of as many images as in the first, ``images``."""
        problem = self.problem
        pad = self._pad(images)
        correlate = self._correlate(one, weights, images)
        arrange = _Call(ARRANGE, dict.fromkeys(ARRANGE_WORDS, 0), 0, 1)
        if problem.is_scattered:
            arrange = self._arrange(images)
        kinds = {name: kind for kind, name in BLOCK_KERNEL.pads.items()}
        strip_rows = problem.out_rows // problem.strips
        arguments: dict[str, Word] = {
            **{f"pad.{name}": word for name, word in pad.arguments.items()},
            **{f"correlate.{name}": word for name, word in correlate.arguments.items()},
            **{f"arrange.{name}": word for name, word in arrange.arguments.items()},
            "pad_kind": kinds[pad.function],
            "pad_tasks": pad.tasks,
            "correlate_tasks": correlate.tasks,
            "arrange_tasks": arrange.tasks,
            "strips": problem.strips,
            "source_step": images.count * problem.memory_image,
            "region_step": self.region,
            "scattered_step": self.scattered_region,
            "out_step": images.count * problem.final_image,
            "strip_out_step": strip_rows * problem.out_columns,
            "strip_rows": strip_rows * problem.row_stride,
        }
        self.writer.add(self.module.step(BLOCKS, arguments, blocks * problem.strips))

    # -- the calls -----------------------------------------------------------------------------

    def _place_weights(self, one: CorrelationPass) -> _Weights:
        problem, tile = self.problem, self.tile
        groups = one.out_rows * ceil_div(one.out_columns, tile.lanes)
        images = problem.images
        if one.out_rows == 1:
            groups, images = ceil_div(one.out_columns * images, tile.lanes), 1
        vectors = _choose_vectors(tile, problem.rows, groups)
        panels = _Panels(*balanced_panels(problem.rows, vector_counts(tile)[vectors]), vectors)
        reads = images * ceil_div(groups, vectors)
        neighbours = bool((np.diff(one.weight_taps) == 1).all())
        if reads > (FEW_READS if neighbours else FEW_READS // 2):
            return self._pack(one, panels)
        return _Weights(
            start=problem.weight,
            tap_weights=one.weight_taps,
            group=problem.weight_group,
            first=problem.weight_row,
            panel=0,
            row=problem.weight_row,
            panels=panels,
        )

    def _pack(self, one: CorrelationPass, panels: _Panels) -> _Weights:
        problem = self.problem
        taps = len(one.weight_taps)
        panel_size = panels.height * taps
        packed = self.writer.reserve(problem.groups * panels.count * panel_size * self.tile.size)
        arguments: dict[str, Word] = {
            "weight": problem.weight,
            "packed": packed,
            "tap_table": self.writer.constant(one.weight_taps.astype(np.int64)),
            "taps": taps,
            "group_stride": problem.weight_group,
            "row_stride": problem.weight_row,
            "rows": problem.rows,
            "panels": panels.count,
            "height": panels.height,
            "tall_panels": panels.tall,
        }
        tasks = problem.groups * panels.count if taps else 0
        self._add(_Call(PACK, arguments, tasks, GRAIN_MOVES // max(1, panel_size)))
        return _Weights(
            start=packed,
            tap_weights=np.arange(taps) * panels.height,
            group=panels.count * panel_size,
            first=0,
            panel=panel_size,
            row=1,
            panels=panels,
        )

    def _pad(self, images: _Slice) -> _Call:
        problem, layout = self.problem, self.problem.layout
        planes = problem.groups * problem.channels
        source = image_offset(self.tile, problem.source, images.first, problem.memory_image)
        if problem.interleaved:
            placement = row_by_row(layout, images.count)
        else:
            placement = image_by_image(layout, planes)
        arguments = pad_arguments(layout, placement, source, self.padded, planes)
        grain = GRAIN_MOVES // max(1, layout.phases * layout.phase_columns)
        return _Call(
            pad_kernel(layout), arguments, images.count * planes * layout.padded_rows, grain
        )

    def _correlate(self, one: CorrelationPass, weights: _Weights, images: _Slice) -> _Call:
        problem, tile = self.problem, self.tile
        taps, panels = len(one.source_offsets), weights.panels
        source = self.padded
        if images.direct:
            source = image_offset(tile, problem.source, images.first, problem.source_image)
        if problem.is_scattered:
            out = self.scattered
        else:
            out = image_offset(tile, problem.out, images.first, problem.out_image)
        # Where an image has one row of positions, images take the place of rows: vectors of
        # different images then share a register tile.  Interleaved images are one long row.
        joined = one.out_rows == 1
        side_by_side = images.count if problem.interleaved else 1
        images_left = 1 if joined else images.count
        columns = one.out_columns * side_by_side
        column_groups = ceil_div(columns, tile.lanes)
        rows = images.count // side_by_side if joined else one.out_rows
        chunks = ceil_div(column_groups * rows, panels.vectors)
        other_tasks = images_left * problem.groups * chunks
        block = _panels_per_block(panels, taps * tile.size, other_tasks)
        blocks = ceil_div(panels.count, block)
        arguments: dict[str, Word] = {
            "source": source,
            "weights": weights.start,
            "out": offset(out, one.out_start * tile.size),
            "tap_offsets": self.writer.constant(one.source_offsets * side_by_side),
            "tap_weights": self.writer.constant(weights.tap_weights.astype(np.int64)),
            "taps": taps,
            "weight_group": weights.group,
            "weight_first": weights.first,
            "weight_panel": weights.panel,
            "weight_row": weights.row,
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
            "total_groups": column_groups * rows,
            "chunks": chunks,
            "groups": problem.groups,
            "rows": problem.rows,
            "panels": panels.count,
            "panel_blocks": blocks,
            "panels_per_block": block,
            "height": panels.height,
            "tall_panels": panels.tall,
            "vectors": panels.vectors,
        }
        tasks = other_tasks * blocks if problem.rows else 0
        work = taps * min(problem.rows, block * panels.height) * panels.vectors * tile.lanes
        return _Call(CORRELATE, arguments, tasks, GRAIN_PRODUCTS // max(1, work))

    def _arrange(self, images: _Slice) -> _Call:
        problem = self.problem
        channels = problem.groups * problem.rows
        if problem.arrangement:
            image_stride, channel_stride = problem.out_image, problem.arrangement.size
            order = problem.arrangement
        else:
            channels, image_stride, channel_stride, order = self._separation(images)
        rows, columns = len(order.row_table), len(order.column_table)
        target = image_offset(self.tile, problem.out, images.first, problem.final_image)
        arguments: dict[str, Word] = {
            "source": self.scattered,
            "target": target,
            "channels": channels,
            "image_stride": image_stride,
            "channel_stride": channel_stride,
            "rows": rows,
            "columns": columns,
            "row_table": self.writer.constant(order.row_table.astype(np.int64)),
            "column_table": self.writer.constant(order.column_table.astype(np.int32)),
        }
        tasks = images.count * channels * rows if columns else 0
        return _Call(ARRANGE, arguments, tasks, GRAIN_MOVES // max(1, columns))

    def _separation(self, images: _Slice) -> tuple[int, int, int, Arrangement]:
        """Channels, strides of image and channel, and order that separate interleaved images."""
        problem = self.problem
        count, columns = images.count, problem.out_columns
        channels, plane = problem.groups * problem.rows, count * problem.out_plane
        if problem.out_plane == 1:
            places = np.arange(channels) * plane
            channels = 1
        else:
            rows = np.arange(problem.out_rows)[:, None] * count * columns
            places = (rows + np.arange(columns)).reshape(-1)
        return channels, columns, plane, Arrangement(len(places), np.zeros(1), places)


def _rounded(elements: int, tile: TileShape) -> int:
    """Whole cache lines."""
    line = 64 // tile.size
    return ceil_div(elements, line) * line


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


def _panels_per_block(panels: _Panels, tap_bytes: int, other_tasks: int) -> int:
    """Panels that one task runs through: as many as the cache holds and the threads can spare."""
    fit = max(1, PANEL_BLOCK_BYTES // max(1, panels.height * tap_bytes))
    wanted_blocks = ceil_div(ENOUGH_TASKS, max(1, other_tasks))
    return max(1, min(fit, panels.count // min(wanted_blocks, panels.count)))
