"""Generated gradients of a convolution: by the input, by the weight, by the bias."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from flambeau.compiler.convolution import ConvolutionProblem
from flambeau.compiler.correlation_layout import GRAIN_MOVES, SourceLayout, Window
from flambeau.compiler.correlation_plan import (
    Arrangement,
    CorrelationPass,
    CorrelationProblem,
    cheapest,
)
from flambeau.compiler.correlation_steps import CorrelationPlanner
from flambeau.compiler.depthwise import DepthwiseProblem, add_depthwise_step
from flambeau.compiler.kernel_step import Pointer, Word
from flambeau.compiler.library_plan import LibraryPlan, PlanWriter, ceil_div
from flambeau.compiler.target import Target
from flambeau.compiler.weight_gradient import BIAS_SUM, weight_gradient_module
from flambeau.compiler.weight_gradient_plan import (
    MOST_PARTS,
    FilterLanesPlanner,
    PositionLanesPlanner,
    add_combine_step,
)
from flambeau.compiler.widened import HALF_TYPES, widened
from flambeau.compiler.winograd_gradient_plan import WinogradGradientPlanner
from flambeau.compiler.winograd_plan import WinogradPlanner, WinogradProblem

# -- by the input ----------------------------------------------------------------------------------
#
# Along one axis, input element i met the output at u - q for each tap k = q * stride + residue,
# where u, residue = divmod(i + padding, stride).  So the elements of one residue are a correlation
# of their own, with stride 1 and those taps only; together they make up the gradient.


@dataclass(frozen=True, slots=True)
class _Residue:
    """Input elements ``first, first + stride, …`` of an axis; tap ``k`` reads ``u - q`` for each
    (k, q), where ``u`` counts from ``start``.
    """

    first: int
    count: int
    start: int
    taps: tuple[tuple[int, int], ...]


def _residues(problem: ConvolutionProblem, axis: int) -> list[_Residue]:
    stride, low = problem.stride[axis], problem.pad_low[axis]
    found = []
    for residue in range(stride):
        first = (residue - low) % stride
        count = max(0, ceil_div(problem.in_size[axis] - first, stride))
        places = [(k, k * problem.dilation[axis]) for k in range(problem.kernel[axis])]
        taps = tuple((k, at // stride) for k, at in places if at % stride == residue)
        if count:
            found.append(_Residue(first, count, (first + low) // stride, taps))
    return found


def _reach(residues: list[_Residue]) -> tuple[int, int]:
    """The first output index that any element meets, and how many from there on."""
    reading = [residue for residue in residues if residue.taps]
    lowest = min((r.start - max(q for _, q in r.taps) for r in reading), default=0)
    after = max((r.start + r.count - min(q for _, q in r.taps) for r in reading), default=0)
    return lowest, after - lowest


def plan_backward_data(problem: ConvolutionProblem, target: Target) -> LibraryPlan:
    """The steps that compute ``grad_input`` from ``grad_output`` and ``weight`` (operand names).

    Each element adds its products in the order (output channel, row, column of the kernel), or goes
    Winograd's way, as in `plan_convolution`.
    """
    if problem.dtype in HALF_TYPES:
        plan = plan_backward_data(problem.in_single_precision(), target)
        sizes = problem.elements
        inputs = {"grad_output": sizes["output"], "weight": sizes["weight"]}
        return widened(plan, problem.dtype, target, inputs, {"grad_input": sizes["input"]})
    writer = PlanWriter()
    tile = problem.tile(target)
    if problem.in_per_group == problem.out_per_group == 1 and problem.stride == (1, 1):
        add_depthwise_step(writer, tile, _depthwise_problem(problem))
        return writer.finish()
    problem = problem.with_long_rows(problem.out_channels)
    if problem.stride == (1, 1):
        planes = problem.out_channels * problem.out_size[0] * problem.out_size[1]
        formulate = functools.partial(_unit_stride_problem, problem)
        best = cheapest(_full_window(problem), planes * tile.size, tile, formulate)
        filtered = _winograd_problem(problem) if problem.suits_winograd else None
        if filtered and filtered.is_worth_it(tile, best.cycles(tile) * problem.batch):
            WinogradPlanner(writer, tile, filtered).plan()
            return writer.finish()
    else:
        choices = (_strided_problem(problem), _joined_strided_problem(problem))
        best = min(choices, key=lambda choice: choice.cycles(tile))
    CorrelationPlanner(writer, tile, best).plan()
    return writer.finish()


def _data_problem(
    problem: ConvolutionProblem, layout: SourceLayout, passes: tuple[CorrelationPass, ...]
) -> CorrelationProblem:
    rows, columns = problem.in_size
    window = problem.kernel[0] * problem.kernel[1]
    return CorrelationProblem(
        images=problem.batch if rows * columns else 0,
        groups=problem.groups,
        rows=problem.in_per_group,
        channels=problem.out_per_group,
        layout=layout,
        passes=passes,
        out_rows=rows,
        out_columns=columns,
        arrangement=None,
        weight_row=window,
        weight_group=problem.out_per_group * problem.in_per_group * window,
        source=Pointer("grad_output"),
        weight=Pointer("weight"),
        bias=None,
        out=Pointer("grad_input"),
    )


def _full_window(problem: ConvolutionProblem) -> Window:
    """For stride 1: the same window over the output's gradient, with the padding it leaves."""
    rows, columns = (problem.reach(axis) - problem.pad_low[axis] for axis in range(2))
    return Window(
        problem.out_size, problem.in_size, problem.kernel, (1, 1), problem.dilation, (rows, columns)
    )


def _depthwise_problem(problem: ConvolutionProblem) -> DepthwiseProblem:
    rows, columns = problem.reach(0), problem.reach(1)
    return DepthwiseProblem(
        images=problem.batch,
        filters=problem.in_channels,
        multiplier=1,
        memory=problem.out_size,
        out=problem.in_size,
        low=_full_window(problem).low,
        taps=tuple((rows - i, columns - j) for i, j in problem.window_taps()),
        row_stride=1,
        source=Pointer("grad_output"),
        weight=Pointer("weight"),
        bias=None,
        target=Pointer("grad_input"),
    )


def _winograd_problem(problem: ConvolutionProblem) -> WinogradProblem:
    return WinogradProblem(
        images=problem.batch,
        rows=problem.in_channels,
        channels=problem.out_channels,
        memory=problem.out_size,
        out=problem.in_size,
        low=_full_window(problem).low,
        flipped=True,
        source=Pointer("grad_output"),
        weight=Pointer("weight"),
        bias=None,
        target=Pointer("grad_input"),
    )


def _weight_taps(
    problem: ConvolutionProblem, row_taps: list[int], column_taps: list[int]
) -> np.ndarray:
    """Where the weights of the first input channel lie: by output channel, row, column."""
    rows, columns = problem.kernel
    filters = np.arange(problem.out_per_group) * problem.in_per_group * rows * columns
    window = np.array(row_taps, dtype=np.int64)[:, None] * columns
    window = window + np.array(column_taps, dtype=np.int64)
    return (filters[:, None] + window.reshape(-1)).reshape(-1)


def _unit_stride_problem(
    problem: ConvolutionProblem, window: Window, layout: SourceLayout, strips: int
) -> CorrelationProblem:
    offsets = window.tap_offsets(layout, problem.out_per_group)
    rows, columns = problem.in_size
    one = CorrelationPass(
        weight_taps=_weight_taps(
            problem,
            list(reversed(range(problem.kernel[0]))),
            list(reversed(range(problem.kernel[1]))),
        ),
        source_offsets=offsets,
        row_step=window.row_step(layout),
        out_rows=rows // strips,
        out_columns=columns,
        out_row=columns,
    )
    return replace(_data_problem(problem, layout, (one,)), strips=strips)


def _strided_problem(problem: ConvolutionProblem) -> CorrelationProblem:
    residues = [_residues(problem, axis) for axis in range(2)]
    (top, rows), (left, columns) = (_reach(residues[axis]) for axis in range(2))
    layout = SourceLayout(
        *problem.out_size, rows=rows, phase_columns=columns, top=-top, left=-left
    ).as_in_memory()
    in_rows, in_columns = problem.in_size
    row_table, column_table = np.zeros(in_rows, np.int64), np.zeros(in_columns, np.int64)
    passes = []
    first_row = 0
    for row in residues[0]:
        first_column = 0
        for column in residues[1]:
            start = (row.start - top) * layout.phase_columns + column.start - left
            one = CorrelationPass(
                weight_taps=_weight_taps(
                    problem, [k for k, _ in row.taps], [k for k, _ in column.taps]
                ),
                source_offsets=_residue_offsets(problem, layout, row, column, start),
                row_step=layout.phase_columns,
                out_rows=row.count,
                out_columns=column.count,
                out_row=in_columns,
                out_start=first_row * in_columns + first_column,
            )
            passes.append(one)
            column_table[column.first :: problem.stride[1]] = first_column + np.arange(column.count)
            first_column += column.count
        row_table[row.first :: problem.stride[0]] = first_row + np.arange(row.count)
        first_row += row.count
    arrangement = Arrangement(in_rows * in_columns, row_table * in_columns, column_table)
    return replace(_data_problem(problem, layout, tuple(passes)), arrangement=arrangement)


def _joined_strided_problem(problem: ConvolutionProblem) -> CorrelationProblem:
    """The same with the rows of each pass joined to one, as in `flatten`: for small planes."""
    plain = _strided_problem(problem)
    assert plain.arrangement is not None
    length = plain.layout.phase_columns
    residues = [_residues(problem, axis) for axis in range(2)]
    across = len(residues[1])
    # A pass without taps may be wider than the layout: its rows overlap, but all of it is zero.
    extents = [(one.out_rows - 1) * length + one.out_columns for one in plain.passes]
    region = max(extents, default=0)
    passes = []
    for number, (one, columns) in enumerate(zip(plain.passes, extents, strict=True)):
        joined = replace(
            one,
            row_step=length,
            out_rows=1,
            out_columns=columns,
            out_row=columns,
            out_start=number * region,
        )
        passes.append(joined)
    row_table, column_table = (np.zeros(size, np.int64) for size in problem.in_size)
    for number, residue in enumerate(residues[0]):
        places = number * across * region + np.arange(residue.count) * length
        row_table[residue.first :: problem.stride[0]] = places
    for number, residue in enumerate(residues[1]):
        places = number * region + np.arange(residue.count)
        column_table[residue.first :: problem.stride[1]] = places
    arrangement = Arrangement(len(passes) * region, row_table, column_table)
    return replace(plain, passes=tuple(passes), arrangement=arrangement)


def _residue_offsets(
    problem: ConvolutionProblem, layout: SourceLayout, row: _Residue, column: _Residue, start: int
) -> np.ndarray:
    rows = np.array([-q for _, q in row.taps], dtype=np.int64)[:, None] * layout.phase_columns
    window = (start + rows + np.array([-q for _, q in column.taps], dtype=np.int64)).reshape(-1)
    planes = np.arange(problem.out_per_group, dtype=np.int64) * layout.plane
    return (planes[:, None] + window).reshape(-1)


# -- by the weight ---------------------------------------------------------------------------------


def plan_backward_weight(problem: ConvolutionProblem, target: Target) -> LibraryPlan:
    """The steps that compute ``grad_weight`` from ``grad_output`` and ``input`` (operand names).

    Sums run over a part of the images, the parts are then added in order; the parts follow from
    the shapes, and so does whether they are Winograd's (see `winograd_gradient`).
    """
    if problem.dtype in HALF_TYPES:
        plan = plan_backward_weight(problem.in_single_precision(), target)
        sizes = problem.elements
        inputs = {"grad_output": sizes["output"], "input": sizes["input"]}
        return widened(plan, problem.dtype, target, inputs, {"grad_weight": sizes["weight"]})
    writer = PlanWriter()
    tile = problem.tile(target)
    planners = [
        FilterLanesPlanner(writer, tile, problem),
        *(
            PositionLanesPlanner(writer, tile, problem, layout)
            for layout in problem.window().layouts()
            if layout.row_phases == 1
        ),
    ]
    best = min(planners, key=lambda planner: planner.cycles())
    if problem.suits_winograd and problem.batch:
        filtered = WinogradGradientPlanner(writer, tile, problem)
        if filtered.is_worth_it(best.cycles() * problem.batch):
            filtered.plan()
            return writer.finish()
    best.plan()
    return writer.finish()


# -- by the bias -----------------------------------------------------------------------------------


def plan_backward_bias(problem: ConvolutionProblem, target: Target) -> LibraryPlan:
    """The steps that compute ``grad_bias``, the sums of ``grad_output`` by channel."""
    writer = PlanWriter()
    tile = problem.tile(target)
    channels = problem.out_channels
    plane = problem.out_size[0] * problem.out_size[1]
    images = ceil_div(max(1, problem.batch), MOST_PARTS)
    parts = ceil_div(max(1, problem.batch), images)
    total = Pointer("grad_bias")
    target_sums = writer.reserve(parts * channels * tile.size) if parts > 1 else total
    arguments: dict[str, Word] = {
        "grad": Pointer("grad_output"),
        "target": target_sums,
        "images": problem.batch,
        "part_images": images,
        "channels": channels,
        "plane": plane,
    }
    step = weight_gradient_module(tile).step(
        BIAS_SUM, arguments, parts * channels, GRAIN_MOVES // max(1, images * plane)
    )
    writer.add(step)
    if parts > 1:
        add_combine_step(writer, tile, target_sums, total, parts, channels)
    return writer.finish()
