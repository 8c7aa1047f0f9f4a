"""Who listens to what this thread does with memory: the capture of a compiled function.

A capture must know of every access that the tape does not show: memory that is made, and memory
that Python or a host routine reads or writes at once.  Nobody listens nearly always; then the
price is one look at a thread-local field, on paths that touch memory anyway.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any


class Watch(threading.local):
    """``capture`` is the current thread's listener (`flambeau.capture.recorder.Recorder`)."""

    capture: Any = None


watch = Watch()


class Ever:
    """Whether any thread ever had a listener: the cheap question, on the hot paths."""

    __slots__ = ("listened",)

    def __init__(self) -> None:
        self.listened = False


ever = Ever()

# Storages that the package itself keeps and that nobody writes, by id.
lasting: dict[int, Any] = {}
_MAX_LASTING = 1024


def keep_lasting(storage: Any) -> None:
    """Declares a storage of the package's own, which captured code may use as a constant."""
    while len(lasting) >= _MAX_LASTING:
        del lasting[next(iter(lasting))]
    lasting[id(storage)] = storage


def host_check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a routine that only looks at tensors' values and raises where it dislikes them.

    A capture keeps it like a `host_action`, and may run it earlier or once more.
    """
    checks.add(function)
    return host_action(function)


checks: set[Callable[..., Any]] = set()


def host_action(function: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a routine that reads or writes memory when it is called, and only through tensors.

    A capture keeps such a call and repeats it in every replay: checks of indices, random draws.
    Other accesses make the capture give up.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        capture = watch.capture
        if capture is None:
            return function(*args, **kwargs)
        return capture.act(function, args, kwargs)

    return run
