"""The few least keys of a long row, without sorting it: what the sort kernels narrow a row to.

The row is read once, in vectors.  Keys that may be among the least go to a buffer; when it is full
it is cut down to the ``count`` least, exactly, and from then on only lesser keys than the greatest
of these are taken.  Of equal keys the earlier ones stay, and all keep their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambeau.compiler.builder import I64, Var, mangled, vector
from flambeau.compiler.sort_digits import POSITION

if TYPE_CHECKING:
    from flambeau.compiler.sorting import Sort

_WIDTH = 16
_VECTORS = 4
# The buffer's size; larger ones are cut down more rarely, smaller ones earlier.
_BUFFER = 1024


class Selection:
    """Writes the narrowing of one row of neighbouring elements."""

    def __init__(self, sort: Sort, keys: Var, positions: Var) -> None:
        self.s, self.b = sort, sort.b
        self.keys, self.positions = keys, positions

    def emit(self, base: Var) -> Var:
        """Leaves the least keys and their positions in the buffers; returns how many."""
        b, s = self.b, self.s
        step = _WIDTH * _VECTORS
        room = b.max(b.mul(s.count, 4), _BUFFER)
        self.most = b.sub(b.min(room, s.length), step)

        def block(i: Var, carried: list[Var]) -> list[Var]:
            return self._cut_if_full(self._block(base, i, carried))

        greatest = b.constant(-1, s.key)
        i, carried = b.loop(0, s.length, step, [b.constant(0), greatest], block)

        def tail(i: Var, carried: list[Var]) -> list[Var]:
            return self._vector(base, i, carried, b.mask(b.sub(s.length, i), _WIDTH))

        end = b.add(s.length, _WIDTH - 1)
        _, (kept, _) = b.loop(i, end, _WIDTH, carried, tail)
        return self._cut(kept)[0]

    def _cut_if_full(self, carried: list[Var]) -> list[Var]:
        b = self.b
        kept, _ = carried
        full = b.compare("sgt", kept, self.most)
        full = b.and_(full, b.compare("sgt", kept, b.mul(self.s.count, 2)))
        return b.if_else(full, lambda: self._cut(kept), lambda: carried)

    # -- reading -------------------------------------------------------------------------------

    def _block(self, base: Var, i: Var, carried: list[Var]) -> list[Var]:
        """Several vectors at once: most of them have nothing to give."""
        b = self.b
        kept, bound = carried
        parts = []
        found: Var | None = None
        for k in range(_VECTORS):
            at = b.add(i, k * _WIDTH)
            keys = self._keys(base, at, None)
            wanted = b.compare("ule", keys, b.splat(bound, _WIDTH))
            parts.append((keys, at, wanted))
            found = wanted if found is None else b.or_(found, wanted)
        assert found is not None

        def take() -> list[Var]:
            count = kept
            for keys, at, wanted in parts:
                count = self._append(keys, at, wanted, count)
            return [count]

        some = b.intrinsic(f"llvm.vector.reduce.or.v{_WIDTH}i1", "i1", found)
        return [*b.if_else(some, take, lambda: [kept]), bound]

    def _vector(self, base: Var, i: Var, carried: list[Var], mask: Var) -> list[Var]:
        b = self.b
        kept, bound = carried
        keys = self._keys(base, i, mask)
        wanted = b.and_(mask, b.compare("ule", keys, b.splat(bound, _WIDTH)))
        return [self._append(keys, i, wanted, kept), bound]

    def _keys(self, base: Var, i: Var, mask: Var | None) -> Var:
        b, s = self.b, self.s
        address, size = b.gep(s.key, s.source, b.add(base, i)), s.dtype.itemsize
        type_ = vector(s.key, _WIDTH)
        if mask is None:
            return s.key_of(b.load(type_, address, size))
        return s.key_of(b.masked_load(type_, address, mask, size))

    def _append(self, keys: Var, i: Var, wanted: Var, kept: Var) -> Var:
        b = self.b
        first = b.splat(b.convert("trunc", i, POSITION), _WIDTH)
        positions = b.add(first, b.lane_numbers(_WIDTH, POSITION))
        self._compress(keys, b.gep(self.s.key, self.keys, kept), wanted)
        self._compress(positions, b.gep(POSITION, self.positions, kept), wanted)
        bits = b.emit(f"i{_WIDTH}", f"bitcast {wanted} to i{_WIDTH}")
        return b.add(kept, b.convert("zext", b.unary("ctpop", bits), I64))

    def _compress(self, value: Var, address: Var, mask: Var) -> None:
        """Stores the lanes in the mask side by side."""
        name = f"llvm.masked.compressstore.{mangled(value.type)}"
        self.b.declarations.add(f"declare void @{name}({value.type}, ptr, {mask.type})")
        self.b.do(f"call void @{name}({value}, {address}, {mask})")

    # -- cutting down ----------------------------------------------------------------------------

    def _cut(self, kept: Var) -> list[Var]:
        """The ``count`` least of ``kept`` keys stay; how many, and the bound for more."""
        b, s = self.b, self.s
        place, before = b.sub(s.count, 1), b.constant(0)
        bound: Var | None = None
        for shift in range(s.bits - 8, -8, -8):
            s.digits.count(self.keys, shift, kept, bound)
            digit, lesser = s.digits.of_place(place)
            bound = digit if bound is None else b.or_(b.shl(bound, 8), digit)
            place, before = b.sub(place, lesser), b.add(before, lesser)
        assert bound is not None
        last = b.convert("trunc", bound, s.key)
        count = self._keep(kept, last, b.sub(s.count, before))
        return [count, b.sub(last, 1)]

    def _keep(self, kept: Var, last: Var, equal: Var) -> Var:
        """Keys below ``last`` stay, and the first ``equal`` ones that equal it."""
        b, s = self.b, self.s
        size = s.dtype.itemsize

        def element(i: Var, carried: list[Var]) -> list[Var]:
            count, left = carried
            key = b.load(s.key, b.gep(s.key, self.keys, i), size)
            position = b.load(POSITION, b.gep(POSITION, self.positions, i), 4)
            b.store(key, b.gep(s.key, self.keys, count), size)
            b.store(position, b.gep(POSITION, self.positions, count), 4)
            same = b.compare("eq", key, last)
            taken = b.and_(same, b.compare("sgt", left, 0))
            stays = b.convert("zext", b.or_(taken, b.compare("ult", key, last)), I64)
            return [b.add(count, stays), b.sub(left, b.convert("zext", taken, I64))]

        return b.loop(0, kept, 1, [b.constant(0), equal], element)[1][0]
