"""A GPU made of ordinary threads: runs what `schedule_gpu` writes without a GPU.

Each thread of a block is a thread of the process with an argument block of its own, in front of
which lie its place in the grid, the block's shared memory and its barrier.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from flambeau.compiler.builder import ARGS, Builder, Var
from flambeau.compiler.image import load_image
from flambeau.compiler.jit import emit_image
from flambeau.compiler.kernel import IOTA, Kernel
from flambeau.compiler.schedule import FUNCTION
from flambeau.compiler.schedule_gpu import source, task_count, tasks_per_block
from flambeau.compiler.target import GpuTarget, Target, host

_WORDS_IN_FRONT = 8
_SHARED_BYTES = 4096


class EmulatedGpu(GpuTarget):
    """The host with the notions of a GPU."""

    block_threads = 16
    shared_bytes = 0

    def _word(self, b: Builder, number: int, type_: str = "i64") -> Var:
        return b.argument(ARGS, -number, type_)

    def thread_index(self, b: Builder) -> Var:
        return self._word(b, 1)

    def block_index(self, b: Builder) -> Var:
        return self._word(b, 2)

    def block_count(self, b: Builder) -> Var:
        return self._word(b, 3)

    def barrier(self, b: Builder) -> None:
        function, barrier = self._word(b, 4, "ptr"), self._word(b, 5, "ptr")
        b.do(f"call i32 {function.name}({barrier})")

    def shared(self, b: Builder, name: str, type_: str) -> tuple[Var, str]:
        start = int(name.removeprefix("shared")) * 1024
        return b.gep("i8", self._word(b, 6, "ptr"), start), ""


def emulated() -> EmulatedGpu:
    known = {field.name: getattr(host(), field.name) for field in fields(Target)}
    return EmulatedGpu(**{**known, "vector_bits": 0})


def run(
    kernel: Kernel,
    arrays: Sequence[np.ndarray | None],
    extents: Sequence[int],
    strides: Sequence[Sequence[int]],
    numbers: Sequence[float] = (),
    total_extent: int | None = None,
    blocks: int = 2,
) -> None:
    """Runs the kernel on arrays in place, by ``blocks`` blocks, one after the other."""
    target = emulated()
    text = source(kernel, target)
    loaded = load_image(emit_image(text, host()))
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
        loaded[FUNCTION]
    )
    words = [0 if o.kind == IOTA else a.ctypes.data for o, a in zip(kernel.operands, arrays)]
    words += list(extents)
    for row in strides:
        words += list(row)
    for number, kind in zip(numbers, kernel.scalars):
        bits = np.array([number], np.float64 if kind.is_floating_point else np.int64)
        words.append(int(bits.view(np.int64)[0]))
    words += [] if total_extent is None else [total_extent]
    tasks = task_count(kernel, extents)
    assert tasks_per_block(kernel, target) in (1, target.block_threads)
    for block in range(blocks):
        _run_block(function, words, tasks, block, blocks, target.block_threads)


def _run_block(function, words, tasks, block, blocks, count) -> None:
    libc = ctypes.CDLL(None)
    barrier = ctypes.create_string_buffer(64)
    libc.pthread_barrier_init(barrier, None, count)
    shared = np.zeros(_SHARED_BYTES, np.uint8)
    wait = ctypes.cast(libc.pthread_barrier_wait, ctypes.c_void_p).value
    workers = []
    for thread in range(count):
        front = [0, 0, shared.ctypes.data, ctypes.addressof(barrier), wait, blocks, block, thread]
        memory = np.array([*front, *words], np.int64)
        address = memory.ctypes.data + 8 * _WORDS_IN_FRONT
        workers.append(threading.Thread(target=function, args=(address, 0, tasks)))
        workers[-1].memory = memory
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    libc.pthread_barrier_destroy(barrier)
