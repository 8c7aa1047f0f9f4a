"""What is measured: each workload is written once, against the API that both libraries have.

A workload takes a `Lab` (the library, and helpers that give both the same numbers) and returns its
step.  A step returns the tensors that its user would look at; the worker gives each of them its
memory (``data_ptr()``) after every step, so a deferred library computes what an eager one does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Workload:
    """One row: ``inner`` steps of interest are in one call; ``floor`` is the ratio to reach."""

    name: str
    title: str
    prepare: Callable[["Lab"], Callable[[], Any]]
    inner: int
    floor: float
    compiled: bool

    @property
    def group(self) -> str:
        return self.name.partition(".")[0]


class Lab:
    """What workloads are made with."""

    def __init__(self, library: ModuleType, compile_steps: bool) -> None:
        self.torch = library
        self.compile_steps = compile_steps

    def normal(self, seed: int, *shape: int, grad: bool = False) -> Any:
        """Normal numbers, the same in both libraries."""
        values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        tensor = self.torch.tensor(values)
        return tensor.requires_grad_() if grad else tensor

    def integers(self, seed: int, end: int, *shape: int) -> Any:
        return self.torch.tensor(np.random.default_rng(seed).integers(0, end, shape))

    def compiled(self, function: Any) -> Any:
        """The function or module, compiled where that is what is measured."""
        return self.torch.compile(function) if self.compile_steps else function

    def without_grad(self, function: Callable[[], Any]) -> Callable[[], Any]:
        def step() -> Any:
            with self.torch.no_grad():
                return function()

        return step

    def training(
        self, model: Any, optimizer: Any, loss_of: Callable[[Any], Any]
    ) -> Callable[[], Any]:
        """A whole step: gradients cleared, forward, backward, update; gives the loss."""
        forward = self.compiled(model)
        update = self.compiled(optimizer.step)

        def step() -> Any:
            optimizer.zero_grad()
            loss = loss_of(forward)
            loss.backward()
            update()
            return loss

        return step


WORKLOADS: dict[str, Workload] = {}


def workload(
    name: str, title: str, *, inner: int = 1, floor: float = 1.0, compiled: bool = False
) -> Callable[[Callable[[Lab], Callable[[], Any]]], Callable[[Lab], Callable[[], Any]]]:
    """Declares a row; ``compiled``: it is measured under ``compile`` too."""

    def declare(prepare: Callable[[Lab], Callable[[], Any]]) -> Callable[[Lab], Callable[[], Any]]:
        WORKLOADS[name] = Workload(name, title, prepare, inner, floor, compiled)
        return prepare

    return declare


def load() -> dict[str, Workload]:
    """All rows, by name."""
    from workloads import compute, files, memory, overhead, training

    return WORKLOADS
