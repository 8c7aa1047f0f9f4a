"""Pointwise kernels whose operands disagree on the contiguous loop: square tiles, transposed.

The innermost loop is contiguous for some operands, the one around it for those of the class
`TRANSPOSED`.  Both loops are cut into tiles of vectors.  A tile's transposed operands are read
along their own contiguous loop, transposed in registers and staged on the stack; the kernel's
instructions then run row by row as in any other schedule, and what they leave for transposed
results goes the same way back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flambeau.compiler.builder import BEGIN, END, I64, Var, vector
from flambeau.compiler.kernel import TRANSPOSED, UNIT
from flambeau.compiler.transposition import transpose

if TYPE_CHECKING:
    from flambeau.compiler.schedule import CpuSchedule

# A task is a block of this many rows and columns: whole cache lines on both sides, few pages.
BLOCK_ROWS = 64
BLOCK_COLUMNS = 256


def block_count(rows: int, columns: int) -> int:
    """Tasks over the two innermost loops."""
    return -(-rows // BLOCK_ROWS) * -(-columns // BLOCK_COLUMNS)


class TiledPointwise:
    """Writes the loops of one tiled kernel.  Rows are the last loop but one, columns the last."""

    def __init__(self, schedule: CpuSchedule) -> None:
        self.s = schedule
        self.b = schedule.b
        self.width = schedule.width
        kernel = schedule.kernel
        self.rows, self.columns = kernel.rank - 2, kernel.rank - 1
        operands = kernel.operands
        staged = [k for k, o in enumerate(operands) if o.inner == TRANSPOSED]
        used = {(i.operation, i.attribute) for i in kernel.instructions}
        self.loaded = [k for k in staged if ("load", k) in used]
        self.stored = [k for k in staged if ("store", k) in used]
        self.memory = {k: schedule.pointers[k] for k in staged}
        area = self.width * self.width
        self.stages = {
            k: self.b.emit("ptr", f"alloca [{area} x {operands[k].dtype.llvm}], align 64")
            for k in staged
        }

    def emit(self) -> None:
        # The schedule addresses a staged operand as if it were contiguous along the columns.
        self.s.contiguous = (UNIT, TRANSPOSED)
        for k, stage in self.stages.items():
            self.s.pointers[k] = stage
        self.b.loop(BEGIN, END, 1, [], self._block)

    def _block(self, task: Var, _: list[Var]) -> None:
        b = self.b
        rest, columns = self._range(task, self.columns, BLOCK_COLUMNS)
        rest, rows = self._range(rest, self.rows, BLOCK_ROWS)
        outer = range(self.rows)
        base = self.s.offsets(outer, self.s.decode(rest, outer) if outer else ())

        def column(j: Var, _: list[Var]) -> None:
            b.loop(
                rows[0], b.add(rows[1], self.width - 1), self.width, [],
                lambda i, _: self._tile(base, i, j, rows[1], columns[1]),
            )  # fmt: skip

        b.loop(columns[0], b.add(columns[1], self.width - 1), self.width, [], column)

    def _range(self, task: Var, loop: int, block: int) -> tuple[Var, tuple[Var, Var]]:
        """What is left of a task number, and where its block of ``loop`` starts and stops."""
        b, extent = self.b, self.s.extents[loop]
        blocks = b.emit(I64, f"udiv {b.add(extent, block - 1)}, {block}")
        number = b.emit(I64, f"urem {task}, {blocks.name}")
        rest = b.emit(I64, f"udiv {task}, {blocks.name}")
        start = b.mul(number, block)
        return rest, (start, b.min(b.add(start, block), extent))

    def _tile(self, base: Sequence[Var], i: Var, j: Var, last_row: Var, last_column: Var) -> None:
        b = self.b
        height, length = b.sub(last_row, i), b.sub(last_column, j)
        whole = b.and_(b.compare("sge", height, self.width), b.compare("sge", length, self.width))

        def full() -> list[Var]:
            self._run(base, i, j, _Whole(self, base, i, j))
            return []

        def partial() -> list[Var]:
            self._run(base, i, j, _Partial(self, base, i, j, height, length))
            return []

        b.if_else(whole, full, partial)

    def _run(self, base: Sequence[Var], i: Var, j: Var, tile: _Whole) -> None:
        """One tile: transposed operands in, the elements row by row, transposed results out."""
        b = self.b
        for k in self.loaded:
            tile.read(k)

        def row(r: Var, _: list[Var]) -> None:
            offsets = self.s.advance(base, self.rows, b.add(i, r))
            for k in self.stages:
                offsets[k] = b.sub(b.mul(r, self.width), j)
            instructions = self.s.levels.stages[0].instructions
            self.s.elements(instructions, offsets, j, tile.mask, self.width)

        b.loop(0, tile.height, 1, [], row)
        for k in self.stored:
            tile.write(k)


class _Whole:
    """Moves a tile's transposed operands where all of it lies inside the loops."""

    mask: Var | None = None

    def __init__(self, tiles: TiledPointwise, base: Sequence[Var], i: Var, j: Var) -> None:
        self.tiles, self.b = tiles, tiles.b
        self.base, self.i, self.j = base, i, j
        self.height = tiles.b.constant(tiles.width)

    def read(self, k: int) -> None:
        rows = self._columns(k, lambda address, size, type_: self.b.load(type_, address, size))
        self._stage(k, rows)

    def write(self, k: int) -> None:
        operand = self.tiles.s.kernel.operands[k]
        columns = transpose(self.b, self._staged(k), operand.dtype.itemsize)
        for c, value in enumerate(columns):
            self.b.store(value, self._address(k, self.b.constant(c)), operand.dtype.itemsize)

    def _columns(self, k: int, load: Callable[[Var, int, str], Var]) -> list[Var]:
        """The tile as it lies in memory, transposed."""
        operand = self.tiles.s.kernel.operands[k]
        size, type_ = operand.dtype.itemsize, vector(operand.dtype.llvm, self.tiles.width)
        columns = [
            load(self._address(k, self.b.constant(c)), size, type_) for c in range(self.tiles.width)
        ]
        return transpose(self.b, columns, size)

    def _address(self, k: int, c: Var) -> Var:
        """Where column ``c`` of the tile begins in memory."""
        b, tiles = self.b, self.tiles
        stride = tiles.s.strides[k][tiles.columns]
        offset = b.add(b.add(self.base[k], self.i), b.mul(b.add(self.j, c), stride))
        return b.gep(tiles.s.kernel.operands[k].dtype.llvm, tiles.memory[k], offset)

    def _place(self, k: int, r: Var | int) -> Var:
        """Where row ``r`` of the tile is staged."""
        width = self.tiles.width
        at = r * width if isinstance(r, int) else self.b.mul(r, width)
        return self.b.gep(self.tiles.s.kernel.operands[k].dtype.llvm, self.tiles.stages[k], at)

    def _stage(self, k: int, rows: Sequence[Var]) -> None:
        size = self.tiles.s.kernel.operands[k].dtype.itemsize
        for r, value in enumerate(rows):
            self.b.store(value, self._place(k, r), size)

    def _staged(self, k: int) -> list[Var]:
        operand = self.tiles.s.kernel.operands[k]
        type_ = vector(operand.dtype.llvm, self.tiles.width)
        size = operand.dtype.itemsize
        return [self.b.load(type_, self._place(k, r), size) for r in range(self.tiles.width)]


class _Partial(_Whole):
    """The same at the loops' ends, where a tile has fewer rows or columns."""

    def __init__(
        self, tiles: TiledPointwise, base: Sequence[Var], i: Var, j: Var, height: Var, length: Var
    ) -> None:
        super().__init__(tiles, base, i, j)
        b, width = tiles.b, tiles.width
        self.height, self.length = b.min(height, width), b.min(length, width)
        self.mask = b.mask(length, width)
        self.rows_mask = b.mask(height, width)

    def read(self, k: int) -> None:
        b, operand = self.b, self.tiles.s.kernel.operands[k]
        size, type_ = operand.dtype.itemsize, vector(operand.dtype.llvm, self.tiles.width)

        def column(c: Var, _: list[Var]) -> None:
            address = self._address(k, c)
            b.store(self._masked_load(type_, address, size), self._place(k, c), size)

        b.loop(0, self.length, 1, [], column)
        # Rows of the stage beyond the tile's columns are left from before; nobody uses them.
        self._stage(k, transpose(b, self._staged(k), size))

    def _masked_load(self, type_: str, address: Var, size: int) -> Var:
        if self.tiles.width == 1:
            return self.b.load(type_, address, size)
        return self.b.masked_load(type_, address, self.rows_mask, size)

    def write(self, k: int) -> None:
        b, operand = self.b, self.tiles.s.kernel.operands[k]
        size, type_ = operand.dtype.itemsize, vector(operand.dtype.llvm, self.tiles.width)
        self._stage(k, transpose(b, self._staged(k), size))

        def column(c: Var, _: list[Var]) -> None:
            value = b.load(type_, self._place(k, c), size)
            if self.tiles.width == 1:
                b.store(value, self._address(k, c), size)
            else:
                b.masked_store(value, self._address(k, c), self.rows_mask, size)

        b.loop(0, self.length, 1, [], column)
