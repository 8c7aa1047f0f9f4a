"""Sort kernels: stable order of rows, NaN counting as greatest.

The data are dense: row ``r`` starts at ``r // stride * stride * length + r % stride`` and steps by
``stride``.  Each element becomes an unsigned key whose order is the order asked for; keys are
sorted together with their positions, by insertion where the row is short, else digit by digit (a
digit that is the same in all keys is passed over).  The elements of places ``first … first + count
- 1`` are then fetched from the source.  Where these are few, the keys that cannot be among them are
dropped before the rest is sorted.
"""

from __future__ import annotations

from flambeau.compiler.builder import (
    ARGS,
    BEGIN,
    END,
    I64,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
    module,
)
from flambeau.compiler.kernel_step import WORKSPACE, KernelStep, Pointer
from flambeau.compiler.selection import Selection
from flambeau.compiler.sort_digits import DIGITS, POSITION, Digits
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

# Rows up to this long are sorted by insertion.
_SHORT = 32
# Longer rows of which at most one in so many elements is wanted are narrowed before they are
# sorted.
_NARROWED = 256
_WANTED = 8
# Rows are dealt to at most so many tasks, each with a workspace of its own.
_MAX_TASKS = 32

_INFINITY_BITS = {
    types.float16: 0x7C00,
    types.bfloat16: 0x7F80,
    types.float32: 0x7F800000,
    types.float64: 0x7FF0000000000000,
}


class Sort:
    """Writes one sort kernel.

    Words: source, values, indices, workspace, its bytes per task, rows, tasks, length, stride,
    first, count.
    """

    def __init__(self, dtype: dtype, descending: bool) -> None:
        self.dtype = dtype
        self.descending = descending
        self.bits = dtype.itemsize * 8
        self.key = f"i{self.bits}"
        self.b = b = Builder()
        self.digits = Digits(b, self.key, dtype.itemsize)
        self.source, self.values = b.argument(ARGS, 0, PTR), b.argument(ARGS, 1, PTR)
        self.indices, self.workspace = b.argument(ARGS, 2, PTR), b.argument(ARGS, 3, PTR)
        self.task_bytes, self.rows, self.tasks = (b.argument(ARGS, k) for k in range(4, 7))
        self.length, self.stride = b.argument(ARGS, 7), b.argument(ARGS, 8)
        self.first, self.count = b.argument(ARGS, 9), b.argument(ARGS, 10)

    def text(self) -> str:
        self.b.loop(BEGIN, END, 1, [], self._task)
        return module([self.b.function("sort", KERNEL_PARAMETERS)], [self.b])

    def _task(self, number: Var, _: list[Var]) -> None:
        b = self.b
        start = b.div(b.mul(number, self.rows), self.tasks)
        stop = b.div(b.mul(b.add(number, 1), self.rows), self.tasks)
        self.digits.counters = b.gep("i8", self.workspace, b.mul(number, self.task_bytes))
        keys = b.gep(I64, self.digits.counters, DIGITS)
        bytes_of_keys = b.mul(self.length, self.dtype.itemsize)
        other_keys = b.gep("i8", keys, bytes_of_keys)
        positions = self._aligned(b.gep("i8", other_keys, bytes_of_keys))
        other_positions = b.gep(POSITION, positions, self.length)
        buffers = [keys, positions, other_keys, other_positions]
        b.loop(start, stop, 1, [], lambda row, _: self._row(row, buffers))

    def _aligned(self, pointer: Var) -> Var:
        b = self.b
        address = b.emit(I64, f"ptrtoint {pointer} to i64")
        address = b.and_(b.add(address, 7), -8)
        return b.emit(PTR, f"inttoptr {address} to ptr")

    def _row(self, row: Var, buffers: list[Var]) -> None:
        b = self.b
        block, within = b.div(row, self.stride), b.rem(row, self.stride)
        base = b.add(b.mul(block, b.mul(self.stride, self.length)), within)
        few = b.compare("sle", b.mul(self.count, _WANTED), self.length)
        few = b.and_(few, b.compare("sgt", self.length, _NARROWED))
        first_ones = b.compare("eq", self.first, 0)
        side_by_side = b.compare("eq", self.stride, 1)

        def selected() -> list[Var]:
            return [Selection(self, *buffers[:2]).emit(base), self.first]

        def loaded() -> list[Var]:
            self._load_keys(base, buffers)
            # Wanted are the first places, or a single one.
            narrow = b.and_(few, b.or_(first_ones, b.compare("eq", self.count, 1)))
            return b.if_else(
                narrow, lambda: self._narrowed(buffers), lambda: [self.length, self.first]
            )

        selects = b.and_(b.and_(few, first_ones), side_by_side)
        kept, first = b.if_else(selects, selected, loaded)
        short = b.compare("sle", kept, _SHORT)
        (positions,) = b.if_else(
            short, lambda: self._insertion(buffers, kept), lambda: self._radix(buffers, kept)
        )
        result = b.add(b.mul(block, b.mul(self.stride, self.count)), within)
        self._write(base, result, positions, first)

    # -- keys ----------------------------------------------------------------------------------

    def _load_keys(self, base: Var, buffers: list[Var]) -> None:
        b = self.b
        keys, positions = buffers[:2]
        size = self.dtype.itemsize

        def element(i: Var, _: list[Var]) -> None:
            address = b.gep(self.key, self.source, b.add(base, b.mul(i, self.stride)))
            key = self.key_of(b.load(self.key, address, size))
            b.store(key, b.gep(self.key, keys, i), size)
            b.store(b.convert("trunc", i, POSITION), b.gep(POSITION, positions, i), 4)

        b.loop(0, self.length, 1, [], element)

    def key_of(self, bits: Var) -> Var:
        """An unsigned number that orders as the element does."""
        b = self.b
        sign = -(1 << (self.bits - 1))
        infinity = _INFINITY_BITS.get(self.dtype)
        if infinity is not None:
            magnitude = b.and_(bits, ~sign)
            not_a_number = b.compare("ugt", magnitude, infinity)
            bits = b.select(b.compare("eq", magnitude, 0), 0, bits)  # -0 equals 0
            flipped = b.or_(b.ashr(bits, self.bits - 1), sign)
            key = b.select(not_a_number, -1, b.xor(bits, flipped))
        elif self.dtype.is_signed:
            key = b.xor(bits, sign)
        else:
            key = bits
        return b.xor(key, -1) if self.descending else key

    # -- narrowing -----------------------------------------------------------------------------

    def _narrowed(self, buffers: list[Var]) -> list[Var]:
        """Keeps, by the top two digits, what the wanted places can hold, in its order.

        How many are kept, and the first wanted place among them.
        """
        b = self.b
        kept, place = self.length, b.sub(b.add(self.first, self.count), 1)
        bound: Var | None = None
        for shift in range(self.bits - 8, max(self.bits - 24, -8), -8):
            self.digits.count(buffers[0], shift, kept, bound)
            digit, before = self.digits.of_place(place)
            bound = digit if bound is None else b.or_(b.shl(bound, 8), digit)
            kept = self._keep(buffers, shift, kept, bound)
            place = b.sub(place, before)
        # A single place lies in its digit's bucket alone; the first ones start at 0.
        return [kept, b.select(b.compare("eq", self.first, 0), self.first, place)]

    def _keep(self, buffers: list[Var], shift: int, length: Var, bound: Var) -> Var:
        """Drops keys whose leading digits are above ``bound``, or differ where one is wanted."""
        b = self.b
        keys, positions = buffers[:2]
        size = self.dtype.itemsize
        from_start = b.compare("eq", self.first, 0)

        def element(i: Var, carried: list[Var]) -> list[Var]:
            (kept,) = carried
            key = b.load(self.key, b.gep(self.key, keys, i), size)
            position = b.load(POSITION, b.gep(POSITION, positions, i), 4)
            b.store(key, b.gep(self.key, keys, kept), size)
            b.store(position, b.gep(POSITION, positions, kept), 4)
            leading = self.digits.leading(key, shift)
            below = b.and_(b.compare("ult", leading, bound), from_start)
            wanted = b.or_(below, b.compare("eq", leading, bound))
            return [b.add(kept, b.convert("zext", wanted, I64))]

        return b.loop(0, length, 1, [b.constant(0)], element)[1][0]

    # -- short rows ----------------------------------------------------------------------------

    def _insertion(self, buffers: list[Var], length: Var) -> list[Var]:
        b = self.b
        keys, positions = buffers[:2]
        size = self.dtype.itemsize

        def insert(i: Var, _: list[Var]) -> None:
            key = b.load(self.key, b.gep(self.key, keys, i), size)
            position = b.load(POSITION, b.gep(POSITION, positions, i), 4)
            place = self._shift_greater(keys, positions, i, key)
            b.store(key, b.gep(self.key, keys, place), size)
            b.store(position, b.gep(POSITION, positions, place), 4)

        b.loop(1, length, 1, [], insert)
        return [positions]

    def _shift_greater(self, keys: Var, positions: Var, i: Var, key: Var) -> Var:
        """Moves what is greater than ``key`` before ``i`` up by one; where ``key`` goes."""
        b = self.b
        size = self.dtype.itemsize
        head, compare, move, done = (b.fresh(n) for n in ("head", "compare", "move", "done"))
        before = b.block
        b.branch(head)
        b.label(head)
        place = Var(I64, "%" + b.fresh("place"))
        phi = len(b.lines)
        b.lines.append("")
        b.do(f"br {b.compare('sgt', place, 0)}, label %{compare}, label %{done}")
        b.label(compare)
        previous = b.sub(place, 1)
        other = b.load(self.key, b.gep(self.key, keys, previous), size)
        b.do(f"br {b.compare('ugt', other, key)}, label %{move}, label %{done}")
        b.label(move)
        b.store(other, b.gep(self.key, keys, place), size)
        moved = b.load(POSITION, b.gep(POSITION, positions, previous), 4)
        b.store(moved, b.gep(POSITION, positions, place), 4)
        b.branch(head)
        b.lines[phi] = f"  {place.name} = phi i64 [{i.name}, %{before}], [{previous.name}, %{move}]"
        b.label(done)
        return place

    # -- long rows -----------------------------------------------------------------------------

    def _radix(self, buffers: list[Var], length: Var) -> list[Var]:
        varying = self._varying(buffers[0], length)
        state = buffers
        for shift in range(0, self.bits, 8):
            state = self._pass(state, shift, length, varying)
        return [state[1]]

    def _varying(self, keys: Var, length: Var) -> Var:
        """The bits that are not the same in all keys."""
        b, size = self.b, self.dtype.itemsize
        first = b.load(self.key, keys, size)

        def element(i: Var, carried: list[Var]) -> list[Var]:
            key = b.load(self.key, b.gep(self.key, keys, i), size)
            return [b.or_(carried[0], b.xor(key, first))]

        return b.loop(0, length, 1, [b.zero(self.key)], element)[1][0]

    def _pass(self, state: list[Var], shift: int, length: Var, varying: Var) -> list[Var]:
        """Orders by one digit, from the first pair of buffers into the second; swaps them."""
        keys, positions, other_keys, other_positions = state

        def distribute() -> list[Var]:
            self.digits.count(keys, shift, length)
            self._distribute(state, shift, length)
            return [other_keys, other_positions, keys, positions]

        differs = self.b.compare("ne", self.digits.digit(varying, shift), 0)
        return self.b.if_else(differs, distribute, lambda: state)

    def _distribute(self, state: list[Var], shift: int, length: Var) -> None:
        b = self.b
        keys, positions, other_keys, other_positions = state
        size = self.dtype.itemsize

        def to_starts(digit: Var, carried: list[Var]) -> list[Var]:
            counter = self.digits.counter(digit)
            count = b.load(I64, counter, 8)
            b.store(carried[0], counter, 8)
            return [b.add(carried[0], count)]

        b.loop(0, DIGITS, 1, [b.constant(0)], to_starts)

        def move(i: Var, _: list[Var]) -> None:
            key = b.load(self.key, b.gep(self.key, keys, i), size)
            position = b.load(POSITION, b.gep(POSITION, positions, i), 4)
            counter = self.digits.counter(self.digits.digit(key, shift))
            place = b.load(I64, counter, 8)
            b.store(b.add(place, 1), counter, 8)
            b.store(key, b.gep(self.key, other_keys, place), size)
            b.store(position, b.gep(POSITION, other_positions, place), 4)

        b.loop(0, length, 1, [], move)

    # -- results -------------------------------------------------------------------------------

    def _write(self, base: Var, result: Var, positions: Var, first: Var) -> None:
        b = self.b
        size = self.dtype.itemsize

        def element(i: Var, _: list[Var]) -> None:
            place = b.gep(POSITION, positions, b.add(first, i))
            position = b.convert("zext", b.load(POSITION, place, 4), I64)
            source = b.add(base, b.mul(position, self.stride))
            target = b.add(result, b.mul(i, self.stride))
            value = b.load(self.key, b.gep(self.key, self.source, source), size)
            b.store(value, b.gep(self.key, self.values, target), size)
            b.store(position, b.gep(I64, self.indices, target), 8)

        b.loop(0, self.count, 1, [], element)


def plan_sort(
    dtype: dtype, descending: bool, rows: int, length: int, stride: int, first: int, count: int
) -> tuple[tuple[KernelStep, ...], int]:
    """The steps and the bytes of workspace.

    Operands ``source``, ``values`` (both ``dtype``) and ``indices`` (int64).
    """
    tasks = min(rows, _MAX_TASKS) if length and count else 0
    task_bytes = DIGITS * 8 + 2 * length * (dtype.itemsize + 4) + 64
    task_bytes = -(-task_bytes // 64) * 64
    step = KernelStep(
        f"sort {dtype.name}{' descending' * descending}",
        lambda: Sort(dtype, descending).text(),
        "sort",
        (
            Pointer("source"), Pointer("values"), Pointer("indices"), Pointer(WORKSPACE),
            task_bytes, rows, tasks, length, stride, first, count,
        ),
        tasks,
    )  # fmt: skip
    return (step,), task_bytes * tasks
