"""Generated forward convolution: one dimension (as an image of one row) or two, any geometry."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from flambeau.compiler.correlation_layout import SourceLayout, Window
from flambeau.compiler.correlation_plan import (
    CorrelationPass,
    CorrelationProblem,
    cheapest,
    pointwise_rows,
)
from flambeau.compiler.correlation_steps import CorrelationPlanner
from flambeau.compiler.depthwise import DepthwiseProblem, add_depthwise_step
from flambeau.compiler.gemm_micro import TileShape, tile_shape
from flambeau.compiler.kernel_step import Pointer
from flambeau.compiler.library_plan import LibraryPlan, PlanWriter
from flambeau.compiler.target import Target
from flambeau.compiler.widened import HALF_TYPES, widened
from flambeau.compiler.winograd_plan import WinogradPlanner, WinogradProblem
from flambeau.core.dtype import dtype, float32

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ConvolutionProblem:
    """A convolution of contiguous tensors: all that its three plans depend on.

    ``input [batch, in_channels, *in_size]``, ``weight [out_channels, in_channels / groups,
    *kernel]``, ``bias [out_channels]``, ``output [batch, out_channels, *out_size]``.  Pairs are
    (rows, columns); ``pad_low`` is the padding above and to the left.  The caller has checked the
    shapes.
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

    @property
    def elements(self) -> dict[str, int]:
        """How many elements the operands have."""
        image = self.in_channels * self.in_size[0] * self.in_size[1]
        result = self.out_channels * self.out_size[0] * self.out_size[1]
        window = self.kernel[0] * self.kernel[1]
        return {
            "input": self.batch * image,
            "weight": self.out_channels * self.in_per_group * window,
            "output": self.batch * result,
        }

    def in_single_precision(self) -> ConvolutionProblem:
        return replace(self, dtype=float32)

    def with_long_rows(self, source_channels: int) -> ConvolutionProblem:
        """The same problem; its planes as few long rows where the window is one element."""
        plain = self.stride == (1, 1) and self.in_size == self.out_size
        positions = self.in_size[0] * self.in_size[1]
        if self.kernel != (1, 1) or not plain or not positions:
            return self
        size = self.dtype.itemsize
        rows = pointwise_rows(positions, source_channels * positions * size)
        none = (0, 0)
        return replace(self, in_size=(rows, positions // rows), pad_low=none, pad_high=none)

    @property
    def suits_winograd(self) -> bool:
        steps = (self.stride, self.dilation)
        plain = self.kernel == (3, 3) and steps == ((1, 1), (1, 1)) and self.groups == 1
        return plain and self.dtype is float32

    def window_taps(self) -> tuple[Pair, ...]:
        """Where the elements of the window lie, (rows, columns) from the first one."""
        rows, columns = self.dilation
        return tuple((i * rows, j * columns) for i, j in np.ndindex(*self.kernel))

    def tile(self, target: Target) -> TileShape:
        return tile_shape(self.dtype.llvm, target)

    def window(self) -> Window:
        """The window that moves over the input."""
        return Window(
            self.in_size, self.out_size, self.kernel, self.stride, self.dilation, self.pad_low
        )


def plan_convolution(problem: ConvolutionProblem, target: Target) -> LibraryPlan:
    """The steps that compute ``output`` from ``input``, ``weight`` and, if it has one, ``bias``.

    Those are the operand names in the steps' pointers.  Every element is ``bias`` plus its products
    in the order of the weights in memory, or, for single precision 3 x 3 windows of stride 1 over
    enough channels, what Winograd's F(2 x 2, 3 x 3) makes of them (see `winograd`).  Which of the
    two, and so the result, depends on the target and the problem's shapes only.
    """
    if problem.dtype in HALF_TYPES:
        plan = plan_convolution(problem.in_single_precision(), target)
        inputs = {name: problem.elements[name] for name in ("input", "weight")}
        if problem.has_bias:
            inputs["bias"] = problem.out_channels
        outputs = {"output": problem.elements["output"]}
        return widened(plan, problem.dtype, target, inputs, outputs)
    writer = PlanWriter()
    tile = problem.tile(target)
    # With more filters to a channel, sharing what they read counts for more.
    if problem.in_per_group == 1 and problem.out_per_group <= 2 and problem.stride[1] == 1:
        add_depthwise_step(writer, tile, _depthwise_problem(problem))
        return writer.finish()
    problem = problem.with_long_rows(problem.in_channels)
    planes = problem.in_channels * problem.in_size[0] * problem.in_size[1]
    best = cheapest(
        problem.window(), planes * tile.size, tile, functools.partial(_correlation, problem)
    )
    filtered = _winograd_problem(problem) if problem.suits_winograd else None
    if filtered and filtered.is_worth_it(tile, best.cycles(tile) * problem.batch):
        WinogradPlanner(writer, tile, filtered).plan()
    else:
        CorrelationPlanner(writer, tile, best).plan()
    return writer.finish()


def _depthwise_problem(problem: ConvolutionProblem) -> DepthwiseProblem:
    return DepthwiseProblem(
        images=problem.batch,
        filters=problem.out_channels,
        multiplier=problem.out_per_group,
        memory=problem.in_size,
        out=problem.out_size,
        low=problem.pad_low,
        taps=problem.window_taps(),
        row_stride=problem.stride[0],
        source=Pointer("input"),
        weight=Pointer("weight"),
        bias=Pointer("bias") if problem.has_bias else None,
        target=Pointer("output"),
    )


def _winograd_problem(problem: ConvolutionProblem) -> WinogradProblem:
    return WinogradProblem(
        images=problem.batch,
        rows=problem.out_channels,
        channels=problem.in_channels,
        memory=problem.in_size,
        out=problem.out_size,
        low=problem.pad_low,
        flipped=False,
        source=Pointer("input"),
        weight=Pointer("weight"),
        bias=Pointer("bias") if problem.has_bias else None,
        target=Pointer("output"),
    )


def _correlation(
    problem: ConvolutionProblem, window: Window, layout: SourceLayout, strips: int
) -> CorrelationProblem:
    """The problem in strips, of which the window moves over one."""
    offsets = window.tap_offsets(layout, problem.in_per_group)
    rows, columns = problem.out_size
    one = CorrelationPass(
        weight_taps=np.arange(len(offsets)),
        source_offsets=offsets,
        row_step=window.row_step(layout),
        out_rows=rows // strips,
        out_columns=columns,
        out_row=columns,
    )
    return CorrelationProblem(
        images=problem.batch if rows * columns else 0,
        groups=problem.groups,
        rows=problem.out_per_group,
        channels=problem.in_per_group,
        layout=layout,
        passes=(one,),
        out_rows=rows,
        out_columns=columns,
        arrangement=None,
        weight_row=len(offsets),
        weight_group=problem.out_per_group * len(offsets),
        source=Pointer("input"),
        weight=Pointer("weight"),
        bias=Pointer("bias") if problem.has_bias else None,
        out=Pointer("output"),
        row_stride=problem.stride[0],
        strips=strips,
    )
