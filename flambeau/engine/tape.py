"""The tape: calls in program order, recorded by walking a trie of calls recorded before.

The cursor stands on the last recorded call.  Recording compares the new call's key with the child
that followed last time; on a match nothing is inferred, hashed or built.  A key names everything
that the call's meaning depends on: operator, the next free slot, slots and layouts of operands,
static arguments.  Python numbers are not in it; they are collected in ``scalars`` for the plan.

An exception or an interrupt between two statements of a recording function leaves at most a bound
slot that no call mentions: results get their slots, then the cursor moves.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from sys import getrefcount
from threading import get_ident
from typing import Any

from flambeau.backend.allocator import ExternalBlock
from flambeau.core.config import config, listeners
from flambeau.engine.call import Call
from flambeau.engine.lost import LostBlock
from flambeau.engine.plan import CallByCall, Plan
from flambeau.engine.storage import Storage
from flambeau.engine.storage_fields import StorageFields
from flambeau.engine.turns import (
    IDLE,
    RECORDING,
    WAITING,
    ThreadState,
    turns,
    wait_until_consistent,
)

# A trie that grew past this many calls (ever new shapes, ever new programs) loses its oldest paths.
MAX_CALLS = 30_000
# Plans for one path, which differ in the storages that were alive; more are not a pattern.
_MAX_PLANS = 16


class Tape:
    """One thread's pending calls.  ``slots`` holds every storage that they touch.

    ``grad_enabled`` is the thread's switch of recording for backward (`graph.grad_mode`); it lies
    here because every operator has the tape at hand.

    ``busy`` and ``flushing`` (the flushing thread's number, or 0) keep owner and flushers apart;
    see `turns.py`.
    """

    __slots__ = (
        "busy",
        "calls_known",
        "cursor",
        "flushing",
        "grad_enabled",
        "last_plan",
        "owner",
        "paths",
        "remaining",
        "root",
        "scalars",
        "slots",
    )  # fmt: skip

    def __init__(self) -> None:
        self.root = Call("start", None)
        self.calls_known = 0
        self.cursor = self.root
        # Where plans were made, oldest first.
        self.paths: deque[Call] = deque()
        self.slots: list[Any] = []
        self.scalars: list[int | float] = []
        self.grad_enabled = True
        self.remaining = config.window
        self.last_plan: Plan | CallByCall | None = None
        self.busy = IDLE
        self.flushing = 0
        self.owner = get_ident()

    # -- recording: only the owner, between busy = RECORDING and busy = IDLE ---------------------

    def wait_turn(self) -> None:
        """Called by the owner, who wants to record while somebody flushes."""
        while self.flushing:
            if self.flushing == get_ident():
                raise RuntimeError(
                    "a tensor operation was called while the same thread was running pending "
                    "operations (from a signal handler or a finalizer)"
                )
            self.busy = IDLE
            with turns.run_lock:
                pass
            self.busy = RECORDING

    def bind(self, storage: StorageFields) -> int:
        """Gives a storage that is on no tape, or another thread's, a slot; one that the outside can
        see makes the tape run after this call.
        """
        if turns.several:
            return self._bind_shared(storage)
        if storage.exports:
            self.remaining = 0
        elif storage.block.__class__ is ExternalBlock:
            external: Any = storage
            if external.is_exported():
                self.remaining = 0
        slots = self.slots
        slot = storage.slot = len(slots)
        slots.append(storage)
        storage.tape = self
        return slot

    def _bind_shared(self, storage: Any) -> int:
        """The same among several threads: work pending on another tape is done first."""
        while True:
            with turns.bind_lock:
                other = storage.tape
                slot: int = storage.slot
                if other is self:
                    return slot
                if other is None:
                    if storage.is_exported():
                        self.remaining = 0
                    slot = len(self.slots)
                    storage.slot = slot
                    self.slots.append(storage)
                    storage.tape = self
                    return slot
            self.busy = WAITING
            try:
                other.flush()
            finally:
                self.busy = RECORDING
                if self.flushing:
                    self._wait_within_call()

    def _wait_within_call(self) -> None:
        while self.flushing:
            self.busy = WAITING
            with turns.run_lock:
                pass
            self.busy = RECORDING

    def advance(self, key: Any, build: Callable[[], Call]) -> Call:
        """The call of that key after the cursor, where the last visit did not expect it.

        ``build`` infers and checks; what it raises leaves the tape as it was.  The caller moves the
        cursor, after it gave the results their slots.
        """
        cursor = self.cursor
        call = cursor.children.get(key)
        if call is None:
            try:
                call = build()
            except BaseException:
                self.busy = IDLE
                raise
            call.key = key
            call.parent = cursor
            cursor.children[key] = call
            self.calls_known += 1
        cursor.next = call
        return call

    def recorded(self) -> list[Call]:
        """The pending calls, oldest first."""
        calls = []
        call: Call | None = self.cursor
        while call is not None and call is not self.root:
            calls.append(call)
            call = call.parent
        return calls[::-1]

    # -- flushing: any thread ---------------------------------------------------------------------

    def flush(self) -> None:
        """Runs everything pending; from another thread, when it is that thread's turn."""
        if not self.slots:
            return
        me = get_ident()
        if turns.several or self.owner != me:
            self._flush_in_turn(me)
            return
        self.busy = RECORDING
        if turns.several:
            self._flush_in_turn(me)  # type: ignore[unreachable]  # another thread may have come
            return
        if self.flushing:
            self._refuse()
        self.flushing = me
        try:
            self._run(False)
        finally:
            self.flushing = 0
            self.busy = IDLE

    def _flush_in_turn(self, me: int) -> None:
        mine = self.owner == me
        if mine:
            self.busy = IDLE
        else:
            turns.share()
        with turns.run_lock:
            self._begin(me)
            try:
                if not mine:
                    wait_until_consistent(self)
                if self.slots:
                    self._run(keep_slots=not mine and self.busy == WAITING)
            finally:
                self.flushing = 0

    def _begin(self, me: int) -> None:
        if self.flushing:
            self._refuse()
        self.flushing = me

    def _refuse(self) -> None:
        raise RuntimeError(
            "pending operations were asked for while the same thread was running them (from a "
            "signal handler or a finalizer)"
        )

    def _run(self, keep_slots: bool) -> None:
        cursor = self.cursor
        if cursor is self.root:
            self.clear(keep_slots)
            return
        watched = cursor.watched
        if watched is None:
            watched = cursor.watched = Watched(self.recorded())
        live = watched.alive(self.slots)
        plan = cursor.plans.get(live)
        if plan is None:
            plan = self._build_plan(watched, live)
        self.last_plan = plan
        if watchers:
            for watch in watchers:
                watch(self, plan)
        try:
            plan.run(self.slots, self.scalars)
        except Exception as error:
            self._lose(error)
            raise
        finally:
            # Also after an interrupt: what ran must not run again.
            self.clear(keep_slots)

    def _build_plan(self, watched: Watched, live: bytes | bool) -> Plan | CallByCall:
        calls = self.recorded()
        if "tape" in config.debug:
            print(self, file=sys.stderr)
        plan: Plan | CallByCall
        liveness = watched.of_slots(live, len(self.slots))
        try:
            plan = Plan(calls, liveness)
        except Exception as error:
            plan = CallByCall(calls, error)
        plans = self.cursor.plans
        if len(plans) >= _MAX_PLANS:
            plans.clear()
        if not plans:
            self.paths.append(self.cursor)
        plans[live] = plan
        return plan

    def _lose(self, error: Exception) -> None:
        """Results that were never computed say so when somebody asks for them."""
        for storage in self.slots:
            if storage.block is None:
                storage.block = LostBlock(storage.nbytes, str(error))

    def forget(self) -> None:
        """Runs what is pending and forgets every known call: what they mean is about to change.

        Any thread may ask for it.
        """
        me = get_ident()
        if self.owner != me:
            turns.share()
        with turns.run_lock:
            self._begin(me)
            try:
                if self.owner != me:
                    wait_until_consistent(self)
                if self.slots:
                    self._run(keep_slots=self.busy == WAITING)
            finally:
                self._start_afresh()
                self.flushing = 0

    def _start_afresh(self) -> None:
        self.root = Call("start", None)
        self.calls_known = 0
        self.cursor = self.root
        self.paths.clear()

    def _forget_oldest(self) -> None:
        """Drops the plans that were made first, and the calls that lead to no other."""
        while self.calls_known > MAX_CALLS * 3 // 4 and self.paths:
            call = self.paths.popleft()
            call.plans.clear()
            while not (call.plans or call.children) and call.parent is not None:
                parent = call.parent
                del parent.children[call.key]
                if parent.next is call:
                    parent.next = None
                self.calls_known -= 1
                call = parent

    def clear(self, keep_slots: bool = False) -> None:
        """Forgets the pending calls; every storage leaves the tape."""
        if self.calls_known > MAX_CALLS:
            self._forget_oldest()
        # First, so that an interrupt further down finds nothing left to run.
        self.cursor = self.root
        self.scalars = []
        self.remaining = config.window
        if keep_slots:
            return
        # Another thread may bind a storage as soon as it is nobody's; its slot means nothing then.
        for storage in self.slots:
            storage.tape = None
        self.slots = []

    def __repr__(self) -> str:
        calls = self.recorded()
        if not calls:
            return "<empty tape>"
        lines = [f"{k:4}  {call!r}" for k, call in enumerate(calls)]
        return "\n".join(["tape", *lines])


# Called with the tape and its plan before each run; `inspect.py` listens here.
watchers: list[Callable[[Tape, Plan | CallByCall], None]] = []


class _Probe:
    """An object that only a list refers to, to learn what `getrefcount` says of such a one."""


class Watched:
    """The slots of a path whose storages may die unseen: what the calls wrote.

    A pending result that nothing but the tape refers to can never be seen, so it need not be
    computed.  What is only read keeps its contents, whoever refers to it.
    """

    __slots__ = ("_only", "_pick", "slots")

    def __init__(self, calls: list[Call]) -> None:
        self.slots = sorted({view.slot for call in calls for view in call.writes})
        self._only = self.slots[0] if len(self.slots) == 1 else -1
        self._pick = itemgetter(*self.slots) if len(self.slots) > 1 else None

    def alive(self, storages: list[Storage]) -> bytes | bool:
        """Which of the watched storages others refer to: a byte each, a truth value for only
        one.
        """
        pick = self._pick
        if pick is None:
            return self._only >= 0 and _is_alone_referenced(storages, self._only)
        counts = map(getrefcount, pick(storages))
        try:
            return bytes(counts).translate(_IS_REFERENCED)
        except ValueError:
            # More than 255 references: certainly alive.
            counts = map(getrefcount, pick(storages))
            return bytes([min(count, 255) for count in counts]).translate(_IS_REFERENCED)

    def of_slots(self, alive: bytes | bool, count: int) -> bytes:
        """The same for all slots: one byte each."""
        found = bytearray(b"\1" * count)
        for slot, one in zip(self.slots, (alive,) if isinstance(alive, bool) else alive):
            found[slot] = bool(one)
        return bytes(found)


def _is_alone_referenced(storages: list[Storage], slot: int) -> bool:
    return getrefcount(storages[slot]) > _UNREFERENCED_ITEM


# What a count says that is asked for in the same way as above, where only a list refers.
_probes: list[Any] = [_Probe(), _Probe()]
_UNREFERENCED_ITEM = getrefcount(_probes[0])
_IS_REFERENCED = bytes(
    int(count > max(map(getrefcount, itemgetter(0, 1)(_probes)))) for count in range(256)
)


thread = ThreadState(Tape)


def _apply_window() -> None:
    """``config.window`` was set: what this thread records from now on goes by it."""
    thread.tape.flush()
    thread.tape.remaining = config.window


listeners.setdefault("window", []).append(_apply_window)
