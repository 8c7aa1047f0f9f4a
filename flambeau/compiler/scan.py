"""Scan kernels: running sums, products and extremes along a dimension.

The data are ``(outer, length, inner)``, row-major.  Where ``inner`` is 1 a task is one row, walked
element by element; otherwise it is a vector of neighbouring columns walked together.  Sums and
products run in double precision for float32 and in float32 for half types, as PyTorch's do.
"""

from __future__ import annotations

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
    is_float,
    module,
    vector,
)
from flambeau.compiler.kernel_step import KernelStep, Pointer
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

SUMS = ("sum", "prod")
EXTREMES = ("max", "min")
_WIDTH = 16
_GRAIN = 16384


def accumulator_of(kind: str, dtype: dtype) -> dtype:
    """The type that the running value is kept in."""
    if kind in EXTREMES:
        return types.float32 if dtype in (types.float16, types.bfloat16) else dtype
    return {
        types.float32: types.float64,
        types.float16: types.float32,
        types.bfloat16: types.float32,
    }.get(dtype, dtype)


class _Scan:
    """Writes one scan kernel.  Words: source, result, indices, length, inner."""

    def __init__(self, kind: str, dtype: dtype, columns: bool, reverse: bool) -> None:
        self.kind = kind
        self.dtype = dtype
        self.running = accumulator_of(kind, dtype)
        self.columns = columns
        self.reverse = reverse
        self.width = _WIDTH if columns else 1
        self.b = b = Builder()
        self.source = b.argument(ARGS, 0, PTR)
        self.result = b.argument(ARGS, 1, PTR)
        self.indices = b.argument(ARGS, 2, PTR)
        self.length, self.inner = b.argument(ARGS, 3), b.argument(ARGS, 4)

    def text(self) -> str:
        self.b.loop(BEGIN, END, 1, [], self._task)
        return module([self.b.function("scan", KERNEL_PARAMETERS)], [self.b])

    def _task(self, number: Var, _: list[Var]) -> None:
        b = self.b
        if not self.columns:
            self._walk(b.mul(number, self.length), None)
            return
        blocks = b.div(b.add(self.inner, self.width - 1), self.width)
        first = b.mul(b.rem(number, blocks), self.width)
        base = b.add(b.mul(b.div(number, blocks), b.mul(self.length, self.inner)), first)
        self._walk(base, b.mask(b.sub(self.inner, first), self.width))

    def _walk(self, base: Var, mask: Var | None) -> None:
        """One row, or one vector of columns, from its first element to its last."""
        b, width = self.b, self.width
        start = [emit.identity(b, self.kind, self.running, emit.register_type(self.running, width))]
        if self.kind in EXTREMES:
            start.append(b.constant(0, vector(I64, width)))

        def step(number: Var, carried: list[Var]) -> list[Var]:
            place = b.sub(b.sub(self.length, number), 1) if self.reverse else number
            offset = b.add(base, b.mul(place, self.inner) if self.columns else place)
            element, size = self.dtype.llvm, self.dtype.itemsize
            raw = self._load(b.gep(element, self.source, offset), mask)
            value = emit.from_memory(b, raw, self.dtype)
            value = emit.convert(b, value, self.dtype, self.running)
            updated = self._combine(carried, value, place)
            stored = emit.convert(b, updated[0], self.running, self.dtype)
            stored = emit.to_memory(b, stored, self.dtype)
            self._store(stored, b.gep(element, self.result, offset), mask, size)
            if self.kind in EXTREMES:
                self._store(updated[1], b.gep(I64, self.indices, offset), mask, 8)
            return updated

        b.loop(0, self.length, 1, start, step)

    def _combine(self, carried: list[Var], value: Var, place: Var) -> list[Var]:
        b = self.b
        if self.kind in SUMS:
            return [emit.combine(b, self.kind, self.running, carried[0], value)]
        best, index = carried
        if is_float(best.type):
            at_least = b.compare("oge" if self.kind == "max" else "ole", value, best)
            replaces = b.or_(b.compare("uno", value, value), b.and_(at_least, self._ordered(best)))
        else:
            direction = "ge" if self.kind == "max" else "le"
            replaces = b.compare(("s" if self.dtype.is_signed else "u") + direction, value, best)
        place = b.splat(place, self.width)
        return [b.select(replaces, value, best), b.select(replaces, place, index)]

    def _ordered(self, value: Var) -> Var:
        return self.b.compare("ord", value, value)

    def _load(self, address: Var, mask: Var | None) -> Var:
        type_ = vector(self.dtype.llvm, self.width)
        if mask is None:
            return self.b.load(type_, address, self.dtype.itemsize)
        return self.b.masked_load(type_, address, mask, self.dtype.itemsize)

    def _store(self, value: Var, address: Var, mask: Var | None, size: int) -> None:
        if mask is None:
            self.b.store(value, address, size)
        else:
            self.b.masked_store(value, address, mask, size)


def plan_scan(
    kind: str, dtype: dtype, outer: int, length: int, inner: int, reverse: bool = False
) -> tuple[KernelStep, ...]:
    """Operands ``source`` and ``result``, of ``dtype``; for extremes also ``indices`` (int64)."""
    columns = inner > 1
    tasks = outer * (-(-inner // _WIDTH) if columns else 1) if length else 0
    indices = Pointer("indices") if kind in EXTREMES else 0
    step = KernelStep(
        f"scan {kind} {dtype.name} {'columns' if columns else 'rows'}{' reverse' * reverse}",
        lambda: _Scan(kind, dtype, columns, reverse).text(),
        "scan",
        (Pointer("source"), Pointer("result"), indices, length, inner),
        tasks,
        max(1, _GRAIN // max(length * (_WIDTH if columns else 1), 1)),
    )
    return (step,)
