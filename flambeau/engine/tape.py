"""The tape: calls in program order, recorded by walking a trie of calls recorded before.

The cursor stands on the last recorded call.  Recording compares the new call's key with the child
that followed last time; on a match nothing is inferred, hashed or built.  A key names everything that
the call's meaning depends on: operator, slots, layouts, static arguments.  Python numbers are not in
it; they are collected in ``scalars`` for the plan.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from flambeau.core.config import config
from flambeau.engine.call import Call
from flambeau.engine.plan import Plan
from flambeau.engine.storage import Storage

# A trie that grew past this many calls (ever new shapes, ever new programs) starts afresh.
_MAX_CALLS = 200_000


class Tape:
    """One thread's pending calls.  ``slots`` holds every storage that they touch."""

    __slots__ = ("calls_known", "cursor", "flushing", "lock", "remaining", "root", "scalars", "slots")

    def __init__(self) -> None:
        self.root = Call("start", None)
        self.calls_known = 0
        self.cursor = self.root
        self.slots: list[Storage] = []
        self.scalars: list[int | float] = []
        self.remaining = config.window
        self.flushing = False
        self.lock = threading.RLock()

    def bind(self, storage: Storage) -> int:
        """Gives a storage a slot; one that the outside can see makes the tape run after this call."""
        if storage.tape is self:
            return storage.slot
        if storage.tape is not None:
            # Pending on another thread's tape: its work must be done before ours can read it.
            storage.tape.flush()
        if storage.is_exported():
            self.remaining = 0
        storage.tape = self
        storage.slot = slot = len(self.slots)
        self.slots.append(storage)
        return slot

    def advance(self, key: Any, build: Callable[[], Call]) -> Call:
        """Moves the cursor over a call that the last visit here did not expect.

        ``build`` infers and checks; what it raises leaves the tape as it was.
        """
        cursor = self.cursor
        call = cursor.children.get(key)
        if call is None:
            call = build()
            call.parent = cursor
            cursor.children[key] = call
            self.calls_known += 1
        cursor.next = call
        self.cursor = call
        return call

    def recorded(self) -> list[Call]:
        """The pending calls, oldest first."""
        calls = []
        call: Call | None = self.cursor
        while call is not None and call is not self.root:
            calls.append(call)
            call = call.parent
        return calls[::-1]

    def flush(self) -> None:
        """Runs everything pending.  Safe from another thread, which then waits for this one's turn."""
        with self.lock:
            if not self.slots:
                return
            cursor, slots, numbers = self.cursor, self.slots, self.scalars
            live = _references(slots)
            plan = cursor.plans.get(live)
            if plan is None:
                plan = self._build_plan(live)
            plan.run(slots, numbers)
            self.clear()

    def _build_plan(self, live: bytes) -> Plan:
        calls = self.recorded()
        if "tape" in config.debug:
            print(self, file=sys.stderr)
        plan = Plan(calls, live)
        self.cursor.plans[live] = plan
        return plan

    def clear(self) -> None:
        """Forgets the pending calls; every storage leaves the tape."""
        for storage in self.slots:
            storage.tape = None
            storage.slot = -1
        self.slots = []
        self.scalars = []
        self.remaining = config.window
        if self.calls_known > _MAX_CALLS:
            self.root = Call("start", None)
            self.calls_known = 0
        self.cursor = self.root

    def __repr__(self) -> str:
        calls = self.recorded()
        if not calls:
            return "<empty tape>"
        lines = [f"{k:4}  {call!r}" for k, call in enumerate(calls)]
        return "\n".join(["tape", *lines])


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
