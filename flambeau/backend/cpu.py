"""The CPU backend: memory, the thread pool, and the one native call that runs a plan."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import time
import weakref
from collections.abc import Callable, Sequence

from flambeau.backend import pool_ir
from flambeau.backend.allocator import AllocatorStatistics, Block, CachingAllocator, map_memory
from flambeau.backend.debug_allocator import DebugAllocator
from flambeau.core.config import config, usable_processors

CompileModule = Callable[[str, Callable[[], str], Sequence[str]], dict[str, int]]

MAX_THREADS = 1024
_SPIN_SECONDS = 200e-6
# Longer than the Python code between two small plans of a training loop, and short enough that an
# idle process takes no processor time.
_CALIBRATION_TURNS = 500


class CpuBackend:
    """`flambeau.backend.interface.Backend` for the processor.

    ``compile_module`` (`flambeau.compiler.jit.compile_module`) is handed in by the engine; it is
    called when `execute`, `parallel_for` or `pool_address` is first asked for.
    """

    def __init__(self, compile_module: CompileModule) -> None:
        self._compile_module = compile_module
        self.allocator = DebugAllocator() if config.debug_alloc else CachingAllocator()
        self.allocate: Callable[[int], Block] = self.allocator.allocate
        self._num_threads = config.num_threads
        # Never unmapped: threads look at it until the process ends.
        self._state_address = map_memory(pool_ir.STATE_SIZE)
        _backends.add(self)

    # -- running -----------------------------------------------------------------------------

    @functools.cached_property
    def execute(self) -> Callable[[int], None]:
        """Runs the plan whose block (`interface.PlanWord`) lies at the given address.

        A built-in function whose body is generated code; it releases the interpreter's lock.
        """
        return _builtin("execute", self._native["execute_method"])

    @functools.cached_property
    def parallel_for(self) -> Callable[[int, int, int, int], None]:
        """``parallel_for(function, args, count, grain)`` of a kernel's address, at once."""
        native = ctypes.CFUNCTYPE(
            None, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64
        )(self._native["parallel_for"])  # fmt: skip
        return functools.partial(native, self.pool_address)

    @functools.cached_property
    def pool_address(self) -> int:
        """The pool's state block, for `PlanWord.POOL`; valid after forks and `set_num_threads`."""
        self._native  # noqa: B018 - the pool is ready before anybody holds its address
        return self._state_address

    @functools.cached_property
    def _native(self) -> dict[str, int]:
        text = pool_ir.pool_ir(platform.machine())
        key = "thread pool and executor " + hashlib.sha256(text.encode()).hexdigest()
        functions = self._compile_module(key, lambda: text, pool_ir.FUNCTIONS)
        self._set_active = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)(
            functions["set_active"]
        )
        self._pauses = _pauses_in(_SPIN_SECONDS, functions["pause_for"])
        self._apply_num_threads()
        return functions

    # -- threads -----------------------------------------------------------------------------

    def set_num_threads(self, count: int) -> None:
        """How many threads share a step from now on.  No result depends on it."""
        if count < 1:
            raise RuntimeError("set_num_threads expects a positive integer")
        self._num_threads = count
        if "_native" in self.__dict__:
            self._apply_num_threads()

    def get_num_threads(self) -> int:
        return self._num_threads

    def _apply_num_threads(self) -> None:
        # With more threads than processors a spinning thread would keep a working one waiting.
        spin = self._pauses if self._num_threads <= usable_processors() else 0
        self._write(pool_ir.SPIN, spin)
        self._set_active(self._state_address, min(self._num_threads, MAX_THREADS) - 1)

    def _write(self, offset: int, value: int) -> None:
        ctypes.c_int32.from_address(self._state_address + offset).value = value

    def _after_fork(self) -> None:
        """In a forked child, where the parent's threads do not exist: the next job starts new."""
        self.allocator.after_fork()
        for offset in (pool_ir.STARTED, pool_ir.LOCK, pool_ir.SLEEPERS):
            self._write(offset, 0)
        ctypes.c_int64.from_address(self._state_address + pool_ir.NEXT).value = 0
        if "_native" in self.__dict__:
            self._apply_num_threads()

    # -- memory ------------------------------------------------------------------------------

    def copy(self, destination: int, source: int, nbytes: int) -> None:
        """Copies bytes; the ranges may overlap."""
        ctypes.memmove(destination, source, nbytes)

    def fill(self, destination: int, byte: int, nbytes: int) -> None:
        """Sets every byte to ``byte``."""
        ctypes.memset(destination, byte, nbytes)

    def watch_peak(self) -> None:
        """From now on the largest amount of living memory is measured, at 5 us per allocation."""
        self.allocate = self.allocator.watched_allocate

    def empty_cache(self) -> None:
        self.allocator.empty_cache()

    def statistics(self) -> AllocatorStatistics:
        return self.allocator.statistics()

    def synchronize(self) -> None:
        """Nothing to wait for: `execute` returns when the work is done."""


def _pauses_in(seconds: float, pause_for: int) -> int:
    """How many pause instructions take about so long on this processor."""
    pause = ctypes.CFUNCTYPE(None, ctypes.c_int64)(pause_for)
    pause(_CALIBRATION_TURNS)
    start = time.perf_counter()
    pause(_CALIBRATION_TURNS)
    elapsed = time.perf_counter() - start
    return max(100, min(200_000, int(seconds / max(elapsed, 1e-7) * _CALIBRATION_TURNS)))


class _MethodDefinition(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_ONE_ARGUMENT = 0x0008


def _builtin(name: str, address: int) -> Callable[[int], None]:
    """A Python function of one argument whose C body lies at ``address``.

    Calling it costs a fifth of a call through ctypes.
    """
    definition = _MethodDefinition(name.encode(), address, _ONE_ARGUMENT, None)
    # The function looks at its definition even while the interpreter goes down: it must never go.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(definition))
    create = ctypes.pythonapi.PyCFunction_NewEx
    create.restype = ctypes.py_object
    create.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    builtin: Callable[[int], None] = create(ctypes.addressof(definition), None, None)
    return builtin


_backends: weakref.WeakSet[CpuBackend] = weakref.WeakSet()


def _after_fork() -> None:
    for backend in _backends:
        backend._after_fork()


os.register_at_fork(after_in_child=_after_fork)
