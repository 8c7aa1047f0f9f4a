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
import threading
from collections.abc import Callable
from threading import get_ident
from typing import Any

from flambeau.core.config import config, listeners
from flambeau.engine.call import Call
from flambeau.engine.plan import CallByCall, Plan
from flambeau.engine.storage import LostBlock, Storage
from flambeau.engine.turns import IDLE, RECORDING, WAITING, turns, wait_until_consistent

# A trie that grew past this many calls (ever new shapes, ever new programs) starts afresh.
_MAX_CALLS = 50_000
# Plans for one path, which differ in the storages that were alive; more are not a pattern.
_MAX_PLANS = 16


class Tape:
    """One thread's pending calls.  ``slots`` holds every storage that they touch.

    ``busy`` and ``flushing`` (the flushing thread's number, or 0) keep owner and flushers apart;
    see `turns.py`.
    """

    __slots__ = (
        "__weakref__",
        "busy",
        "calls_known",
        "cursor",
        "flushing",
        "last_plan",
        "owner",
        "remaining",
        "root",
        "scalars",
        "slots",
    )  # fmt: skip

    def __init__(self) -> None:
        self.root = Call("start", None)
        self.calls_known = 0
        self.cursor = self.root
        self.slots: list[Storage] = []
        self.scalars: list[int | float] = []
        self.remaining = config.window
        self.last_plan: Plan | CallByCall | None = None
        self.busy = IDLE
        self.flushing = 0
        self.owner = get_ident()
        turns.register(self)

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

    def bind(self, storage: Storage) -> int:
        """Gives a storage a slot; one that the outside can see makes the tape run after this
        call.
        """
        if turns.several:
            return self._bind_shared(storage)
        if storage.tape is self:
            return storage.slot
        return self._bind_free(storage)

    def _bind_free(self, storage: Storage) -> int:
        if storage.is_exported():
            self.remaining = 0
        slots = self.slots
        storage.slot = slot = len(slots)
        slots.append(storage)
        storage.tape = self
        return slot

    def _bind_shared(self, storage: Storage) -> int:
        """The same among several threads: work pending on another tape is done first."""
        while True:
            with turns.bind_lock:
                other = storage.tape
                if other is self:
                    return storage.slot
                if other is None:
                    return self._bind_free(storage)
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
        self._begin(me)
        try:
            self._run(keep_slots=False)
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
            raise RuntimeError(
                "pending operations were asked for while the same thread was running them (from a "
                "signal handler or a finalizer)"
            )
        self.flushing = me

    def _run(self, keep_slots: bool) -> None:
        cursor = self.cursor
        if cursor is self.root:
            self.clear(keep_slots)
            return
        live = _references(self.slots)
        plan = cursor.plans.get(live)
        if plan is None:
            plan = self._build_plan(live)
        self.last_plan = plan
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

    def _build_plan(self, live: bytes) -> Plan | CallByCall:
        calls = self.recorded()
        if "tape" in config.debug:
            print(self, file=sys.stderr)
        plan: Plan | CallByCall
        try:
            plan = Plan(calls, live)
        except Exception as error:
            plan = CallByCall(calls, error)
        plans = self.cursor.plans
        if len(plans) >= _MAX_PLANS:
            plans.clear()
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

    def clear(self, keep_slots: bool = False) -> None:
        """Forgets the pending calls; every storage leaves the tape."""
        if self.calls_known > _MAX_CALLS:
            self._start_afresh()
        # First, so that an interrupt further down finds nothing left to run.
        self.cursor = self.root
        self.scalars = []
        self.remaining = config.window
        if keep_slots:
            return
        for storage in self.slots:
            # Another thread may bind the storage as soon as it is nobody's.
            storage.slot = -1
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


def _references(storages: list[Storage]) -> bytes:
    """One byte per storage: 1 if anything but the tape refers to it, else 0.

    A pending result that nothing refers to can never be seen, so it need not be computed.
    """
    try:
        return bytes(map(sys.getrefcount, storages)).translate(_IS_REFERENCED)
    except ValueError:
        # More than 255 references: certainly alive.
        return bytes(min(sys.getrefcount(s) - 1, 255) for s in storages).translate(_IS_REFERENCED)


_UNREFERENCED = max(map(sys.getrefcount, [_Probe()]))
_IS_REFERENCED = bytes(int(count > _UNREFERENCED) for count in range(256))


class _ThreadState(threading.local):
    """The current thread's tape."""

    def __init__(self) -> None:
        self.tape = Tape()


thread = _ThreadState()


def _apply_window() -> None:
    """``config.window`` was set: what this thread records from now on goes by it."""
    thread.tape.flush()
    thread.tape.remaining = config.window


listeners.setdefault("window", []).append(_apply_window)
