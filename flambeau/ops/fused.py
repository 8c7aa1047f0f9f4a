"""Single calls over several operands, which composites are made of: one pass where plain tensor
code would take five.

They record no graph: a composite with a derivative of its own stands around them.  Bodies are
written over kernel `Value`s.  Floating operands arrive in the type that the first of them is
computed in, integers as they are, an absent operand as None.  Python numbers are passed at run
time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.compiler.kernel import Value
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype
from flambeau.core.layout import (
    Layout,
    broadcast_shapes,
    elementwise_strides,
)
from flambeau.engine.call import IOTA_SLOT, Call, Pointwise, Reduction, View
from flambeau.ops import call as path
from flambeau.ops.declare import operation_dtype, reduced_shape
from flambeau.tensor import Tensor

Body = Callable[..., Any]
# From the operands' layouts and the static arguments to the types of the results.
ResultTypes = Callable[[Sequence[Layout], tuple[Any, ...]], tuple[dtype, ...]]
# From the same to the layouts of running indices that the body gets after the operands.
Positions = Callable[[Sequence[Layout], tuple[Any, ...]], tuple[Layout, ...]]


def like_first(layouts: Sequence[Layout], static: tuple[Any, ...]) -> tuple[dtype, ...]:
    """One result of the first operand's type."""
    return (layouts[0].dtype,)


def computed_like_first(layouts: Sequence[Layout], static: tuple[Any, ...]) -> tuple[dtype, ...]:
    """One result of the type that the first operand is computed in."""
    return (operation_dtype(layouts[0].dtype),)


def no_positions(layouts: Sequence[Layout], static: tuple[Any, ...]) -> tuple[Layout, ...]:
    return ()


class _Fused:
    """What both kinds share: the operands' reads and the arguments of bodies."""

    def __init__(
        self,
        name: str,
        body: Body,
        results: ResultTypes = like_first,
        indexed: Sequence[int] = (),
        positions: Positions = no_positions,
    ) -> None:
        """``indexed`` operands reach the body as functions from an offset to the element there."""
        self.name = name
        self.body = body
        self.results = results
        self.indexed = frozenset(indexed)
        self.positions = positions

    def _reads(
        self, slots: Sequence[int], layouts: Sequence[Layout | None], static: tuple[Any, ...]
    ) -> tuple[View, ...]:
        reads = [
            View(slot, layout, k in self.indexed)
            for k, (slot, layout) in enumerate(zip(slots, layouts, strict=True))
            if layout is not None
        ]
        reads += [View(IOTA_SLOT, layout) for layout in self.positions(layouts, static)]
        return tuple(reads)

    def _arguments(
        self, layouts: Sequence[Layout | None], inputs: Sequence[Any], numbers: Sequence[Value]
    ) -> list[Any]:
        compute = _computed_in(layouts)
        left = iter(inputs)
        arguments: list[Any] = []
        for k, layout in enumerate(layouts):
            if layout is None:
                arguments.append(None)
            elif k in self.indexed:
                arguments.append(_converted_gather(next(left), compute))
            else:
                arguments.append(_converted(next(left), compute))
        return [*arguments, *left, *(_converted(n, compute) for n in numbers)]


def _computed_in(layouts: Sequence[Layout | None]) -> dtype:
    """The type of floating values in a body: the first floating operand's."""
    kinds = [layout.dtype for layout in layouts if layout is not None]
    floating = [d for d in kinds if d.is_floating_point]
    return operation_dtype(floating[0]) if floating else types.float64


def _converted(value: Value, compute: dtype) -> Value:
    return value.cast(compute) if value.dtype.is_floating_point else value


def _converted_gather(gather: Callable[[Value], Value], compute: dtype) -> Callable[[Value], Value]:
    return lambda offset: _converted(gather(offset), compute)


def _kinds(numbers: Sequence[float]) -> tuple[type, ...]:
    return tuple(map(type, numbers))


def _as_tuple(outcome: Any) -> tuple[Any, ...]:
    return outcome if isinstance(outcome, tuple) else (outcome,)


class FusedPointwise(_Fused):
    """One value per result and index of the broadcast shape of the operands that are not indexed.

    ``contiguous`` results are row-major whatever the operands' strides.
    """

    def __init__(self, name: str, body: Body, contiguous: bool = False, **more: Any) -> None:
        super().__init__(name, body, **more)
        self.contiguous = contiguous

    def __call__(
        self,
        operands: Sequence[Tensor | None],
        numbers: Sequence[float] = (),
        static: tuple[Any, ...] = (),
        destinations: Sequence[Tensor] = (),
    ) -> tuple[Tensor, ...]:
        """New tensors; none where the results go into ``destinations``."""
        return path.record(self, operands, (static, _kinds(numbers)), numbers, destinations)

    def build(self, key: tuple[Any, ...], first_slot: int) -> Call:
        _, slots, layouts, (static, kinds), destinations = key
        reads = self._reads(slots, layouts, static)
        walked = [v.layout for v in reads if not v.indexed]
        shape = broadcast_shapes(*(layout.shape for layout in walked))
        outputs: tuple[Layout, ...] = ()
        if destinations:
            writes = tuple(View(slot, layout) for slot, layout in destinations)
        else:
            real = [v.layout for v in reads if not v.indexed and v.slot != IOTA_SLOT]
            strides = None if self.contiguous else elementwise_strides(shape, real or walked)
            device = layouts[0].device
            outputs = tuple(
                Layout.of(shape, d, device, strides) for d in self.results(layouts, static)
            )
            writes = tuple(View(first_slot + k, o) for k, o in enumerate(outputs))

        def traced(inputs: Sequence[Any], numbers: Sequence[Value]) -> Sequence[Value]:
            outcome = _as_tuple(self.body(*self._arguments(layouts, inputs, numbers)))
            return [o.cast(w.layout.dtype) for o, w in zip(outcome, writes, strict=True)]

        return Call(self.name, key, reads, writes, outputs, kinds, Pointwise(traced))


class FusedReduction(_Fused):
    """Values combined over dimensions of the first operand's shape, to which the others broadcast.

    ``finish(*combined, *numbers)`` makes the results, one element each, of what ``body`` gave.
    """

    def __init__(
        self, name: str, combine: str, body: Body, finish: Body | None = None, **more: Any
    ) -> None:
        super().__init__(name, body, **more)
        self.combine = tuple(combine.split())
        self.finish = finish

    def __call__(
        self,
        operands: Sequence[Tensor | None],
        dims: tuple[int, ...],
        keepdim: bool = False,
        numbers: Sequence[float] = (),
        static: tuple[Any, ...] = (),
    ) -> tuple[Tensor, ...]:
        """``dims`` are sorted and not negative."""
        return path.record(self, operands, (dims, keepdim, static, _kinds(numbers)), numbers)

    def build(self, key: tuple[Any, ...], first_slot: int) -> Call:
        _, slots, layouts, (dims, keepdim, static, kinds), _ = key
        first = layouts[0]
        reads = self._reads(slots, layouts, static)
        shape = reduced_shape(first.shape, dims, keepdim)
        results = self.results(layouts, static)
        outputs = tuple(Layout.of(shape, d, first.device) for d in results)
        writes = tuple(View(first_slot + k, o) for k, o in enumerate(outputs))
        compute = _computed_in(layouts)

        def traced(inputs: Sequence[Any], numbers: Sequence[Value]) -> Sequence[Value]:
            return list(_as_tuple(self.body(*self._arguments(layouts, inputs, numbers))))

        def finished(reduced: Sequence[Value], numbers: Sequence[Value]) -> Sequence[Value]:
            converted = [_converted(n, compute) for n in numbers]
            outcome = self.finish(*reduced, *converted) if self.finish else tuple(reduced)
            return [o.cast(d) for o, d in zip(_as_tuple(outcome), results, strict=True)]

        work = Reduction(traced, self.combine, dims, finished)
        return Call(self.name, key, reads, writes, outputs, kinds, work)


def row_positions(layout: Layout, shape: Sequence[int], fixed: int) -> Layout:
    """Offsets into ``layout`` at each index of ``shape``, but for dimension ``fixed``."""
    strides = [0 if d == fixed else s for d, s in enumerate(layout.strides)]
    return Layout.of(shape, types.int64, layout.device, strides)


def dimension_position(layout: Layout, shape: Sequence[int], dim: int) -> Layout:
    """A running index along ``dim`` of ``shape``."""
    strides = [1 if d == dim else 0 for d in range(len(shape))]
    return Layout.of(shape, types.int64, layout.device, strides)
