"""Random programs over tensors, to be run by flambeau under any window and by numpy.

A program is a list of instructions ``(code, a, b, c)`` of small numbers; what they mean follows
from the shapes of the variables at that point, so any list is a program and shrinking works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import flambeau as torch
from flambeau.engine.tape import thread

Instruction = tuple[int, int, int, int]


@contextmanager
def window(calls: int) -> Iterator[None]:
    """Flushes after so many calls inside the block."""
    before = torch.config.window
    torch.config.window = calls
    try:
        yield
    finally:
        torch.config.window = before


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads share the work inside the block."""
    before = torch.get_num_threads()
    thread.tape.flush()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        thread.tape.flush()
        torch.set_num_threads(before)


class TensorMachine:
    """The operations of a program on flambeau's tensors."""

    def __init__(self) -> None:
        self.exports: list[np.ndarray] = []

    def start(self, array: np.ndarray) -> Any:
        return torch.tensor(array.tolist(), dtype=torch.float32).reshape(array.shape)

    def strides(self, x: Any) -> tuple[int, ...]:
        return tuple(x.stride())

    def memory(self, x: Any) -> int:
        return id(x._storage)

    def combine(self, x: Any, y: Any, add: bool) -> Any:
        return (x + y) * 0.5 if add else x * y - 0.25

    def tanh(self, x: Any) -> Any:
        return x.tanh()

    def relu(self, x: Any) -> Any:
        return x.relu()

    def where_positive(self, x: Any, y: Any) -> Any:
        return torch.where(x > 0, x, y)

    def sum(self, x: Any, dim: int, keepdim: bool) -> Any:
        return x.sum(dim, keepdim) * 0.25

    def sum_all(self, x: Any) -> Any:
        return x.sum() * 0.125

    def largest(self, x: Any, dim: int) -> Any:
        return x.amax(dim)

    def mean_of_some(self, x: Any) -> Any:
        return x.mean((0, x.ndim - 1))

    def product(self, x: Any, y: Any) -> Any:
        return (x @ y.t()) * 0.1

    def transposed(self, x: Any) -> Any:
        return x.transpose(0, x.ndim - 1)

    def narrowed(self, x: Any, dim: int, start: int, stop: int, step: int) -> Any:
        return x[(slice(None),) * dim + (slice(start, stop, step),)]

    def selected(self, x: Any, dim: int, k: int) -> Any:
        return x.select(dim, k)

    def flat(self, x: Any) -> Any:
        return x.reshape(-1)

    def repeated(self, x: Any, count: int) -> Any:
        return x.unsqueeze(0).expand(count, *x.shape)

    def copy(self, x: Any) -> Any:
        return x.clone()

    def add_into(self, x: Any, y: Any) -> None:
        x.add_(y)

    def multiply_into(self, x: Any, y: Any) -> None:
        x.mul_(y)

    def assign(self, x: Any, y: Any) -> None:
        x.copy_(y)

    def fill(self, x: Any, number: float) -> None:
        x.fill_(number)

    def read(self, x: Any) -> None:
        x.tolist()

    def flush(self) -> None:
        thread.tape.flush()

    def export(self, x: Any) -> None:
        array = x.numpy()
        array += 0.5
        self.exports.append(array)

    def change_exports(self) -> None:
        for array in self.exports:
            array *= 0.5

    def drop_exports(self) -> None:
        self.exports.clear()

    def result(self, x: Any) -> np.ndarray:
        return np.array(x.tolist(), np.float32).reshape(tuple(x.shape))


class ArrayMachine(TensorMachine):
    """The same on numpy's arrays, whose views alias as tensors do."""

    def start(self, array: np.ndarray) -> Any:
        return array.copy()

    def strides(self, x: Any) -> tuple[int, ...]:
        return tuple(s // 4 for s in x.strides)

    def memory(self, x: Any) -> int:
        while getattr(x, "base", None) is not None:
            x = x.base
        return id(x)

    def combine(self, x: Any, y: Any, add: bool) -> Any:
        return np.asarray(super().combine(x, y, add), np.float32)

    def tanh(self, x: Any) -> Any:
        return np.asarray(np.tanh(x))

    def relu(self, x: Any) -> Any:
        return np.asarray(np.maximum(x, 0))

    def where_positive(self, x: Any, y: Any) -> Any:
        return np.asarray(np.where(x > 0, x, y))

    def sum(self, x: Any, dim: int, keepdim: bool) -> Any:
        return np.asarray(x.sum(dim, keepdims=keepdim) * np.float32(0.25))

    def sum_all(self, x: Any) -> Any:
        return np.asarray(x.sum() * np.float32(0.125))

    def largest(self, x: Any, dim: int) -> Any:
        return np.asarray(x.max(dim))

    def mean_of_some(self, x: Any) -> Any:
        return np.asarray(x.mean(tuple({0, x.ndim - 1})))

    def product(self, x: Any, y: Any) -> Any:
        return (x @ y.T) * np.float32(0.1)

    def transposed(self, x: Any) -> Any:
        return x.swapaxes(0, x.ndim - 1)

    def selected(self, x: Any, dim: int, k: int) -> Any:
        return x[(slice(None),) * dim + (k, ...)]

    def repeated(self, x: Any, count: int) -> Any:
        strides = (0, *x.strides)
        return np.lib.stride_tricks.as_strided(x, (count, *x.shape), strides, writeable=True)

    def copy(self, x: Any) -> Any:
        return x.copy()

    def add_into(self, x: Any, y: Any) -> None:
        x += y if isinstance(y, np.ndarray) else np.float32(y)

    def multiply_into(self, x: Any, y: Any) -> None:
        x *= y if isinstance(y, np.ndarray) else np.float32(y)

    def assign(self, x: Any, y: Any) -> None:
        x[...] = y

    def fill(self, x: Any, number: float) -> None:
        x[...] = number

    def read(self, x: Any) -> None:
        pass

    def flush(self) -> None:
        pass

    def export(self, x: Any) -> None:
        x += np.float32(0.5)
        self.exports.append(x)

    def change_exports(self) -> None:
        for array in self.exports:
            array *= np.float32(0.5)

    def result(self, x: Any) -> np.ndarray:
        return np.array(x)


class _Run:
    """One execution: the variables, and what each code does to them."""

    def __init__(self, machine: TensorMachine) -> None:
        self.m = machine
        rng = np.random.default_rng(7)
        shapes = [(4, 5), (4, 5), (5,), (3, 4, 5), (17,)]
        self.variables = [machine.start(rng.uniform(-1, 1, s).astype(np.float32)) for s in shapes]

    def partner(self, x: Any, b: int) -> Any:
        """A variable that broadcasts with ``x`` to the shape of ``x``, or a number."""
        fitting = [
            y for y in self.variables
            if len(y.shape) <= len(x.shape)
            and all(n in (1, m) for n, m in zip(y.shape[::-1], x.shape[::-1]))
        ]  # fmt: skip
        return fitting[b % len(fitting)] if b % 5 and fitting else 0.5

    def writable(self, x: Any) -> bool:
        pairs = zip(x.shape, self.m.strides(x))
        return all(stride != 0 or n == 1 for n, stride in pairs)

    def apart(self, x: Any, y: Any) -> bool:
        return isinstance(y, float) or x is y or self.m.memory(x) != self.m.memory(y)

    def step(self, instruction: Instruction) -> None:
        code, a, b, c = instruction
        x = self.variables[a % len(self.variables)]
        made = _CODES[code % len(_CODES)](self, x, b, c)
        if made is not None and _size(made) <= 2000:
            self.variables.append(made)

    def pointwise(self, x: Any, b: int, c: int) -> Any:
        return self.m.combine(x, self.partner(x, b), bool(c % 2))

    def function(self, x: Any, b: int, c: int) -> Any:
        return self.m.tanh(x) if b % 2 else self.m.relu(x)

    def choice(self, x: Any, b: int, c: int) -> Any:
        y = self.partner(x, b)
        return None if isinstance(y, float) else self.m.where_positive(x, y)

    def shape_view(self, x: Any, b: int, c: int) -> Any:
        if len(x.shape) >= 2 and b % 2:
            return self.m.transposed(x)
        return self.m.flat(x)

    def part(self, x: Any, b: int, c: int) -> Any:
        if not len(x.shape):
            return None
        dim = b % len(x.shape)
        n = x.shape[dim]
        if n and c % 3 == 0:
            return self.m.selected(x, dim, c % n)
        return self.m.narrowed(x, dim, c % (n + 1), n - (b // 7) % 2, 1 + c % 2)

    def repeat(self, x: Any, b: int, c: int) -> Any:
        return self.m.repeated(x, 1 + b % 3)

    def reduce(self, x: Any, b: int, c: int) -> Any:
        if not len(x.shape) or c % 5 == 0:
            return self.m.sum_all(x)
        dim = b % len(x.shape)
        if c % 5 == 1 and _size(x):
            return self.m.largest(x, dim)
        if c % 5 == 2 and len(x.shape) > 1 and _size(x):
            return self.m.mean_of_some(x)
        return self.m.sum(x, dim, bool(c % 2))

    def multiply(self, x: Any, b: int, c: int) -> Any:
        if len(x.shape) != 2:
            return None
        fitting = [y for y in self.variables if len(y.shape) == 2 and y.shape[1] == x.shape[1]]
        return self.m.product(x, fitting[b % len(fitting)])

    def clone(self, x: Any, b: int, c: int) -> Any:
        return self.m.copy(x)

    def change(self, x: Any, b: int, c: int) -> None:
        y = self.partner(x, b)
        if not self.writable(x) or not self.apart(x, y):
            return
        if c % 4 == 0 and not isinstance(y, float):
            self.m.assign(x, y)
        elif c % 4 == 1:
            self.m.fill(x, 0.125 * (b % 8))
        elif c % 4 == 2:
            self.m.multiply_into(x, y)
        else:
            self.m.multiply_into(x, 0.5)
            self.m.add_into(x, y)

    def forget(self, x: Any, b: int, c: int) -> None:
        if len(self.variables) > 3:
            self.variables = [y for y in self.variables if y is not x]

    def look(self, x: Any, b: int, c: int) -> None:
        if b % 2:
            self.m.read(x)
        else:
            self.m.flush()

    def outside(self, x: Any, b: int, c: int) -> None:
        if b % 3 == 0:
            self.m.drop_exports()
        elif b % 3 == 1:
            self.m.change_exports()
        elif self.writable(x) and _size(x):
            self.m.export(x)


_CODES: Sequence[Callable[[_Run, Any, int, int], Any]] = (
    _Run.pointwise, _Run.pointwise, _Run.pointwise, _Run.function, _Run.choice, _Run.shape_view,
    _Run.part, _Run.part, _Run.repeat, _Run.reduce, _Run.reduce, _Run.multiply, _Run.clone,
    _Run.change, _Run.change, _Run.change, _Run.forget, _Run.forget, _Run.look, _Run.outside,
)  # fmt: skip


def _size(x: Any) -> int:
    size = 1
    for n in x.shape:
        size *= n
    return size


def run_program(machine: TensorMachine, program: Sequence[Instruction]) -> list[np.ndarray]:
    """The variables' values at the end."""
    run = _Run(machine)
    for instruction in program:
        run.step(instruction)
    return [machine.result(x) for x in run.variables]
