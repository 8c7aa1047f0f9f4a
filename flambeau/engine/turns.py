"""Turns: how threads share tapes without a lock on the path of every operator.

A tape belongs to one thread, which alone records on it.  Any thread may have to *flush* it: whoever
touches a storage that is pending there.  While a process has one recording thread there is nothing
to agree on, and a flush takes no lock.  With the second one (`share`) flushes take turns under
`run_lock`, and owner and flusher each announce themselves before they look at the other, as in
Dekker's algorithm:

* the owner sets ``busy`` to RECORDING, then looks whether ``flushing`` is set, and waits if so;
* the flusher sets ``flushing``, then waits until ``busy`` is not RECORDING.

An owner that must wait for somebody else's tape in the middle of a call (`Tape.bind`) is WAITING:
its recorded calls may be run, but the slots that it has looked up must stay.  The interpreter runs
one thread at a time, in program order, which is all that the scheme needs.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flambeau.engine.tape import Tape

IDLE, RECORDING, WAITING = 0, 1, 2

_PACKAGE = str(Path(__file__).parent.parent)
_PAUSE = 20e-6
_PAUSES_BEFORE_LOOKING = 256


class Life:
    """Something that exists for as long as its thread."""

    __slots__ = ("__weakref__",)


class Turns:
    """The process-wide part: who records, and the locks that matter once there are several."""

    __slots__ = ("_tapes", "bind_lock", "run_lock", "several")

    def __init__(self) -> None:
        self.several = False
        # Plans share the thread pool and their own argument blocks: one runs at a time.
        self.run_lock = threading.RLock()
        self.bind_lock = threading.Lock()
        self._tapes: list[tuple[weakref.ref[Life], Tape]] = []

    def register(self, tape: Tape, life: Life) -> None:
        """Announces a thread's tape before its first use; ``life`` ends with the thread."""
        self._tapes.append((weakref.ref(life, self._forget_dead), tape))
        if len(self._tapes) > 1:
            self.share()

    def share(self) -> None:
        """From now on several threads take part; returns when nobody relies on being alone."""
        if self.several:
            return
        self.several = True
        for tape in self.tapes():
            if tape.owner != threading.get_ident():
                wait_until_consistent(tape)

    def hold_for_fork(self) -> None:
        """A child must not inherit a plan in the middle of running."""
        if any(t.owner != threading.get_ident() for t in self.tapes()):
            self.share()
        self.run_lock.acquire()

    def release_in_parent(self) -> None:
        self.run_lock.release()

    def release_in_child(self) -> None:
        """Locks may have been held by threads that do not exist here."""
        self.run_lock = threading.RLock()
        self.bind_lock = threading.Lock()
        for tape in self.tapes():
            tape.flushing = 0

    def tapes(self) -> list[Tape]:
        """The tapes of the living threads."""
        return [tape for _, tape in self._tapes]

    def _forget_dead(self, ref: weakref.ref[Life]) -> None:
        self._tapes = [entry for entry in self._tapes if entry[0] is not ref]


def wait_until_consistent(tape: Tape) -> None:
    """Returns when the tape's owner is not in the middle of recording a call."""
    turn = 0
    while tape.busy == RECORDING:
        turn += 1
        if turn % _PAUSES_BEFORE_LOOKING == 0 and not _is_inside(tape.owner):
            # An interrupt (Ctrl-C) left the owner's mark behind, or the owner is gone.
            return
        time.sleep(_PAUSE)


def _is_inside(thread: int) -> bool:
    """Whether the thread is anywhere inside this package now."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            return True
        frame = frame.f_back
    return False


turns = Turns()


class ThreadState(threading.local):
    """What belongs to the current thread: its ``tape``, which ``make`` makes at the first use."""

    tape: Tape

    def __init__(self, make: Callable[[], Tape]) -> None:
        self.tape = make()
        self.life = Life()
        turns.register(self.tape, self.life)


os.register_at_fork(
    before=turns.hold_for_fork,
    after_in_parent=turns.release_in_parent,
    after_in_child=turns.release_in_child,
)
