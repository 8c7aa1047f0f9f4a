"""Planning the gradient by the weight: cuts of the batch, and the steps of the two formulations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from flambeau.compiler.convolution import ConvolutionProblem
from flambeau.compiler.correlation_layout import (
    GRAIN_MOVES,
    SourceLayout,
    Window,
    add_pad_step,
    image_by_image,
    image_offset,
)
from flambeau.compiler.correlation_plan import SLICE_BYTES
from flambeau.compiler.correlation_steps import GRAIN_PRODUCTS
from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.kernel_step import Pointer
from flambeau.compiler.library_plan import PlanWriter, balanced_panels, ceil_div
from flambeau.compiler.weight_gradient import (
    COMBINE,
    CONTRACT,
    tile_limits,
    weight_gradient_module,
)
from flambeau.compiler.weight_gradient_filters import CONTRACT as CONTRACT_FILTERS
from flambeau.compiler.weight_gradient_filters import TRANSPOSE, filter_lanes_module

# Partial sums that the workspace holds at most, and the parts that a slice of the batch is cut into
# for the threads; more parts need more memory and a longer combination.
PARTIAL_BYTES = 8 << 20
MOST_PARTS = 8

# What the transposed gradient of an image may take in the second-level cache before the image is
# cut into strips.
STRIP_BYTES = 512 << 10

# The planes that a tile reads should stay in the first-level cache while other tiles read them.
FIRST_CACHE_BYTES = 32 << 10


class WeightPlanner(ABC):
    """What both formulations share: the batch is cut into slices that fit the workspace, a slice
    into parts with sums of their own, which are added up in order at the end.
    """

    def __init__(
        self, writer: PlanWriter, tile: TileShape, problem: ConvolutionProblem, layout: SourceLayout
    ) -> None:
        self.writer = writer
        self.tile = tile
        self.problem = problem
        self.layout = layout
        self.taps = problem.in_per_group * problem.kernel[0] * problem.kernel[1]
        self.weights = problem.out_channels * self.taps
        self.source_image = problem.in_channels * layout.plane
        rows, columns = problem.out_size
        self.out_plane = rows * columns
        self.strips = 1

    @abstractmethod
    def cycles(self) -> float:
        """An estimate of what an image costs."""

    def workspace_image(self) -> int:
        """Elements of workspace for an image."""
        return 0 if self.layout.is_in_memory else self.source_image

    def prepare(self, images: int) -> None:
        """Reserves the workspace for a slice of ``images``."""
        self.padded = None
        if not self.layout.is_in_memory:
            self.padded = self.writer.reserve(images * self.source_image * self.tile.size)

    @abstractmethod
    def add_slice(self, first: int, images: int, parts: int, target: Pointer) -> None:
        """Adds the steps for images ``first .. first + images - 1``."""

    def plan(self) -> None:
        writer, size, batch = self.writer, self.tile.size, self.problem.batch
        fit = SLICE_BYTES // max(1, self.workspace_image() * size)
        slice_images = max(1, min(batch, fit))
        most_parts = max(1, min(MOST_PARTS, PARTIAL_BYTES // max(1, self.weights * size)))
        self.part_images = ceil_div(slice_images, most_parts)
        parts = ceil_div(slice_images, self.part_images) * self.strips
        self.prepare(slice_images)
        target = Pointer("grad_weight")
        if parts > 1:
            target = writer.reserve(parts * self.weights * size)
        # An empty batch still needs one step: it writes zeros.
        for first in range(0, max(1, batch), slice_images):
            images = min(slice_images, batch - first)
            # A short last slice has fewer parts; the others keep what they hold.
            image_parts = ceil_div(max(1, images), self.part_images)
            count = parts if first == 0 else image_parts * self.strips
            self.add_slice(first, images, count, target)
        if parts > 1:
            total = Pointer("grad_weight")
            add_combine_step(writer, self.tile, target, total, parts, self.weights)

    def read_source(self, first: int, images: int) -> Pointer:
        """Where a slice of the input lies as laid out; copies it there if need be."""
        layout, channels = self.layout, self.problem.in_channels
        in_memory = channels * layout.memory_rows * layout.memory_columns
        source = image_offset(self.tile, Pointer("input"), first, in_memory)
        if self.padded is None:
            return source
        placement = image_by_image(layout, channels)
        add_pad_step(
            self.writer, self.tile, layout, placement, source, self.padded, images, channels
        )
        return self.padded


class PositionLanesPlanner(WeightPlanner):
    """Positions are the lanes: for few filters."""

    def _flat(self) -> bool:
        """Whether the positions of a plane are one row in the layout, as in the gradient."""
        step = self.problem.window().row_step(self.layout)
        return step == self.layout.phase_columns == self.problem.out_size[1]

    def _extent(self) -> tuple[int, int]:
        return (1, self.out_plane) if self._flat() else self.problem.out_size

    def cycles(self) -> float:
        problem, lanes = self.problem, self.tile.lanes
        rows, columns = self._extent()
        total = problem.out_channels * self.taps * rows * ceil_div(columns, lanes) / 2
        # Measured on 56 x 56 planes: their tiles run from the second-level cache, at half speed.
        if sum(tile_limits(self.tile)) * self.out_plane * self.tile.size > FIRST_CACHE_BYTES:
            total *= 2
        if not self.layout.is_in_memory:
            total += problem.in_channels * self.layout.copy_cycles(lanes)
        return total

    def add_slice(self, first: int, images: int, parts: int, target: Pointer) -> None:
        problem, tile, layout = self.problem, self.tile, self.layout
        most_rows, most_taps = tile_limits(tile)
        row_panels, row_height, tall_row_panels = balanced_panels(problem.out_per_group, most_rows)
        tap_panels, tap_height, tall_tap_panels = balanced_panels(self.taps, most_taps)
        rows, columns = self._extent()
        window = problem.window()
        grad_image = problem.out_channels * self.out_plane
        offsets = window.tap_offsets(layout, problem.in_per_group)
        arguments: dict[str, Pointer | int | float] = {
            "grad": image_offset(tile, Pointer("grad_output"), first, grad_image),
            "source": self.read_source(first, images),
            "target": target,
            "tap_offsets": self.writer.constant(offsets),
            "images": images,
            "part_images": self.part_images,
            "part_stride": self.weights,
            "grad_image": grad_image,
            "grad_channel": self.out_plane,
            "source_image": self.source_image,
            "source_group": problem.in_per_group * layout.plane,
            "rows": rows,
            "columns": columns,
            "grad_row": columns,
            "source_row": window.row_step(layout),
            "groups": problem.groups,
            "filters": problem.out_per_group,
            "taps": self.taps,
            "row_panels": row_panels,
            "row_height": row_height,
            "tall_row_panels": tall_row_panels,
            "tap_panels": tap_panels,
            "tap_height": tap_height,
            "tall_tap_panels": tall_tap_panels,
            "accumulate": int(first > 0),
        }
        tiles = problem.groups * row_panels * tap_panels if self.weights else 0
        work = row_height * tap_height * self.part_images * self.out_plane
        grain = GRAIN_PRODUCTS // max(1, work)
        module = weight_gradient_module(tile)
        self.writer.add(module.step(CONTRACT, arguments, tiles * parts, grain))


class FilterLanesPlanner(WeightPlanner):
    """Filters are the lanes, positions come one by one: for many filters, any stride."""

    def __init__(self, writer: PlanWriter, tile: TileShape, problem: ConvolutionProblem) -> None:
        self.window = _unit_window(problem)
        plain = self.window.layouts()[0]
        super().__init__(writer, tile, problem, plain)
        self.width = ceil_div(problem.out_per_group, tile.lanes) * tile.lanes
        self.packed_positions = ceil_div(self.out_plane, tile.lanes) * tile.lanes
        self.packed_group = self.width * self.packed_positions
        self.packed_image = problem.groups * self.packed_group
        rows = problem.out_size[0]
        strips = max(1, self.packed_group * tile.size // STRIP_BYTES)
        self.strip_rows = max(1, ceil_div(rows, strips))
        self.strips = max(1, ceil_div(rows, self.strip_rows))

    def cycles(self) -> float:
        problem, lanes = self.problem, self.tile.lanes
        vectors = problem.groups * self.width // lanes
        panels, _, _ = balanced_panels(self.taps, self.tile.rows)
        total = vectors * self.out_plane * max(self.taps, panels * 4) / 2
        # Broadcasts and spilled addresses: measured on 3 x 3 and 5 x 5 windows.
        total *= 1.1 if self.width > lanes else 1.5
        total += self.packed_image / lanes * 4
        if not self.layout.is_in_memory:
            total += problem.in_channels * self.layout.copy_cycles(lanes)
        return total

    def workspace_image(self) -> int:
        return super().workspace_image() + self.packed_image

    def prepare(self, images: int) -> None:
        super().prepare(images)
        self.packed = self.writer.reserve(images * self.packed_image * self.tile.size)

    def _transpose(self, first: int, images: int) -> None:
        problem, tile = self.problem, self.tile
        grad_image = problem.out_channels * self.out_plane
        arguments: dict[str, Pointer | int | float] = {
            "grad": image_offset(tile, Pointer("grad_output"), first, grad_image),
            "packed": self.packed,
            "positions": self.out_plane,
            "packed_positions": self.packed_positions,
            "filters": problem.out_per_group,
            "width": self.width,
        }
        tasks = images * problem.groups * self.packed_positions // tile.lanes
        grain = GRAIN_MOVES // max(1, tile.lanes * self.width)
        module = filter_lanes_module(tile)
        self.writer.add(module.step(TRANSPOSE, arguments, tasks, grain))

    def add_slice(self, first: int, images: int, parts: int, target: Pointer) -> None:
        problem, tile, layout = self.problem, self.tile, self.layout
        source = self.read_source(first, images)
        self._transpose(first, images)
        tap_panels, tap_height, tall_tap_panels = balanced_panels(self.taps, tile.rows)
        filter_panels = ceil_div(self.width, tile.columns)
        rows, columns = problem.out_size
        row_step = layout.phase_columns * problem.stride[0]
        column_step = problem.stride[1]
        if self.strips == 1 and row_step == columns * column_step:
            rows, columns = 1, rows * columns
        offsets = self.window.tap_offsets(layout, problem.in_per_group)
        arguments: dict[str, Pointer | int | float] = {
            "packed": self.packed,
            "source": source,
            "target": target,
            "tap_offsets": self.writer.constant(offsets),
            "images": images,
            "part_images": self.part_images,
            "part_stride": self.weights,
            "strips": self.strips,
            "strip_rows": self.strip_rows,
            "packed_group": self.packed_group,
            "source_image": self.source_image,
            "source_group": problem.in_per_group * layout.plane,
            "rows": rows,
            "columns": columns,
            "source_row": row_step,
            "source_column": column_step,
            "width": self.width,
            "groups": problem.groups,
            "filters": problem.out_per_group,
            "taps": self.taps,
            "filter_panels": filter_panels,
            "tap_panels": tap_panels,
            "tap_height": tap_height,
            "tall_tap_panels": tall_tap_panels,
            "accumulate": int(first > 0),
        }
        tiles = problem.groups * filter_panels * tap_panels if self.weights else 0
        work = tap_height * tile.columns * self.part_images * self.out_plane
        grain = GRAIN_PRODUCTS // max(1, work)
        module = filter_lanes_module(tile)
        self.writer.add(module.step(CONTRACT_FILTERS, arguments, tiles * parts, grain))


def _unit_window(problem: ConvolutionProblem) -> Window:
    """The window moved by single steps, of which the positions are every few: columns then lie in
    one phase, as in memory.
    """
    extents = (max(0, problem.out_size[i] - 1) * problem.stride[i] + 1 for i in range(2))
    rows, columns = extents
    return Window(
        problem.in_size, (rows, columns), problem.kernel, (1, 1), problem.dilation, problem.pad_low
    )


def add_combine_step(
    writer: PlanWriter, tile: TileShape, parts: Pointer, total: Pointer, count: int, elements: int
) -> None:
    """total[i] = parts[0][i] + parts[1][i] + …, each part having ``elements``."""
    arguments: dict[str, Pointer | int | float] = {
        "parts": parts,
        "total": total,
        "count": count,
        "elements": elements,
    }
    tasks = ceil_div(elements, tile.lanes)
    grain = GRAIN_MOVES // (count * tile.lanes)
    writer.add(weight_gradient_module(tile).step(COMBINE, arguments, tasks, grain))
