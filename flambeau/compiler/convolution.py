"""Generated forward convolution: one dimension (as an image of one row) or two, any geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flambeau.compiler.correlation_plan import (
    CorrelationPass,
    CorrelationPlanner,
    CorrelationProblem,
    SourceLayout,
    flatten,
)
from flambeau.compiler.gemm_micro import TileShape, tile_shape
from flambeau.compiler.kernel_step import Pointer
from flambeau.compiler.library_plan import LibraryPlan, PlanWriter
from flambeau.compiler.target import Target
from flambeau.core.dtype import dtype

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ConvolutionProblem:
    """A convolution of contiguous tensors: all that its three plans depend on.

    ``input [batch, in_channels, *in_size]``, ``weight [out_channels, in_channels / groups,
    *kernel]``, ``bias [out_channels]``, ``output [batch, out_channels, *out_size]``.  Pairs are (rows,
    columns); ``pad_low`` is the padding above and to the left.  The caller has checked the shapes.
    """

    dtype: dtype
    batch: int
    in_channels: int
    out_channels: int
    in_size: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    pad_low: Pair = (0, 0)
    pad_high: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    has_bias: bool = False

    @property
    def out_size(self) -> Pair:
        rows, columns = (
            (self.in_size[i] + self.pad_low[i] + self.pad_high[i] - self.reach(i) - 1)
            // self.stride[i]
            + 1
            for i in range(2)
        )
        return max(0, rows), max(0, columns)

    @property
    def in_per_group(self) -> int:
        return self.in_channels // self.groups

    @property
    def out_per_group(self) -> int:
        return self.out_channels // self.groups

    def reach(self, axis: int) -> int:
        """The distance from the first to the last element under the window."""
        return self.dilation[axis] * (self.kernel[axis] - 1)

    def tile(self, target: Target) -> TileShape:
        return tile_shape(self.dtype.llvm, target)

    def taps(self) -> list[tuple[int, int, int]]:
        """(channel in the group, row, column) of each weight of a filter, in memory order."""
        rows, columns = self.kernel
        return [
            (channel, row, column)
            for channel in range(self.in_per_group)
            for row in range(rows)
            for column in range(columns)
        ]


def plan_convolution(problem: ConvolutionProblem, target: Target) -> LibraryPlan:
    """The steps that compute ``output`` from ``input``, ``weight`` and, if it has one, ``bias``.

    Those are the operand names in the steps' pointers.  Every element is ``bias`` plus its products
    in the order of the weights in memory: the result depends on the target and the problem only.
    """
    writer = PlanWriter()
    tile = problem.tile(target)
    memory_layout = input_layout(problem)
    layout = memory_layout.as_in_memory() or memory_layout
    offsets = tap_offsets(problem, layout)
    rows, columns = problem.out_size
    one = CorrelationPass(
        weight_taps=np.arange(len(offsets)),
        source_offsets=offsets,
        row_step=position_step(problem, layout),
        out_rows=rows,
        out_columns=columns,
        out_row=columns,
    )
    one, arrangement = flatten(one, layout.row_length, tile.lanes)
    correlation = CorrelationProblem(
        images=problem.batch if rows * columns else 0,
        groups=problem.groups,
        rows=problem.out_per_group,
        channels=problem.in_per_group,
        layout=layout,
        passes=(one,),
        out_rows=rows,
        out_columns=columns,
        arrangement=arrangement,
        weight_row=len(offsets),
        weight_group=problem.out_per_group * len(offsets),
        source=Pointer("input"),
        weight=Pointer("weight"),
        bias=Pointer("bias") if problem.has_bias else None,
        out=Pointer("output"),
    )
    CorrelationPlanner(writer, tile, correlation).plan()
    return writer.finish()


def input_layout(problem: ConvolutionProblem) -> SourceLayout:
    """The input with its padding, so that the positions of an output row are neighbours.

    A kernel of one row or column skips what a stride jumps over.
    """
    (out_rows, out_columns), (rows, columns) = problem.out_size, problem.in_size
    row_stride, column_stride = problem.stride
    if problem.kernel[0] == 1:
        padded_rows, row_step = out_rows, row_stride
    else:
        padded_rows, row_step = max(0, out_rows - 1) * row_stride + problem.reach(0) + 1, 1
    phases = 1 if problem.kernel[1] == 1 else column_stride
    return SourceLayout(
        memory_rows=rows,
        memory_columns=columns,
        rows=padded_rows,
        phase_columns=out_columns + problem.reach(1) // column_stride,
        phases=phases,
        row_step=row_step,
        column_step=column_stride,
        top=problem.pad_low[0],
        left=problem.pad_low[1],
    )


def position_step(problem: ConvolutionProblem, layout: SourceLayout) -> int:
    """Elements of the input's layout between two rows of output positions."""
    rows = 1 if problem.kernel[0] == 1 and layout.row_step > 1 else problem.stride[0]
    return rows * layout.row_length


def tap_offsets(problem: ConvolutionProblem, layout: SourceLayout) -> np.ndarray:
    """Where each weight of a filter meets the input, from the position's first element."""
    row_dilation, column_dilation = problem.dilation
    return np.array(
        [
            channel * layout.plane
            + layout.tap_offset(row * row_dilation, column * column_dilation)
            for channel, row, column in problem.taps()
        ],
        dtype=np.int64,
    )
