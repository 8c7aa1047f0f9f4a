"""Reductions by two kernels: the first leaves partial results in the workspace, the second combines
them, column by column, and does what runs once per result.

Partial results lie chunk by chunk, each as contiguous as the results are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from flambeau.compiler.kernel import BROADCAST, MEMORY, UNIT, Operand, Value
from flambeau.compiler.schedule_reduction import LOOP_RUN
from flambeau.compiler.schedule_rows import ROW_CHUNK
from flambeau.engine.call import Call, Reduction
from flambeau.engine.fuse import Group
from flambeau.engine.loops import Axes, extents_of, is_reduced, is_row
from flambeau.engine.nest import Nest, Partial, Tracing


class _TwoKernels:
    """What both ways share: the partial results, and the second kernel."""

    # Loops over the results, the dimensions reduced to get them, and how many chunks there are.
    kept_axes: Axes
    dims: tuple[int, ...]
    chunks: int

    def __init__(
        self, group: Group, calls: Sequence[Call], starts: Sequence[int], stored: frozenset[int]
    ) -> None:
        self.group = group
        self.calls, self.starts, self.stored = calls, starts, stored
        self.workspace = 0
        self.partials: dict[int, list[tuple[str, Partial]]] = {}

    def nests(self) -> tuple[list[Nest], int]:
        """Both kernels and the bytes of workspace between them."""
        return [self.reduce_chunks(), self._combine_chunks()], self.workspace

    def reduce_chunks(self) -> Nest:
        raise AssertionError(f"{type(self).__name__} has no first kernel")

    def runs_last(self, call: Call) -> bool:
        """Whether the second kernel does this pointwise call."""
        raise AssertionError(f"{type(self).__name__} does not say what runs last")

    def new_tracing(self, axes: Axes, dims: tuple[int, ...]) -> Tracing:
        return Tracing(self.group, axes, self.calls, self.starts, self.stored, dims)

    def partial(self, k: int, kind: str, value: Value) -> Partial:
        """Room for one more value of call ``k``, per chunk and result."""
        partial = Partial(self.workspace, value.dtype)
        results = prod(extents_of(self.kept_axes, self.group.shape))
        size = self.chunks * results * value.dtype.itemsize
        self.workspace += -(-size // 64) * 64
        self.partials.setdefault(k, []).append((kind, partial))
        return partial

    def _combine_chunks(self) -> Nest:
        *outer, inner = self.kept_axes or [()]
        *outer_extents, inner_extent = extents_of((*outer, inner), self.group.shape)
        kernel = self.new_tracing((*outer, (), inner), self.dims)
        between = contiguous((self.chunks, *outer_extents, inner_extent))
        strides = (*between[1:-1], between[0], between[-1])
        for k in self.group.calls:
            if k in self.partials:
                kernel.finish(k, [_load(kernel, *p, strides) for p in self.partials[k]])
            elif self.runs_last(self.calls[k]):
                kernel.call(k)
        kernel.store_results()
        if not self.kept_axes:
            _walk_made_up_loop(kernel)
        flags = (*(False for _ in outer), True, False)
        return kernel.nest(flags, (*outer_extents, self.chunks, inner_extent))


class Chunks(_TwoKernels):
    """Few long reductions, cut into chunks of a fixed length along the last reduced loop."""

    def __init__(
        self, group: Group, calls: Sequence[Call], starts: Sequence[int], stored: frozenset[int]
    ) -> None:
        super().__init__(group, calls, starts, stored)
        axes, self.dims = group.axes, group.dims
        self.flags = tuple(is_reduced(a, self.dims) for a in axes)
        self.kept_axes = tuple(a for a in axes if not is_reduced(a, self.dims))
        self.extents = extents_of(axes, group.shape)
        self.last = max(k for k, reduced in enumerate(self.flags) if reduced)
        self.row = is_row(axes, self.dims)
        self.chunk = ROW_CHUNK if self.row else LOOP_RUN
        self.chunks = -(-self.extents[self.last] // self.chunk)

    def runs_last(self, call: Call) -> bool:
        return self.group.once(call) is not None

    def reduce_chunks(self) -> Nest:
        """An outermost kept loop over chunks."""
        kernel = self.new_tracing(self.group.axes, self.dims)
        for k in self.group.calls:
            if isinstance(self.calls[k].work, Reduction):
                self._store_partials(k, kernel)
            elif not self.runs_last(self.calls[k]):
                kernel.call(k)
        kernel.store_results()
        between = contiguous((self.chunks, *extents_of(self.kept_axes, self.group.shape)))
        strides: list[tuple[int, ...]] = []
        for source, own in zip(kernel.sources, kernel.strides, strict=True):
            if isinstance(source, Partial):
                left = iter(between[1:])
                spread = [0 if reduced else next(left) for reduced in self.flags]
                strides.append((between[0], *spread))
            else:
                strides.append((own[self.last] * self.chunk, *own))
        kernel.strides = strides
        extents = list(self.extents)
        extents[self.last] = self.chunk
        total = self.extents[self.last]
        return kernel.nest((False, *self.flags), (self.chunks, *extents), total)

    def _store_partials(self, k: int, kernel: Tracing) -> None:
        for kind, value in zip(kernel.combines(k), kernel.reduced_values(k), strict=True):
            inner = BROADCAST if self.row else UNIT
            operand = kernel.add_operand(
                Operand(value.dtype, inner, kept=True), self.partial(k, kind, value), ()
            )
            kernel.tracer.store(operand, kernel.tracer.reduce(kind, value))


class Bands(_TwoKernels):
    """Rows reduced in stages that add up columns as they go: a task is a band of rows.

    A band is one run of a column reduction, so the columns are added in the order in which
    `schedule_columns.py` adds them.
    """

    def __init__(
        self, group: Group, calls: Sequence[Call], starts: Sequence[int], stored: frozenset[int]
    ) -> None:
        super().__init__(group, calls, starts, stored)
        rows, columns = group.axes
        self.kept_axes, self.dims = (columns,), group.column_dims
        self.rows, self.columns = extents_of(group.axes, group.shape)
        self.chunks = -(-self.rows // LOOP_RUN)

    def runs_last(self, call: Call) -> bool:
        return self.group.once(call) == self.dims

    def reduce_chunks(self) -> Nest:
        kernel = self.new_tracing(self.group.axes, self.group.dims)
        for k in self.group.calls:
            if self.group.adds_columns(self.calls[k]):
                self._accumulate(k, kernel)
            elif not self.runs_last(self.calls[k]):
                kernel.call(k)
        kernel.store_results()
        kernel.strides = [
            (self.columns, 0, 1) if isinstance(source, Partial) else (LOOP_RUN * own[0], *own)
            for source, own in zip(kernel.sources, kernel.strides, strict=True)
        ]
        extents = self.chunks, LOOP_RUN, self.columns
        return kernel.nest((False, False, True), extents, self.rows, banded=True)

    def _accumulate(self, k: int, kernel: Tracing) -> None:
        for kind, value in zip(kernel.combines(k), kernel.reduced_values(k), strict=True):
            partial = self.partial(k, kind, value)
            operand = kernel.add_operand(Operand(value.dtype, UNIT), partial, ())
            kernel.tracer.accumulate(operand, value)


def _load(kernel: Tracing, kind: str, partial: Partial, strides: tuple[int, ...]) -> Value:
    """A partial result, to be combined over chunks."""
    operand = kernel.add_operand(Operand(partial.dtype, UNIT), partial, strides)
    return kernel.tracer.reduce(kind, kernel.tracer.load(operand))


def _walk_made_up_loop(kernel: Tracing) -> None:
    """Gives every operand in memory a stride along an innermost loop of extent 1: vectors of
    neighbours are simpler than scattered ones.
    """
    for k, operand in enumerate(kernel.tracer.operands):
        if operand.kind == MEMORY:
            kernel.tracer.operands[k] = operand._replace(inner=UNIT)
            kernel.strides[k] = (*kernel.strides[k][:-1], 1)


def contiguous(extents: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides."""
    strides = []
    step = 1
    for n in reversed(extents):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))
