"""Segments: a run of recorded calls as one object, which a replay puts on the tape at once.

A path in the trie of calls (`tape.py`) means the same computation whenever it starts at the same
call and its slots stand for corresponding storages.  So a replay compares the cursor and binds
storages; it looks at no operator, no layout and no key, and what follows, fusion and plans
included, is what recording would have given.

The storages of a replay stand in an *environment*, a list; a segment names them by position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flambeau.core.device import device
from flambeau.engine.call import Call
from flambeau.engine.storage import Storage
from flambeau.engine.storage_fields import new_storage
from flambeau.engine.tape import Tape
from flambeau.engine.turns import IDLE, RECORDING, turns

Environment = list[Storage]


class NotRepeatable(Exception):
    """Why a captured run cannot be replayed."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What stands in a new slot: the environment's storage at ``position`` or, where ``nbytes`` is
    not negative, a fresh one, kept at ``position`` unless that is negative.
    """

    position: int
    nbytes: int
    device: device


class Segment:
    """The calls from behind ``start`` up to ``end``.

    ``expected`` are the storages, by position, that must be pending in given slots; those of
    ``bindings`` get the slots from ``first`` on and must not be pending.
    """

    __slots__ = ("bindings", "calls", "end", "expected", "first", "numbers", "start")

    def __init__(
        self,
        start: Call,
        end: Call,
        calls: int,
        first: int,
        expected: Sequence[tuple[int, int]],
        bindings: Sequence[Binding],
        numbers: Sequence[int | float],
    ) -> None:
        self.start = start
        self.end = end
        self.calls = calls
        self.first = first
        self.expected = tuple(expected)
        self.numbers = list(numbers)
        self.bindings = tuple((b.position, b.nbytes, b.device) for b in bindings)

    def joined(self, after: Segment) -> Segment:
        """This segment and the one that follows it, as one."""
        own = range(self.first, self.first + len(self.bindings))
        expected = self.expected + tuple(
            pair for pair in after.expected if pair[1] not in own and pair not in self.expected
        )
        whole = Segment(
            self.start,
            after.end,
            self.calls + after.calls,
            self.first,
            expected,
            (),
            self.numbers + after.numbers,
        )
        whole.bindings = self.bindings + after.bindings
        return whole

    def follows(self, before: Segment) -> bool:
        """Whether nothing but ``before`` stands between its start and this one's."""
        return self.start is before.end and self.first == before.first + len(before.bindings)

    def written(self) -> set[int]:
        """The slots that the calls write."""
        slots: set[int] = set()
        call: Call | None = self.end
        while call is not None and call is not self.start:
            slots.update(view.slot for view in call.writes)
            call = call.parent
        return slots

    def keep_only(self, needed: set[int]) -> None:
        """Lets go of fresh storages that nothing but the tape needs."""
        self.bindings = tuple(
            (k if nbytes < 0 or k in needed else -1, nbytes, where)
            for k, nbytes, where in self.bindings
        )

    def positions(self) -> set[int]:
        """The storages that must stand in the environment before."""
        outside = {k for k, nbytes, _ in self.bindings if nbytes < 0}
        return outside | {k for k, _ in self.expected}

    def fits(self, tape: Tape, environment: Environment) -> bool:
        """Whether `put` would succeed; changes nothing.

        Storages that are still to be made (None) will fit.
        """
        if tape.cursor is not self.start or len(tape.slots) != self.first:
            return False
        for k, slot in self.expected:
            storage = environment[k]
            if storage.slot != slot or storage.tape is not tape:
                return False
        given = [environment[k] for k, nbytes, _ in self.bindings if nbytes < 0]
        outside = [storage for storage in given if storage is not None]
        if len(set(map(id, outside))) != len(outside):
            return False
        return all(storage.tape is None for storage in outside)

    def put(self, tape: Tape, environment: Environment) -> bool:
        """Records the calls; False, with nothing done, where tape or storages do not fit."""
        if turns.several:
            self._free_from_others(tape, environment)
        tape.busy = RECORDING
        if tape.flushing:
            tape.wait_turn()
        if tape.cursor is not self.start or len(tape.slots) != self.first:
            tape.busy = IDLE
            return False
        for k, slot in self.expected:
            storage = environment[k]
            if storage.slot != slot or storage.tape is not tape:
                tape.busy = IDLE
                return False
        if turns.several:
            with turns.bind_lock:
                fitting = self._bind(tape, environment)
        else:
            fitting = self._bind(tape, environment)
        if not fitting:
            self._take_back(tape)
            return False
        tape.cursor = self.end
        if self.numbers:
            tape.scalars += self.numbers
        tape.busy = IDLE
        tape.remaining -= self.calls
        if tape.remaining <= 0:
            tape.flush()
        return True

    def _bind(self, tape: Tape, environment: Environment) -> bool:
        slots = tape.slots
        slot = self.first
        for k, nbytes, where in self.bindings:
            if nbytes < 0:
                storage = environment[k]
                if storage.tape is not None:
                    return False
                if storage.exports or storage.is_exported():
                    tape.remaining = 0
            else:
                storage = new_storage(Storage)
                storage.nbytes = nbytes
                storage.device = where
                storage.block = None
                storage.version = 0
                storage.exports = 0
                if k >= 0:
                    environment[k] = storage
            storage.slot = slot
            storage.tape = tape
            slots.append(storage)
            slot += 1
        return True

    def _free_from_others(self, tape: Tape, environment: Environment) -> None:
        """Runs what other threads have pending on these storages."""
        for k, nbytes, _ in self.bindings:
            if nbytes >= 0:
                continue
            storage = environment[k]
            other = storage.tape
            while other is not None and other is not tape:
                other.flush()
                other = storage.tape

    def _take_back(self, tape: Tape) -> None:
        for storage in tape.slots[self.first :]:
            storage.slot = -1
            storage.tape = None
        del tape.slots[self.first :]
        tape.busy = IDLE

    def __repr__(self) -> str:
        return f"<segment of {self.calls} calls up to {self.end!r}>"


class Place:
    """Where a tape stands, what a segment can start from; without a tape the start of one."""

    __slots__ = ("call", "numbers", "slots")

    def __init__(self, tape: Tape | None) -> None:
        self.call = None if tape is None else tape.cursor
        self.slots = 0 if tape is None else len(tape.slots)
        self.numbers = 0 if tape is None else len(tape.scalars)


def cut(
    tape: Tape,
    place: Place,
    position_of: Callable[[Storage], int | None],
    add: Callable[[Storage], int],
) -> Segment | None:
    """The segment recorded since ``place``; None where there is none.

    ``position_of`` knows storages of the environment, ``add`` makes positions for new results.
    Raises `NotRepeatable` where a storage is used that the environment does not know.
    """
    start, calls = _calls_since(tape, place)
    if not calls:
        if len(tape.slots) != place.slots:
            raise NotRepeatable("an operation failed half-way")
        return None
    results: set[int] = set()
    touched: set[int] = set()
    for call in calls:
        slots = [view.slot for view in call.writes]
        touched.update(slots, [view.slot for view in call.reads])
        if call.outputs:
            results.update(slots)
    bindings = []
    for slot in range(place.slots, len(tape.slots)):
        storage = tape.slots[slot]
        if storage.is_exported():
            raise NotRepeatable("works on memory that numpy or another library sees now")
        if slot in results:
            bindings.append(Binding(add(storage), storage.nbytes, storage.device))
            continue
        known = position_of(storage)
        if known is None:
            raise NotRepeatable("uses a tensor that it does not reach through its own variables")
        bindings.append(Binding(known, -1, storage.device))
    expected = []
    for slot in sorted(s for s in touched if 0 <= s < place.slots):
        known = position_of(tape.slots[slot])
        if known is None:
            raise NotRepeatable("uses a tensor that it does not reach through its own variables")
        expected.append((known, slot))
    numbers = tape.scalars[place.numbers :]
    return Segment(start, tape.cursor, len(calls), place.slots, expected, bindings, numbers)


def _calls_since(tape: Tape, place: Place) -> tuple[Call, list[Call]]:
    """The call that the first of them followed, and the calls."""
    calls = []
    call = tape.cursor
    while call is not place.call and call.parent is not None:
        calls.append(call)
        call = call.parent
    if place.call is not None and call is not place.call:
        raise NotRepeatable("the tape was run in between")
    return call, calls[::-1]
