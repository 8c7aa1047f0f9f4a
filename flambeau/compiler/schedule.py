"""Kernels to loops: the CPU schedule.

A pointwise kernel runs its innermost loop in vectors and hands the other indices out as tasks.  A
reduction is a *row* reduction where its innermost loop is reduced (`schedule_rows.py`) or a
*column* reduction where it is kept (`schedule_columns.py`).  How a reduction adds depends on its
own loops only, never on what was fused into it.

Argument block, in 8-byte words: operands' addresses, loop extents, operands' strides (elements,
operand by operand), scalars (float64 or int64).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
from flambeau.compiler.levels import levels_of
from flambeau.compiler.schedule_columns import COLUMN_BLOCK, ColumnReduction
from flambeau.compiler.schedule_rows import RowReduction
from flambeau.compiler.schedule_tiles import TiledPointwise, block_count
from flambeau.compiler.slopes import inner_slopes
from flambeau.compiler.target import Target

FUNCTION = "kernel"


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
        """The full extent of the loop that chunks or bands cut."""
        return self.scalar(len(self.kernel.scalars))

    @property
    def words(self) -> int:
        return self.total_extent + (1 if self.kernel.cut else 0)


def width_of(kernel: Kernel, target: Target) -> int:
    """Lanes of a vector: as many as the target has for float (two registers hold doubles)."""
    return target.lanes("float")


class CpuSchedule:
    """Writes the function of one kernel for one CPU target."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.kernel = kernel
        self.width = width_of(kernel, target)
        self.b = Builder()
        self.map = ArgumentMap(kernel)
        self.levels = levels_of(kernel)
        self.slopes = inner_slopes(kernel)
        self.contiguous: tuple[int, ...] = (UNIT,)
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
        if self.kernel.tiled:
            TiledPointwise(self).emit()
        elif not any(self.kernel.reduced):
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
        if operand.inner == BROADCAST:
            return b.splat(self.gather(k, offset, None, 1), width)
        if operand.inner in self.contiguous:
            return self._neighbours(k, b.add(offset, inner), mask, width)
        positions = self._iota(offset, inner, stride, width)
        return self.gather(k, positions, mask, width)

    def _neighbours(self, k: int, position: Var, mask: Var | None, width: int) -> Var:
        """The elements from ``position`` on."""
        b, operand = self.b, self.kernel.operands[k]
        element, size = operand.dtype.llvm, operand.dtype.itemsize
        address = b.gep(element, self.pointers[k], position)
        type_ = vector(element, width)
        if mask is None or width == 1:
            raw = b.load(type_, address, size)
        else:
            raw = b.masked_load(type_, address, mask, size)
        return emit.from_memory(b, raw, operand.dtype)

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

    def _gathered(self, i: Instruction, positions: Var, mask: Var | None, width: int) -> Var:
        """A computed access: whole vectors where its positions are neighbours, or all the same."""
        assert isinstance(i.attribute, int)
        slope = self.slopes[i.arguments[0]]
        if width == 1 or slope is None:
            return self.gather(i.attribute, positions, mask, width)
        first = self.b.extract(positions, 0)
        if slope == 0:
            return self.b.splat(self.gather(i.attribute, first, None, 1), width)
        if slope == 1:
            return self._neighbours(i.attribute, first, mask, width)
        # Backwards: the vector that ends at the first element, its lanes reversed.
        turned = range(width - 1, -1, -1)
        start = self.b.sub(first, width - 1)
        mask = mask and self.b.shuffle(mask, mask, turned)
        value = self._neighbours(i.attribute, start, mask, width)
        return self.b.shuffle(value, value, turned)

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
        if operand.inner in self.contiguous or width == 1:
            if operand.inner in self.contiguous:
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

    def perform(
        self,
        instructions: Sequence[int],
        known: dict[int, Var],
        offsets: Sequence[Var],
        inner: Var,
        mask: Var | None,
        width: int,
    ) -> None:
        """Runs instructions for ``width`` elements from ``inner`` on; adds their values to
        ``known``.
        """
        for k in instructions:
            i = self.kernel.instructions[k]
            if i.operation == "load":
                assert isinstance(i.attribute, int)
                known[k] = self.load(i.attribute, offsets[i.attribute], inner, mask, width)
            elif i.operation == "gather":
                assert isinstance(i.attribute, int)
                known[k] = self._gathered(i, known[i.arguments[0]], mask, width)
            elif i.operation == "store":
                assert isinstance(i.attribute, int)
                value = known[i.arguments[0]]
                self.store(i.attribute, value, offsets[i.attribute], inner, mask, width)
            elif i.operation == "accumulate":
                self._accumulate(i, known[i.arguments[0]], offsets, inner, mask, width)
            else:
                known[k] = self._instruction(i, known, width)

    def _accumulate(
        self, i: Instruction, value: Var, offsets: Sequence[Var], inner: Var, mask: Var | None,
        width: int,
    ) -> None:  # fmt: skip
        b, k = self.b, i.attribute
        assert isinstance(k, int)
        so_far = self.load(k, offsets[k], inner, mask, width)
        total = emit.combine(b, "sum", i.dtype, so_far, value)
        self.store(k, total, offsets[k], inner, mask, width)

    def elements(
        self, instructions: Sequence[int], offsets: Sequence[Var], inner: Var, mask: Var | None,
        width: int,
    ) -> dict[int, Var]:  # fmt: skip
        """`perform` where nothing but uniform values is known yet; returns all values."""
        known = self.uniform_values(width)
        self.perform(instructions, known, offsets, inner, mask, width)
        return known

    # -- pointwise -----------------------------------------------------------------------------

    def _pointwise(self) -> None:
        if self.kernel.rank == 1:
            offsets = [Var(I64, "0")] * len(self.kernel.operands)
            self.inner_loop(offsets, BEGIN, END)
            return
        outer = range(self.kernel.rank - 1)

        def row(task: Var, _: list[Var]) -> None:
            offsets = self.offsets(outer, self.decode(task, outer))
            self.inner_loop(offsets, Var(I64, "0"), self.extents[-1])

        self.b.loop(BEGIN, END, 1, [], row)

    def inner_loop(self, offsets: Sequence[Var], start: Var, stop: Var) -> None:
        """All instructions for elements of the innermost loop."""
        rows, (stage,) = self.levels.rows[0], self.levels.stages
        row = self.elements(rows, offsets, Var(I64, "0"), None, 1)
        # Writes to one place are among them, and give no value.
        splats = {k: self.b.splat(row[k], self.width) for k in rows if k in row}

        def body(index: Var, mask: Var | None) -> None:
            known = self.uniform_values(self.width) | splats
            self.perform(stage.instructions, known, offsets, index, mask, self.width)

        self.vectors(start, stop, body)

    def vectors(self, start: Var, stop: Var, body: Callable[[Var, Var | None], object]) -> None:
        """``body(index, mask)`` for whole vectors without a mask, then once with one."""
        b, width = self.b, self.width
        index, _ = b.loop(start, stop, width, [], lambda index, _: void(body(index, None)))
        if width > 1:
            # A branch: as a second loop its addresses would be counted on in the first one.
            left = b.sub(stop, index)
            b.if_(b.compare("sgt", left, 0), lambda: void(body(index, b.mask(left, width))))


def void(_: object) -> None:
    """Nothing: a body's value that is not wanted."""


def source(kernel: Kernel, target: Target) -> str:
    """The IR text of a kernel for a CPU; its one function is called :data:`FUNCTION`."""
    return CpuSchedule(kernel, target).source()


def task_count(kernel: Kernel, extents: Sequence[int]) -> int:
    """Over how many tasks ``[begin, end)`` ranges for these loop extents."""
    if kernel.tiled:
        return _product(extents[:-2]) * block_count(extents[-2], extents[-1])
    if not any(kernel.reduced):
        return _product(extents if kernel.rank == 1 else extents[:-1])
    kept = [n for n, reduced in zip(extents, kernel.reduced, strict=True) if not reduced]
    if kernel.reduced[-1]:
        return _product(kept[:-1] if kernel.banded else kept)
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
    "ArgumentMap",
    "Operand",
    "source",
    "task_count",
]
