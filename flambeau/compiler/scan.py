"""Scan kernels: running sums, products and extremes along a dimension.

The data are ``(outer, length, inner)``, row-major.  They fall into *lines*, each walked from its
first element to its last with a running value: whole rows or columns, or, where these are few and
long, chunks of them.  Chunked, the lines' totals are taken first and combined in order into what
each line starts from; how a row is cut depends on the shape alone.  Sums and products run in double
precision for float32 and in float32 for half types, as PyTorch's do.

A vector holds one element of each of several lines: neighbouring columns as they lie in memory, or
elements of different rows, brought together by transposing tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from flambeau.compiler import emit
from flambeau.compiler.builder import (
    ARGS,
    BEGIN,
    END,
    I64,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
    element_type,
    is_float,
    module,
    vector,
)
from flambeau.compiler.kernel import INFINITY
from flambeau.compiler.kernel_step import WORKSPACE, KernelStep, Pointer
from flambeau.compiler.math_exponential import log_of_sum
from flambeau.compiler.transposition import transpose
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

# Inside a class that has a member ``dtype`` that name means the member.
ElementType: TypeAlias = dtype

SUMS = ("sum", "prod")
LOG_OF_SUM = "logsum"
EXTREMES = ("max", "min")
# Lines in a vector; a wide one fills whole cache lines several times over, for long strides.
_WIDTHS = {"single": 1, "tiles": 16, "columns": 16, "wide": 64}
_GRAIN = 16384
# Rows are cut into chunks of at least this many elements until there are enough lines.
_CHUNK = 512
_LINES = 64
_COLUMN_TASKS = 4
# From so many lines on, tiles pay.
_FEW = 4


def accumulator_of(kind: str, dtype: dtype) -> dtype:
    """The type that the running value is kept in."""
    if kind in EXTREMES:
        return types.float32 if dtype in (types.float16, types.bfloat16) else dtype
    return {
        types.float32: types.float64,
        types.float16: types.float32,
        types.bfloat16: types.float32,
    }.get(dtype, dtype)


@dataclass(frozen=True)
class _Variant:
    """What decides a kernel's code.

    ``lines``: ``columns`` side by side (``wide`` where there are many), rows in ``tiles``, or
    ``single`` ones.  ``part``: ``all``
    of the work, the ``totals`` of lines, or the rest of it, ``started`` from given values.
    """

    kind: str
    dtype: ElementType
    reverse: bool
    lines: str
    part: str

    @property
    def running(self) -> ElementType:
        return accumulator_of(self.kind, self.dtype)

    @property
    def state_bytes(self) -> int:
        """Of one line's running value (and index)."""
        return 16 if self.kind in EXTREMES else 8

    @property
    def key(self) -> str:
        reverse = " reverse" * self.reverse
        return f"scan {self.kind} {self.dtype.name} {self.lines} {self.part}{reverse}"


class _Running:
    """The running values of as many lines as a vector has lanes, and their states in memory."""

    states: Var
    lines: Var

    def __init__(self, variant: _Variant, width: int) -> None:
        self.v = variant
        self.kind, self.dtype, self.running = variant.kind, variant.dtype, variant.running
        self.width = width
        self.b = Builder()

    def identity(self) -> list[Var]:
        b, width = self.b, self.width
        type_ = emit.register_type(self.running, width)
        if self.kind == LOG_OF_SUM:
            return [b.constant(-INFINITY, type_)]
        start = [emit.identity(b, self.kind, self.running, type_)]
        if self.kind in EXTREMES:
            start.append(b.constant(0, vector(I64, width)))
        return start

    def load_states(self, line: Var, mask: Var | None) -> list[Var]:
        """The states of the lines from number ``line`` on."""
        b = self.b
        states = []
        for k, neutral in enumerate(self.identity()):
            memory = vector(_memory(neutral.type), self.width)
            if mask is None or self.width == 1:
                value = b.load(memory, self._state(k, line), _size(element_type(memory)))
            else:
                value = b.masked_load(
                    memory, self._state(k, line), mask, _size(element_type(memory))
                )
            # A bool sits in a register as i1: its state is a byte.
            states.append(value if memory == neutral.type else b.compare("ne", value, 0))
        return states

    def store_states(self, states: list[Var], line: Var, mask: Var | None) -> None:
        b = self.b
        for k, value in enumerate(states):
            if element_type(value.type) == "i1":
                value = b.convert("zext", value, "i8")
            if mask is None or self.width == 1:
                b.store(value, self._state(k, line), _size(element_type(value.type)))
            else:
                b.masked_store(value, self._state(k, line), mask, _size(element_type(value.type)))

    def _state(self, k: int, line: Var) -> Var:
        """Where a line's value (0) or index (1) is kept: all values first, 8 bytes each at most."""
        if k == 0:
            return self.b.gep(_memory(emit.REGISTER[self.running]), self.states, line)
        return self.b.gep(I64, self.states, self.b.add(self.lines, line))

    def step(self, carried: list[Var], following: list[Var]) -> list[Var]:
        """The running value after the ``following`` one (a value, and for extremes its index)."""
        b = self.b
        value = following[0]
        if self.kind in SUMS:
            return [emit.combine(b, self.kind, self.running, carried[0], value)]
        if self.kind == LOG_OF_SUM:
            kinds = [self.running] * 2
            return emit.emit_function(b, log_of_sum, [carried[0], value], kinds, self.width)
        best, index = carried
        if is_float(best.type):
            at_least = b.compare("oge" if self.kind == "max" else "ole", value, best)
            ordered = b.and_(at_least, b.compare("ord", best, best))
            replaces = b.or_(b.compare("uno", value, value), ordered)
        else:
            direction = "ge" if self.kind == "max" else "le"
            replaces = b.compare(("s" if self.dtype.is_signed else "u") + direction, value, best)
        return [b.select(replaces, value, best), b.select(replaces, following[1], index)]


class _Scan(_Running):
    """Writes one scan kernel.

    Words: source, result, indices, states, length, inner, chunk, chunks per row, lines.
    """

    def __init__(self, variant: _Variant) -> None:
        super().__init__(variant, _WIDTHS[variant.lines])
        b = self.b
        self.source, self.result = b.argument(ARGS, 0, PTR), b.argument(ARGS, 1, PTR)
        self.indices, self.states = b.argument(ARGS, 2, PTR), b.argument(ARGS, 3, PTR)
        self.length, self.inner = b.argument(ARGS, 4), b.argument(ARGS, 5)
        self.chunk, self.chunks = b.argument(ARGS, 6), b.argument(ARGS, 7)
        self.lines = b.argument(ARGS, 8)

    def text(self) -> str:
        task = self._tiles if self.v.lines == "tiles" else self._line
        if self.v.lines == "tiles":
            self._allocate()
        self.b.loop(BEGIN, END, 1, [], lambda number, _: task(number))
        return module([self.b.function("scan", KERNEL_PARAMETERS)], [self.b])

    def _start(self, first: Var, mask: Var | None) -> list[Var]:
        """What the lines from number ``first`` on start from."""
        return self.load_states(first, mask) if self.v.part == "started" else self.identity()

    def _step(self, carried: list[Var], raw: Var, place: Var) -> list[Var]:
        """The running values after the elements ``raw`` at ``place`` of their rows."""
        value = emit.from_memory(self.b, raw, self.dtype)
        value = emit.convert(self.b, value, self.dtype, self.running)
        return self.step(carried, [value, place])

    def _stored(self, running: Var) -> Var:
        value = emit.convert(self.b, running, self.running, self.dtype)
        return emit.to_memory(self.b, value, self.dtype)

    # -- columns and single rows -----------------------------------------------------------------

    def _line(self, number: Var) -> None:
        """A vector of neighbouring columns (or one row), in one chunk."""
        b, width = self.b, self.width
        blocks = b.div(b.add(self.inner, width - 1), width)
        first = b.mul(b.rem(number, blocks), width)
        line = b.div(number, blocks)
        mask = None if width == 1 else b.mask(b.sub(self.inner, first), width)
        start = b.mul(b.rem(line, self.chunks), self.chunk)
        count = b.min(self.chunk, b.sub(self.length, start))
        row = b.mul(b.div(line, self.chunks), b.mul(self.length, self.inner))
        base = b.add(b.add(row, b.mul(start, self.inner)), first)
        state = b.add(b.mul(line, self.inner), first)

        def step(number: Var, carried: list[Var]) -> list[Var]:
            within = b.sub(b.sub(count, number), 1) if self.v.reverse else number
            offset = b.add(base, b.mul(within, self.inner))
            raw = self._load(self.source, offset, mask)
            place = b.splat(b.add(start, within), width)
            updated = self._step(carried, raw, place)
            if self.v.part != "totals":
                self._store(self._stored(updated[0]), self.result, offset, mask)
                if self.kind in EXTREMES:
                    self._store(updated[1], self.indices, offset, mask)
            return updated

        _, totals = b.loop(0, count, 1, self._start(state, mask), step)
        if self.v.part == "totals":
            self.store_states(totals, state, mask)

    def _load(self, base: Var, offset: Var, mask: Var | None) -> Var:
        element, size = self.dtype.llvm, self.dtype.itemsize
        type_, address = vector(element, self.width), self.b.gep(element, base, offset)
        if mask is None or self.width == 1:
            return self.b.load(type_, address, size)
        return self.b.masked_load(type_, address, mask, size)

    def _store(self, value: Var, base: Var, offset: Var, mask: Var | None) -> None:
        element = element_type(value.type)
        address, size = self.b.gep(element, base, offset), _size(element)
        if mask is None or self.width == 1:
            self.b.store(value, address, size)
        else:
            self.b.masked_store(value, address, mask, size)

    # -- rows in tiles ---------------------------------------------------------------------------

    def _allocate(self) -> None:
        """Room on the stack for a tile of elements and of indices, and for where lines are."""
        b, area = self.b, self.width * self.width
        self.stage = b.emit(PTR, f"alloca [{area} x {self.dtype.llvm}], align 64")
        self.index_stage = b.emit(PTR, f"alloca [{area} x i64], align 64")
        self.bases = b.emit(PTR, f"alloca [{self.width} x i64], align 64")
        self.counts = b.emit(PTR, f"alloca [{self.width} x i64], align 64")

    def _tiles(self, number: Var) -> None:
        """As many lines as a vector has lanes, tile by tile."""
        b, width = self.b, self.width
        first = b.mul(number, width)
        numbers = b.add(b.splat(first, width), b.lane_numbers(width, I64))
        alive = b.compare("slt", numbers, b.splat(self.lines, width))

        def place_line(lane: Var, carried: list[Var]) -> list[Var]:
            line = b.min(b.add(first, lane), b.sub(self.lines, 1))
            start = b.mul(b.rem(line, self.chunks), self.chunk)
            count = b.min(self.chunk, b.sub(self.length, start))
            within = b.compare("slt", b.add(first, lane), self.lines)
            count = b.select(within, count, 0)
            base = b.add(b.mul(b.div(line, self.chunks), self.length), start)
            b.store(base, b.gep(I64, self.bases, lane), 8)
            b.store(count, b.gep(I64, self.counts, lane), 8)
            return [b.min(carried[0], count), b.max(carried[1], count)]

        most = b.constant(1 << 62)
        _, (least, longest) = b.loop(0, width, 1, [most, b.constant(0)], place_line)
        self.count_vector = b.load(vector(I64, width), self.counts, 64)
        chunk_numbers = b.emit(numbers.type, f"srem {numbers}, {b.splat(self.chunks, width).name}")
        self.starts = b.mul(chunk_numbers, b.splat(self.chunk, width))
        tiles = b.div(b.add(longest, width - 1), width)

        def tile(turn: Var, carried: list[Var]) -> list[Var]:
            at = b.sub(b.sub(tiles, turn), 1) if self.v.reverse else turn
            at = b.mul(at, width)
            whole = b.compare("sle", b.add(at, width), least)
            return b.if_else(
                whole, lambda: self._tile(at, carried, False), lambda: self._tile(at, carried, True)
            )

        _, totals = b.loop(0, tiles, 1, self._start(first, alive), tile)
        if self.v.part == "totals":
            self.store_states(totals, first, alive)

    def _tile(self, at: Var, carried: list[Var], partial: bool) -> list[Var]:
        """Elements ``at … at + width - 1`` of each line; ``partial`` where some have fewer."""
        b, width = self.b, self.width
        self._read_tile(at, partial)

        def column(turn: Var, before: list[Var]) -> list[Var]:
            c = b.sub(width - 1, turn) if self.v.reverse else turn
            address = b.gep(self.dtype.llvm, self.stage, b.mul(c, width))
            raw = b.load(vector(self.dtype.llvm, width), address, self.dtype.itemsize)
            within = b.splat(b.add(at, c), width)
            after = self._step(before, raw, b.add(self.starts, within))
            if partial:
                inside = b.compare("slt", within, self.count_vector)
                after = [b.select(inside, x, y) for x, y in zip(after, before, strict=True)]
            if self.v.part != "totals":
                b.store(self._stored(after[0]), address, self.dtype.itemsize)
            if self.kind in EXTREMES and self.v.part != "totals":
                b.store(after[1], b.gep(I64, self.index_stage, b.mul(c, width)), 8)
            return after

        _, carried = b.loop(0, width, 1, carried, column)
        if self.v.part != "totals":
            self._write_tile(self.result, self.stage, self.dtype.llvm, at, partial)
            if self.kind in EXTREMES:
                self._write_tile(self.indices, self.index_stage, I64, at, partial)
        return carried

    def _read_tile(self, at: Var, partial: bool) -> None:
        b, width = self.b, self.width
        element, size = self.dtype.llvm, self.dtype.itemsize
        type_ = vector(element, width)
        if partial:

            def line(lane: Var, _: list[Var]) -> None:
                address, mask = self._line_part(self.source, element, lane, at)
                value = b.masked_load(type_, address, mask, size)
                b.store(value, b.gep(element, self.stage, b.mul(lane, width)), size)

            b.loop(0, width, 1, [], line)
            rows = self._staged(self.stage, element)
        else:
            rows = [
                b.load(type_, self._line_address(self.source, element, b.constant(r), at), size)
                for r in range(width)
            ]
        self._restage(self.stage, element, transpose(b, rows, size))

    def _write_tile(self, base: Var, stage: Var, element: str, at: Var, partial: bool) -> None:
        b, width, size = self.b, self.width, _size(element)
        rows = transpose(b, self._staged(stage, element), size)
        if not partial:
            for r, value in enumerate(rows):
                b.store(value, self._line_address(base, element, b.constant(r), at), size)
            return
        self._restage(stage, element, rows)

        def line(lane: Var, _: list[Var]) -> None:
            address, mask = self._line_part(base, element, lane, at)
            place = b.gep(element, stage, b.mul(lane, width))
            b.masked_store(b.load(vector(element, width), place, size), address, mask, size)

        b.loop(0, width, 1, [], line)

    def _line_address(self, base: Var, element: str, lane: Var, at: Var) -> Var:
        b = self.b
        start = b.load(I64, b.gep(I64, self.bases, lane), 8)
        return b.gep(element, base, b.add(start, at))

    def _line_part(self, base: Var, element: str, lane: Var, at: Var) -> tuple[Var, Var]:
        """Where a line's part of the tile is, and which elements it has."""
        b = self.b
        count = b.load(I64, b.gep(I64, self.counts, lane), 8)
        return self._line_address(base, element, lane, at), b.mask(b.sub(count, at), self.width)

    def _staged(self, stage: Var, element: str) -> list[Var]:
        b, width = self.b, self.width
        return [
            b.load(vector(element, width), b.gep(element, stage, r * width), _size(element))
            for r in range(width)
        ]

    def _restage(self, stage: Var, element: str, rows: list[Var]) -> None:
        for r, value in enumerate(rows):
            self.b.store(value, self.b.gep(element, stage, r * self.width), _size(element))


class _Carries(_Running):
    """Turns the totals of a row's chunks into what each chunk starts from.

    Words: states, chunks, inner, lines.  A task is one row or column.
    """

    def __init__(self, variant: _Variant) -> None:
        super().__init__(variant, 1)
        b = self.b
        self.states, self.lines = b.argument(ARGS, 0, PTR), b.argument(ARGS, 3)
        self.chunks, self.inner = b.argument(ARGS, 1), b.argument(ARGS, 2)

    def text(self) -> str:
        self.b.loop(BEGIN, END, 1, [], lambda number, _: self._row(number))
        return module([self.b.function("carries", KERNEL_PARAMETERS)], [self.b])

    def _row(self, number: Var) -> None:
        b = self.b
        outer, column = b.div(number, self.inner), b.rem(number, self.inner)
        base = b.add(b.mul(outer, b.mul(self.chunks, self.inner)), column)

        def chunk(turn: Var, carried: list[Var]) -> list[Var]:
            at = b.sub(b.sub(self.chunks, turn), 1) if self.v.reverse else turn
            line = b.add(base, b.mul(at, self.inner))
            total = self.load_states(line, None)
            self.store_states(carried, line, None)
            return self.step(carried, total)

        b.loop(0, self.chunks, 1, self.identity(), chunk)


def _size(element: str) -> int:
    return {"half": 2, "bfloat": 2, "float": 4, "double": 8}.get(element) or int(element[1:]) // 8


def _memory(register: str) -> str:
    """The type that a running value is kept as between kernels."""
    element = element_type(register)
    return "i8" if element == "i1" else element


def plan_scan(
    kind: str, dtype: dtype, outer: int, length: int, inner: int, reverse: bool = False
) -> tuple[tuple[KernelStep, ...], int]:
    """The steps and the bytes of workspace.

    Operands ``source`` and ``result``, of ``dtype``; for extremes also ``indices`` (int64).
    """
    if not outer * length * inner:
        return (), 0
    chunk = _chunk(outer, length, inner)
    chunks = -(-length // chunk)
    rows = outer * chunks
    if inner > 1:
        lines = _columns(inner)
    else:
        lines = "tiles" if rows >= _FEW else "single"

    def variant(part: str) -> _Variant:
        return _Variant(kind, dtype, reverse, lines, part)

    if chunks == 1:
        return (_scan_step(variant("all"), rows, length, inner, chunk, 1),), 0
    one = variant("totals")
    carries = KernelStep(
        f"carries of {one.key}", lambda: _Carries(one).text(), "carries",
        (Pointer(WORKSPACE), chunks, inner, rows * inner), outer * inner,
    )  # fmt: skip
    steps = (
        _scan_step(one, rows, length, inner, chunk, chunks),
        carries,
        _scan_step(variant("started"), rows, length, inner, chunk, chunks),
    )
    return steps, rows * inner * one.state_bytes


def _chunk(outer: int, length: int, inner: int) -> int:
    """How long a chunk is: the whole length where there are lines enough."""
    if inner > 1:
        wanted = _COLUMN_TASKS // (outer * -(-inner // _WIDTHS[_columns(inner)]))
    else:
        wanted = _LINES // outer
    count = max(1, min(wanted, length // _CHUNK))
    if count < _FEW and inner == 1:
        count = 1
    return -(-length // count)


def _columns(inner: int) -> str:
    return "wide" if inner >= _WIDTHS["wide"] else "columns"


def _scan_step(
    variant: _Variant, rows: int, length: int, inner: int, chunk: int, chunks: int
) -> KernelStep:
    width = _WIDTHS[variant.lines]
    tasks = -(-rows // width) if variant.lines == "tiles" else rows * -(-inner // width)
    indices = Pointer("indices") if variant.kind in EXTREMES else 0
    states = Pointer(WORKSPACE) if variant.part != "all" else 0
    return KernelStep(
        variant.key, lambda: _Scan(variant).text(), "scan",
        (
            Pointer("source"), Pointer("result"), indices, states,
            length, inner, chunk, chunks, rows * inner,
        ),
        tasks,
        max(1, _GRAIN // (chunk * width)),
    )  # fmt: skip
