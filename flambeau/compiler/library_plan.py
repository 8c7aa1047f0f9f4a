"""How planners of library kernels (convolution, pooling …) put their steps together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flambeau.compiler.kernel_step import WORKSPACE, KernelStep, Pointer, Word

CONSTANTS = "constants"

# Vectors and cache lines; also what keeps two tasks' results apart.
ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class LibraryPlan:
    """The steps of one problem, the scratch memory they need, and the tables they read.

    ``constants`` are bytes that the engine keeps in memory, aligned to 64 bytes, as the operand
    ``"constants"``; ``workspace_bytes`` of scratch are the operand ``"workspace"``.
    """

    steps: tuple[KernelStep, ...]
    workspace_bytes: int
    constants: bytes

    def __str__(self) -> str:
        head = f"workspace {self.workspace_bytes} bytes, constants {len(self.constants)} bytes"
        return "\n".join([head, *map(str, self.steps)])


@dataclass(frozen=True, slots=True)
class KernelModule:
    """A module of generated kernels: its key, its text, and the argument words of each function."""

    key: str
    source: Callable[[], str]
    words: Mapping[str, Sequence[str]]

    def step(
        self, function: str, arguments: Mapping[str, Word], tasks: int, grain: int = 1
    ) -> KernelStep:
        """A step whose arguments are given by name."""
        names = self.words[function]
        assert set(names) == set(arguments), set(names) ^ set(arguments)
        words = tuple(arguments[name] for name in names)
        functions = tuple(self.words)
        return KernelStep(self.key, self.source, function, words, tasks, max(1, grain), functions)


class PlanWriter:
    """Collects the steps, constants and workspace of one plan."""

    def __init__(self) -> None:
        self.steps: list[KernelStep] = []
        self.workspace_bytes = 0
        self._constants = bytearray()
        self._known: dict[bytes, int] = {}

    def reserve(self, nbytes: int) -> Pointer:
        """Workspace for ``nbytes``, with a vector of slack behind it that may be read."""
        start = self.workspace_bytes
        self.workspace_bytes += _aligned(nbytes + ALIGNMENT)
        return Pointer(WORKSPACE, start)

    def constant(self, table: np.ndarray) -> Pointer:
        """A table in the constants; equal tables are stored once."""
        data = table.tobytes()
        if data not in self._known:
            self._known[data] = len(self._constants)
            # One more vector: kernels may load whole vectors at the end of a table.
            self._constants += data.ljust(_aligned(len(data) + ALIGNMENT), b"\0")
        return Pointer(CONSTANTS, self._known[data])

    def add(self, step: KernelStep) -> None:
        """Appends a step unless it has nothing to do."""
        if step.tasks:
            self.steps.append(step)

    def finish(self) -> LibraryPlan:
        return LibraryPlan(tuple(self.steps), self.workspace_bytes, bytes(self._constants))


def offset(pointer: Pointer, nbytes: int) -> Pointer:
    """The address ``nbytes`` further on."""
    return Pointer(pointer.operand, pointer.byte_offset + nbytes)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def balanced_panels(count: int, most: int) -> tuple[int, int, int]:
    """Cuts ``count`` rows into panels of at most ``most``: (panels, height, tall panels).

    The first ``tall panels`` have ``height`` rows, the others one less.
    """
    panels = max(1, ceil_div(count, most))
    height = ceil_div(count, panels)
    return panels, height, panels - (panels * height - count)


def _aligned(nbytes: int) -> int:
    return ceil_div(nbytes, ALIGNMENT) * ALIGNMENT
