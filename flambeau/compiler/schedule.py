"""Kernels to loops: the CPU schedule.

A pointwise kernel runs its innermost loop in vectors and hands the other indices out as tasks.  A
reduction is a *row* reduction where its innermost loop is reduced (several vector accumulators,
combined by a fixed tree) or a *column* reduction where it is kept (one accumulator per column).
How a reduction adds depends on its own loops only, never on what was fused into it.

Argument block, in 8-byte words: operands' addresses, loop extents, operands' strides (elements,
operand by operand), scalars (float64 or int64).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flambeau.compiler import builder as ir
from flambeau.compiler import emit
from flambeau.compiler.builder import ARGS, BEGIN, END, I64, Builder, Var, vector
from flambeau.compiler.kernel import (
    BROADCAST,
    INDEXED,
    IOTA,
    UNIT,
    Instruction,
    Kernel,
    Operand,
)
from flambeau.compiler.target import Target
from flambeau.core import dtype as types

FUNCTION = "kernel"

# Part of the definition of a reduction's result: changing one changes the last bits of sums.
ROW_ACCUMULATORS = 4
COLUMN_BLOCK = 64
COLUMN_RUN = 256
SPLIT_LENGTH = 16384


@dataclass(frozen=True)
class ArgumentMap:
    """Where each argument of a kernel stands in its block."""

    kernel: Kernel

    def pointer(self, operand: int) -> int:
        return operand

    def extent(self, loop: int) -> int:
        return len(self.kernel.operands) + loop

    def stride(self, operand: int, loop: int) -> int:
        kernel = self.kernel
        return len(kernel.operands) + kernel.rank + operand * kernel.rank + loop

    def scalar(self, index: int) -> int:
        kernel = self.kernel
        return len(kernel.operands) * (1 + kernel.rank) + kernel.rank + index

    @property
    def total_extent(self) -> int:
        """A split reduction's full extent of the loop that its chunks cut."""
        return self.scalar(len(self.kernel.scalars))

    @property
    def words(self) -> int:
        return self.total_extent + (1 if self.kernel.split else 0)


def width_of(kernel: Kernel, target: Target) -> int:
    """Lanes of a vector: as many as the target has for float (two registers hold doubles)."""
    return target.lanes("float")


@dataclass
class Levels:
    """Which instructions run once per kernel, once per element, and after a reduction."""

    uniform: list[int] = field(default_factory=list)
    inner: list[int] = field(default_factory=list)
    reductions: list[int] = field(default_factory=list)
    outer: list[int] = field(default_factory=list)


def levels_of(kernel: Kernel) -> Levels:
    levels = Levels()
    level: list[str] = []
    for k, i in enumerate(kernel.instructions):
        below = {level[a] for a in i.arguments}
        if i.operation == "reduce":
            level.append("outer")
            levels.reductions.append(k)
        elif i.operation in ("load", "gather"):
            level.append("inner")
            levels.inner.append(k)
        elif "outer" in below:
            level.append("outer")
            levels.outer.append(k)
        elif "inner" in below or i.operation == "store":
            level.append("inner")
            levels.inner.append(k)
        else:
            level.append("uniform")
            levels.uniform.append(k)
    return levels


class CpuSchedule:
    """Writes the function of one kernel for one CPU target."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.kernel = kernel
        self.width = width_of(kernel, target)
        self.b = Builder()
        self.map = ArgumentMap(kernel)
        self.levels = levels_of(kernel)
        self.uniform: dict[int, Var] = {}
        self.splats: dict[int, Var] = {}
        b = self.b
        self.pointers = [
            Var("ptr", "null") if o.kind == IOTA else b.argument(ARGS, self.map.pointer(k), "ptr")
            for k, o in enumerate(kernel.operands)
        ]
        self.extents = [b.argument(ARGS, self.map.extent(k)) for k in range(kernel.rank)]
        self.strides = [
            [b.argument(ARGS, self.map.stride(k, loop)) for loop in range(kernel.rank)]
            for k in range(len(kernel.operands))
        ]
        self._emit_uniform()

    def source(self) -> str:
        """The module's IR text."""
        if not any(self.kernel.reduced):
            self._pointwise()
        elif self.kernel.reduced[-1]:
            RowReduction(self).emit()
        else:
            ColumnReduction(self).emit()
        return ir.module([self.b.function(FUNCTION, ir.KERNEL_PARAMETERS)], [self.b])

    # -- what does not change during the loops -------------------------------------------------

    def _emit_uniform(self) -> None:
        """Scalars and what follows from them alone: once, before the loops."""
        for k in self.levels.uniform:
            i = self.kernel.instructions[k]
            if i.operation == "scalar":
                assert isinstance(i.attribute, int)
                word = self.map.scalar(i.attribute)
                value = self.b.argument(ARGS, word, emit.REGISTER[i.dtype])
            else:
                value = self._instruction(i, {a: self.uniform[a] for a in i.arguments}, 1)
            self.uniform[k] = value
            if i.operation != "constant":
                self.splats[k] = self.b.splat(value, self.width)

    def uniform_values(self, width: int) -> dict[int, Var]:
        """Uniform values at the width of the code that is about to be written."""
        if width == 1:
            return dict(self.uniform)
        values = dict(self.splats)
        for k, value in self.uniform.items():
            if k not in values:
                element = value.type
                literal = Var(vector(element, width), f"splat ({element} {value.name})")
                values[k] = literal
        return values

    def _instruction(self, i: Instruction, known: dict[int, Var], width: int) -> Var:
        arguments = [known[a] for a in i.arguments]
        sources = [self.kernel.instructions[a].dtype for a in i.arguments]
        return emit.emit_instruction(self.b, i, arguments, sources, width)

    # -- addresses -----------------------------------------------------------------------------

    def decode(self, task: Var, loops: Sequence[int]) -> list[Var]:
        """The indices of ``loops`` (outermost first) from a row-major task number."""
        indices: list[Var] = []
        rest = task
        for loop in reversed(loops[1:]):
            indices.append(self.b.emit(I64, f"urem {rest}, {self.extents[loop].name}"))
            rest = self.b.emit(I64, f"udiv {rest}, {self.extents[loop].name}")
        indices.append(rest)
        return indices[::-1]

    def offsets(self, loops: Sequence[int], indices: Sequence[Var]) -> list[Var]:
        """Each operand's element offset at the given loop indices."""
        result = []
        for strides in self.strides:
            offset: Var | None = None
            for loop, index in zip(loops, indices, strict=True):
                part = self.b.mul(index, strides[loop])
                offset = part if offset is None else self.b.add(offset, part)
            result.append(offset or Var(I64, "0"))
        return result

    def advance(self, offsets: Sequence[Var], loop: int, index: Var) -> list[Var]:
        return [
            self.b.add(offset, self.b.mul(index, strides[loop]))
            for offset, strides in zip(offsets, self.strides, strict=True)
        ]

    # -- one vector of elements ----------------------------------------------------------------

    def load(self, k: int, offset: Var, inner: Var, mask: Var | None, width: int) -> Var:
        """Operand ``k`` at ``inner`` of the innermost loop; ``offset`` is that of the outer
        loops.
        """
        b, operand = self.b, self.kernel.operands[k]
        stride = self.strides[k][-1]
        if operand.kind == IOTA:
            return self._iota(offset, inner, stride, width)
        element = operand.dtype.llvm
        size = operand.dtype.itemsize
        if operand.inner == BROADCAST:
            raw = b.load(element, b.gep(element, self.pointers[k], offset), size)
            return b.splat(emit.from_memory(b, raw, operand.dtype), width)
        if operand.inner == UNIT:
            address = b.gep(element, self.pointers[k], b.add(offset, inner))
            type_ = vector(element, width)
            if mask is None or width == 1:
                raw = b.load(type_, address, size)
            else:
                raw = b.masked_load(type_, address, mask, size)
            return emit.from_memory(b, raw, operand.dtype)
        positions = self._iota(offset, inner, stride, width)
        return self.gather(k, positions, mask, width)

    def _iota(self, offset: Var, inner: Var, stride: Var, width: int) -> Var:
        b = self.b
        first = b.add(offset, b.mul(inner, stride))
        if width == 1:
            return first
        steps = b.mul(b.lane_numbers(width, "i64"), b.splat(stride, width))
        return b.add(b.splat(first, width), steps)

    def gather(self, k: int, positions: Var, mask: Var | None, width: int) -> Var:
        b, operand = self.b, self.kernel.operands[k]
        element, size = operand.dtype.llvm, operand.dtype.itemsize
        if width == 1:
            raw = b.load(element, b.gep(element, self.pointers[k], positions), size)
            return emit.from_memory(b, raw, operand.dtype)
        type_ = vector(element, width)
        addresses = self._addresses(k, positions, width)
        name = f"llvm.masked.gather.{ir.mangled(type_)}.v{width}p0"
        raw = b.intrinsic(
            name, type_, addresses, Var("i32", str(size)), self._mask(mask, width), b.zero(type_)
        )
        return emit.from_memory(b, raw, operand.dtype)

    def _addresses(self, k: int, positions: Var, width: int) -> Var:
        element = self.kernel.operands[k].dtype.llvm
        return self.b.emit(
            f"<{width} x ptr>", f"getelementptr {element}, {self.pointers[k]}, {positions}"
        )

    def _mask(self, mask: Var | None, width: int) -> Var:
        return mask or Var(vector("i1", width), "splat (i1 true)")

    def store(
        self, k: int, value: Var, offset: Var, inner: Var, mask: Var | None, width: int
    ) -> None:
        b, operand = self.b, self.kernel.operands[k]
        raw = emit.to_memory(b, value, operand.dtype)
        element, size = operand.dtype.llvm, operand.dtype.itemsize
        if operand.inner == UNIT or width == 1:
            if operand.inner == UNIT:
                position = b.add(offset, inner)
            else:
                position = b.add(offset, b.mul(inner, self.strides[k][-1]))
            address = b.gep(element, self.pointers[k], position)
            if mask is None or width == 1:
                b.store(raw, address, size)
            else:
                b.masked_store(raw, address, mask, size)
            return
        positions = self._iota(offset, inner, self.strides[k][-1], width)
        addresses = self._addresses(k, positions, width)
        mask = self._mask(mask, width)
        name = f"llvm.masked.scatter.{ir.mangled(raw.type)}.v{width}p0"
        b.declarations.add(f"declare void @{name}({raw.type}, {addresses.type}, i32, {mask.type})")
        b.do(f"call void @{name}({raw}, {addresses}, i32 {size}, {mask})")

    def elements(
        self, offsets: Sequence[Var], inner: Var, mask: Var | None, width: int
    ) -> dict[int, Var]:
        """Runs the per-element instructions for ``width`` elements; returns all their values."""
        known = self.uniform_values(width)
        for k in self.levels.inner:
            i = self.kernel.instructions[k]
            if i.operation == "load":
                assert isinstance(i.attribute, int)
                known[k] = self.load(i.attribute, offsets[i.attribute], inner, mask, width)
            elif i.operation == "gather":
                assert isinstance(i.attribute, int)
                known[k] = self.gather(i.attribute, known[i.arguments[0]], mask, width)
            elif i.operation == "store":
                assert isinstance(i.attribute, int)
                value = known[i.arguments[0]]
                self.store(i.attribute, value, offsets[i.attribute], inner, mask, width)
            else:
                known[k] = self._instruction(i, known, width)
        return known

    # -- pointwise -----------------------------------------------------------------------------

    def _pointwise(self) -> None:
        if self.kernel.rank == 1:
            offsets = [Var(I64, "0")] * len(self.kernel.operands)
            self._inner_loop(offsets, BEGIN, END)
            return
        outer = range(self.kernel.rank - 1)

        def row(task: Var, _: list[Var]) -> None:
            offsets = self.offsets(outer, self.decode(task, outer))
            self._inner_loop(offsets, Var(I64, "0"), self.extents[-1])

        self.b.loop(BEGIN, END, 1, [], row)

    def _inner_loop(self, offsets: Sequence[Var], start: Var, stop: Var) -> None:
        b, width = self.b, self.width

        def body(index: Var, _: list[Var]) -> None:
            self.elements(offsets, index, None, width)

        index, _ = b.loop(start, stop, width, [], body)
        if width == 1:
            return

        def tail(index: Var, _: list[Var]) -> None:
            mask = b.mask(b.sub(stop, index), width)
            self.elements(offsets, index, mask, width)

        b.loop(index, b.add(stop, width - 1), width, [], tail)


class _Reduction:
    """What row and column reductions share: accumulators, chunks and the work after the loops."""

    def __init__(self, schedule: CpuSchedule) -> None:
        self.s = schedule
        self.b = schedule.b
        kernel = schedule.kernel
        self.kept = [k for k, reduced in enumerate(kernel.reduced) if not reduced]
        self.loops = [k for k, reduced in enumerate(kernel.reduced) if reduced]

    def _combine_of(self, k: int) -> tuple[str, types.dtype]:
        i = self.s.kernel.instructions[k]
        assert isinstance(i.attribute, str)
        return i.attribute, self.s.kernel.instructions[i.arguments[0]].dtype

    def identities(self, width: int) -> list[Var]:
        """Starting accumulators: one value per reduction, a pair (value, index) for argmax."""
        result = []
        for k in self.s.levels.reductions:
            kind, dtype = self._combine_of(k)
            type_ = emit.register_type(dtype, width)
            result.append(emit.identity(self.b, kind, dtype, type_))
            if kind in ("argmax", "argmin"):
                result.append(self.b.constant(types.iinfo(types.int64).max, vector(I64, width)))
        return result

    def inputs(self, known: dict[int, Var]) -> list[Var]:
        """What one vector of elements contributes, in the order of :meth:`identities`."""
        result = []
        for k in self.s.levels.reductions:
            result += [known[a] for a in self.s.kernel.instructions[k].arguments]
        return result

    def combine(self, x: Sequence[Var], y: Sequence[Var]) -> list[Var]:
        result: list[Var] = []
        at = 0
        for k in self.s.levels.reductions:
            kind, dtype = self._combine_of(k)
            if kind in ("argmax", "argmin"):
                pair = (x[at], x[at + 1]), (y[at], y[at + 1])
                result += emit.combine_indexed(self.b, kind, dtype, *pair)
                at += 2
            else:
                result.append(emit.combine(self.b, kind, dtype, x[at], y[at]))
                at += 1
        return result

    def masked(self, values: Sequence[Var], mask: Var, width: int) -> list[Var]:
        """Lanes outside the mask contribute nothing."""
        neutral = self.identities(width)
        return [self.b.select(mask, v, n) for v, n in zip(values, neutral, strict=True)]

    def finish(
        self,
        accumulator: Sequence[Var],
        offsets: Sequence[Var],
        inner: Var,
        mask: Var | None,
        width: int,
    ) -> None:
        """Instructions after the reduction: casts, a fused epilogue, stores."""
        s = self.s
        known = s.uniform_values(width)
        at = 0
        for k in s.levels.reductions:
            kind, _ = self._combine_of(k)
            pair = kind in ("argmax", "argmin")
            known[k] = accumulator[at + 1 if pair else at]
            at += 2 if pair else 1
        for k in s.levels.outer:
            i = s.kernel.instructions[k]
            if i.operation == "store":
                assert isinstance(i.attribute, int)
                s.store(
                    i.attribute, known[i.arguments[0]], offsets[i.attribute], inner, mask, width
                )
            else:
                known[k] = s._instruction(i, known, width)

    def clamp_chunk(self, chunk: Var) -> Var:
        """The extent of the last reduction loop within a chunk: shorter in the last one."""
        b, s = self.b, self.s
        length = s.extents[self.loops[-1]]
        total = b.argument(ARGS, s.map.total_extent)
        return b.min(b.sub(total, b.mul(chunk, length)), length)


class RowReduction(_Reduction):
    """The innermost loop is reduced.  One task is one element of the result."""

    def emit(self) -> None:
        s, b = self.s, self.b

        def task(number: Var, _: list[Var]) -> None:
            indices = s.decode(number, self.kept) if self.kept else []
            offsets = s.offsets(self.kept, indices)
            length = s.extents[-1]
            if s.kernel.split:
                length = self.clamp_chunk(indices[-1])
            start = self.identities(s.width) * ROW_ACCUMULATORS
            accumulators = self._nest(self.loops[:-1], offsets, start, length)
            result = self._collapse(accumulators)
            self.finish(result, offsets, Var(I64, "0"), None, 1)

        b.loop(BEGIN, END, 1, [], task)

    def _nest(
        self, loops: Sequence[int], offsets: Sequence[Var], start: Sequence[Var], length: Var
    ) -> list[Var]:
        if not loops:
            return self._innermost(offsets, start, length)

        def body(index: Var, carried: list[Var]) -> list[Var]:
            inner = self.s.advance(offsets, loops[0], index)
            return self._nest(loops[1:], inner, carried, length)

        return self.b.loop(0, self.s.extents[loops[0]], 1, start, body)[1]

    def _innermost(self, offsets: Sequence[Var], start: Sequence[Var], length: Var) -> list[Var]:
        s, b, width = self.s, self.b, self.s.width
        each = len(start) // ROW_ACCUMULATORS

        def body(index: Var, carried: list[Var]) -> list[Var]:
            updated: list[Var] = []
            for u in range(ROW_ACCUMULATORS):
                known = s.elements(offsets, b.add(index, u * width), None, width)
                mine = carried[u * each : (u + 1) * each]
                updated += self.combine(mine, self.inputs(known))
            return updated

        index, accumulators = b.loop(0, length, ROW_ACCUMULATORS * width, start, body)

        def tail(index: Var, carried: list[Var]) -> list[Var]:
            mask = b.mask(b.sub(length, index), width)
            known = s.elements(offsets, index, mask if width > 1 else None, width)
            values = self.masked(self.inputs(known), mask, width)
            return self.combine(carried, values)

        _, first = b.loop(index, b.add(length, width - 1), width, accumulators[:each], tail)
        return first + accumulators[each:]

    def _collapse(self, accumulators: Sequence[Var]) -> list[Var]:
        each = len(accumulators) // ROW_ACCUMULATORS
        parts = [list(accumulators[u * each : (u + 1) * each]) for u in range(ROW_ACCUMULATORS)]
        while len(parts) > 1:
            parts = [self.combine(parts[k], parts[k + 1]) for k in range(0, len(parts), 2)]
        return emit.horizontal(self.b, parts[0], self.combine)


class ColumnReduction(_Reduction):
    """The innermost loop is kept.  One task is a block of columns of the result."""

    def emit(self) -> None:
        s, b = self.s, self.b
        outer = self.kept[:-1]
        columns = s.extents[-1]
        blocks = b.emit(I64, f"udiv {b.add(columns, COLUMN_BLOCK - 1)}, {COLUMN_BLOCK}")

        def task(number: Var, _: list[Var]) -> None:
            row = b.emit(I64, f"udiv {number}, {blocks.name}")
            first = b.mul(b.emit(I64, f"urem {number}, {blocks.name}"), COLUMN_BLOCK)
            indices = s.decode(row, outer) if outer else []
            offsets = s.offsets(outer, indices)
            length = s.extents[self.loops[-1]]
            if s.kernel.split:
                length = self.clamp_chunk(indices[-1])
            stop = b.min(b.add(first, COLUMN_BLOCK), columns)

            def strip(column: Var, _: list[Var]) -> None:
                self._strip(offsets, column, b.sub(columns, column), length)

            b.loop(first, b.add(stop, s.width - 1), s.width, [], strip)

        b.loop(BEGIN, END, 1, [], task)

    def _strip(self, offsets: Sequence[Var], column: Var, left: Var, length: Var) -> None:
        width = self.s.width
        mask = self.b.mask(left, width) if width > 1 else None
        start = self.identities(width)
        total = self._nest(self.loops, offsets, start, length, column, mask)
        self.finish(total, offsets, column, mask, width)

    def _nest(
        self,
        loops: Sequence[int],
        offsets: Sequence[Var],
        start: Sequence[Var],
        length: Var,
        column: Var,
        mask: Var | None,
    ) -> list[Var]:
        b, s = self.b, self.s
        if len(loops) > 1:

            def body(index: Var, carried: list[Var]) -> list[Var]:
                inner = s.advance(offsets, loops[0], index)
                return self._nest(loops[1:], inner, carried, length, column, mask)

            return b.loop(0, s.extents[loops[0]], 1, start, body)[1]

        def element(index: Var, carried: list[Var]) -> list[Var]:
            inner = s.advance(offsets, loops[0], index)
            known = s.elements(inner, column, mask, s.width)
            return self.combine(carried, self.inputs(known))

        # Runs of bounded length, each summed on its own, keep rounding errors of long columns
        # small.
        def run(number: Var, carried: list[Var]) -> list[Var]:
            first = b.mul(number, COLUMN_RUN)
            stop = b.min(b.add(first, COLUMN_RUN), length)
            _, part = b.loop(first, stop, 1, self.identities(s.width), element)
            return self.combine(carried, part)

        runs = b.emit(I64, f"udiv {b.add(length, COLUMN_RUN - 1)}, {COLUMN_RUN}")
        return b.loop(0, runs, 1, start, run)[1]


def source(kernel: Kernel, target: Target) -> str:
    """The IR text of a kernel for a CPU; its one function is called :data:`FUNCTION`."""
    return CpuSchedule(kernel, target).source()


def task_count(kernel: Kernel, extents: Sequence[int]) -> int:
    """Over how many tasks ``[begin, end)`` ranges for these loop extents."""
    if not any(kernel.reduced):
        return _product(extents if kernel.rank == 1 else extents[:-1])
    kept = [n for n, reduced in zip(extents, kernel.reduced, strict=True) if not reduced]
    if kernel.reduced[-1]:
        return _product(kept)
    blocks = -(-kept[-1] // COLUMN_BLOCK)
    return _product(kept[:-1]) * blocks


def _product(numbers: Sequence[int]) -> int:
    result = 1
    for n in numbers:
        result *= n
    return result


Source = Callable[[Kernel, Target], str]
__all__ = [
    "COLUMN_BLOCK",
    "FUNCTION",
    "INDEXED",
    "SPLIT_LENGTH",
    "ArgumentMap",
    "Operand",
    "source",
    "task_count",
]
