"""Runs the steps of a `LibraryPlan` on numpy arrays, through ctypes, without an engine."""

from __future__ import annotations

import ctypes
import struct

import numpy as np

from flambeau.compiler.image import load_image
from flambeau.compiler.jit import compile_module, emit_image
from flambeau.compiler.kernel_step import WORKSPACE, KernelStep, Pointer
from flambeau.compiler.library_plan import CONSTANTS, LibraryPlan
from flambeau.compiler.target import Target, describe_host, host, processor_flags

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

# Written around every operand, and checked after the run.
_GUARD = 256


_loaded: dict[tuple[str, str], dict[str, int]] = {}


def possible_targets() -> list[Target]:
    """The host, and the lesser targets that it can run."""
    targets = [host()]
    for name in ("avx2", "scalar"):
        try:
            target = describe_host(host().architecture, processor_flags(), name)
        except RuntimeError:
            continue
        if target.name not in {known.name for known in targets}:
            targets.append(target)
    return targets


def functions_of(step: KernelStep, target: Target) -> dict[str, int]:
    if target.identity == host().identity:
        return compile_module(step.module_key, step.source, step.functions)
    key = (step.module_key, target.name)
    if key not in _loaded:
        _loaded[key] = load_image(emit_image(step.source(), target))
    return _loaded[key]


class PlanRunner:
    """A plan with its memory: operands are copied in and out, with guards around them."""

    def __init__(
        self, plan: LibraryPlan, operands: dict[str, np.ndarray], target: Target | None = None
    ) -> None:
        self.target = target or host()
        self.operands = {name: _Guarded(array.nbytes) for name, array in operands.items()}
        self.shapes = {name: (array.shape, array.dtype) for name, array in operands.items()}
        for name, array in operands.items():
            self.operands[name].data[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.operands[WORKSPACE] = _Guarded(plan.workspace_bytes)
        # Junk in the workspace, NaN for floating-point readers.
        self.operands[WORKSPACE].data[:] = 0xFF
        self.operands[CONSTANTS] = _Guarded(len(plan.constants))
        self.operands[CONSTANTS].data[:] = np.frombuffer(plan.constants, np.uint8)
        self.steps = [self._prepare(step) for step in plan.steps]

    def _prepare(self, step: KernelStep) -> tuple:
        addresses = functions_of(step, self.target)
        words = b"".join(self._word(word) for word in step.words)
        block = ctypes.create_string_buffer(words, len(words))
        return _KERNEL(addresses[step.function]), block, step.tasks

    def _word(self, word: Pointer | int | float) -> bytes:
        if isinstance(word, Pointer):
            return struct.pack("<Q", self.operands[word.operand].address + word.byte_offset)
        return struct.pack("<d" if isinstance(word, float) else "<q", word)

    def run(self, cut: int | None = None) -> None:
        """All steps; their tasks in ranges of ``cut``, last range first."""
        for function, block, tasks in self.steps:
            if cut is None:
                function(ctypes.addressof(block), 0, tasks)
                continue
            for begin in reversed(range(0, tasks, cut)):
                function(ctypes.addressof(block), begin, min(tasks, begin + cut))

    def result(self, name: str) -> np.ndarray:
        for operand, memory in self.operands.items():
            assert memory.intact(), f"a kernel wrote past {operand}"
        shape, dtype = self.shapes[name]
        return self.operands[name].data.view(dtype).reshape(shape).copy()


class _Guarded:
    def __init__(self, nbytes: int) -> None:
        memory = np.full(nbytes + 2 * _GUARD + 64, 0xA5, np.uint8)
        start = _GUARD + -(memory.ctypes.data + _GUARD) % 64
        self.before, self.after = memory[:start], memory[start + nbytes :]
        self.data = memory[start : start + nbytes]
        self.address = memory.ctypes.data + start

    def intact(self) -> bool:
        return bool((self.before == 0xA5).all() and (self.after == 0xA5).all())


def run_plan(
    plan: LibraryPlan,
    operands: dict[str, np.ndarray],
    result: str,
    cut: int | None = None,
    target: Target | None = None,
) -> np.ndarray:
    """The operand ``result`` after one run."""
    runner = PlanRunner(plan, operands, target)
    runner.run(cut)
    return runner.result(result)
