"""When pending work must be done: the user-level verbs."""

from __future__ import annotations

from flambeau.engine.tape import thread


def flush() -> None:
    """Runs what this thread has recorded; the end of ``optimizer.step()`` calls it."""
    thread.tape.flush()


def synchronize() -> None:
    """Completes everything that this thread has recorded; afterwards all results are in memory."""
    thread.tape.flush()
