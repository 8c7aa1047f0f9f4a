"""How a correlation's source lies in memory, so that neighbouring positions are neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flambeau.compiler.correlation import PAD, PAD_ANY, PAD_PAIRS, correlation_module
from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.kernel_step import Pointer, Word
from flambeau.compiler.library_plan import PlanWriter, ceil_div, offset

Pair = tuple[int, int]

# Elements moved that are worth handing to another thread (about 5 us).
GRAIN_MOVES = 1 << 14


@dataclass(frozen=True, slots=True)
class SourceLayout:
    """One plane (image and channel) of a correlation's source, as it is read.

    It is ``phases`` planes of ``rows * phase_columns``.  Row r is row ``r * row_step - top`` of the
    plane in memory, column j of phase p its column ``j * column_step + p * phase_step - left``;
    what the plane in memory lacks is zero.  A ``shifted`` layout has a phase for each column of the
    window, exactly as wide as the output: more to copy, but the positions of the whole output plane
    are neighbours.  Where the window moves by more than a row, such a layout also has a plane of
    phases for each row of the window (``row_phases``, whose rows lie ``row_phase_step`` apart).
    """

    memory_rows: int
    memory_columns: int
    rows: int
    phase_columns: int
    phases: int = 1
    row_step: int = 1
    column_step: int = 1
    phase_step: int = 1
    top: int = 0
    left: int = 0
    shifted: bool = False
    row_phases: int = 1
    row_phase_step: int = 1

    @property
    def row_phase(self) -> int:
        """Elements of the phases of one row of the window."""
        return self.phases * self.rows * self.phase_columns

    @property
    def plane(self) -> int:
        return self.row_phases * self.row_phase

    @property
    def is_plain(self) -> bool:
        """Rows and columns as in memory, from the first on (perhaps fewer, perhaps more)."""
        steps = self.phases == self.row_step == self.column_step == 1
        return steps and self.top == self.left == 0

    @property
    def is_in_memory(self) -> bool:
        sizes = (self.rows, self.phase_columns)
        return self.is_plain and sizes == (self.memory_rows, self.memory_columns)

    def as_in_memory(self) -> SourceLayout:
        """The layout of the plane itself where it can be read as it is; else this one."""
        rows, columns = self.memory_rows, self.memory_columns
        if self.is_plain and self.rows <= rows and self.phase_columns <= columns:
            return SourceLayout(rows, columns, rows, columns)
        return self

    def tap_offset(self, row: int, column: int) -> int:
        """Where the tap ``row`` rows below and ``column`` columns right of a position lies."""
        if self.shifted:
            phase, shift = column // self.phase_step, 0
        else:
            shift, phase = divmod(column, self.column_step)
        row_phase = 0
        if self.row_phases > 1:
            row_phase, row = row // self.row_phase_step, 0
        place = (phase * self.rows + row) * self.phase_columns + shift
        return row_phase * self.row_phase + place

    @property
    def padded_rows(self) -> int:
        """Rows to copy: those of every row phase."""
        return self.row_phases * self.rows

    def copy_cycles(self, lanes: int) -> int:
        """An estimate of what copying a plane costs."""
        return self.phases * self.padded_rows * ceil_div(self.phase_columns, lanes) * 4


@dataclass(frozen=True, slots=True)
class Window:
    """A window of ``kernel`` taps that moves over planes of ``memory`` elements; pairs are (rows,
    columns).  ``low`` is the padding above and to the left, negative where it crops.
    """

    memory: Pair
    out: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    low: Pair

    def strip(self, strips: int) -> Window:
        """The window over the first of ``strips`` equal strips of the output."""
        return replace(self, out=(self.out[0] // strips, self.out[1]))

    def layouts(self, copied: bool = False) -> list[SourceLayout]:
        """The layouts to choose from; ``copied`` means that none may be the plane itself."""
        plain = self._plain() if copied else self._plain().as_in_memory()
        if self.stride[0] > 1 and self.kernel[0] > 1:
            return [plain, self._split()]
        return [plain, self._shifted()] if self.kernel[1] > 1 else [plain]

    def row_step(self, layout: SourceLayout) -> int:
        """Elements of a plane between two rows of positions."""
        return layout.phase_columns * (1 if layout.row_step > 1 else self.stride[0])

    def tap_offsets(self, layout: SourceLayout, channels: int) -> np.ndarray:
        """Where each (channel, row, column) of the window is read, from the position's first."""
        row_dilation, column_dilation = self.dilation
        rows, columns = self.kernel
        taps = [
            layout.tap_offset(row * row_dilation, column * column_dilation)
            for row in range(rows)
            for column in range(columns)
        ]
        planes = np.arange(channels, dtype=np.int64) * layout.plane
        return (planes[:, None] + np.array(taps, dtype=np.int64)).reshape(-1)

    def _rows(self) -> tuple[int, int]:
        """(rows of the layout, row step): a kernel of one row skips what the stride jumps over."""
        if self.kernel[0] == 1:
            return self.out[0], self.stride[0]
        reach = self.dilation[0] * (self.kernel[0] - 1)
        return max(0, self.out[0] - 1) * self.stride[0] + reach + 1, 1

    def _plain(self) -> SourceLayout:
        rows, row_step = self._rows()
        reach = self.dilation[1] * (self.kernel[1] - 1)
        return SourceLayout(
            *self.memory,
            rows=rows,
            phase_columns=self.out[1] + reach // self.stride[1],
            phases=1 if self.kernel[1] == 1 else self.stride[1],
            row_step=row_step,
            column_step=self.stride[1],
            top=self.low[0],
            left=self.low[1],
        )

    def _shifted(self) -> SourceLayout:
        rows, row_step = self._rows()
        return SourceLayout(
            *self.memory,
            rows=rows,
            phase_columns=self.out[1],
            phases=self.kernel[1],
            row_step=row_step,
            column_step=self.stride[1],
            phase_step=self.dilation[1],
            top=self.low[0],
            left=self.low[1],
            shifted=True,
        )

    def _split(self) -> SourceLayout:
        """A phase for each element of the window."""
        layout = self._shifted()
        return replace(
            layout,
            rows=self.out[0],
            row_step=self.stride[0],
            row_phases=self.kernel[0],
            row_phase_step=self.dilation[0],
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """Elements between two images, channels, row phases, phases and rows of a laid out source."""

    image: int
    channel: int
    row_phase: int
    phase: int
    row: int


def image_by_image(layout: SourceLayout, channels: int) -> Placement:
    """Each image's channels one after the other."""
    columns, plane = layout.phase_columns, layout.plane
    return Placement(channels * plane, plane, layout.row_phase, layout.rows * columns, columns)


def row_by_row(layout: SourceLayout, images: int) -> Placement:
    """Each row of a plane for all images side by side."""
    columns = images * layout.phase_columns
    return Placement(
        layout.phase_columns,
        images * layout.plane,
        images * layout.row_phase,
        layout.rows * columns,
        columns,
    )


def pad_kernel(layout: SourceLayout) -> str:
    """The name of the kernel that copies planes to the layout."""
    if layout.column_step == 1:
        return PAD
    if layout.phases == layout.column_step == 2 and layout.phase_step == 1:
        return PAD_PAIRS
    return PAD_ANY


def pad_arguments(
    layout: SourceLayout, placement: Placement, source: Pointer, padded: Pointer, channels: int
) -> dict[str, Word]:
    """The words of a pad kernel for images of ``channels`` contiguous planes."""
    return {
        "source": source,
        "padded": padded,
        "channels": channels,
        "source_rows": layout.memory_rows,
        "source_columns": layout.memory_columns,
        "image_stride": placement.image,
        "channel_stride": placement.channel,
        "row_phase_stride": placement.row_phase,
        "phase_stride": placement.phase,
        "row_stride": placement.row,
        "padded_rows": layout.padded_rows,
        "phase_rows": layout.rows,
        "phase_columns": layout.phase_columns,
        "phases": layout.phases,
        "row_step": layout.row_step,
        "column_step": layout.column_step,
        "phase_step": layout.phase_step,
        "row_phase_step": layout.row_phase_step,
        "top": layout.top,
        "left": layout.left,
    }


def add_pad_step(
    writer: PlanWriter,
    tile: TileShape,
    layout: SourceLayout,
    placement: Placement,
    source: Pointer,
    padded: Pointer,
    images: int,
    channels: int,
) -> None:
    """Copies ``images`` of ``channels`` contiguous planes from ``source`` to ``padded``."""
    arguments = pad_arguments(layout, placement, source, padded, channels)
    tasks = images * channels * layout.padded_rows
    grain = GRAIN_MOVES // max(1, layout.phases * layout.phase_columns)
    module = correlation_module(tile)
    writer.add(module.step(pad_kernel(layout), arguments, tasks, grain))


def image_offset(tile: TileShape, operand: Pointer, images: int, elements: int) -> Pointer:
    """The address of image ``images`` of an operand with ``elements`` in each."""
    return offset(operand, images * elements * tile.size)
