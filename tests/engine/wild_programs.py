"""Random programs over the whole library, for comparing flambeau with itself.

Unlike `programs`, nobody else can run them: they use gradients, other threads, memory that the
outside writes, and mistakes.  A program is a list of instructions ``(code, a, b, c)`` of small
numbers; any list is a program.  What it leaves is the bits of every variable and gradient, and the
errors that were raised on the way.

    python -m tests.engine.wild_programs [seconds] [first seed]     # look for a difference
"""

from __future__ import annotations

import ctypes
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import flambeau as torch
from flambeau.engine.tape import thread
from tests.engine.programs import Instruction, threads, window

F = torch.nn.functional
Outcome = tuple[list[tuple[str, tuple[int, ...], bytes]], list[str]]

_MOST_ELEMENTS = 60_000
_MOST_VARIABLES = 14

FUNCTIONS: Sequence[Callable[[Any], Any]] = (
    lambda x: x.exp(), lambda x: x.sigmoid(), lambda x: x.abs().sqrt(), lambda x: -x,
    lambda x: x.sin() * x.cos(), lambda x: F.gelu(x), lambda x: F.silu(x), lambda x: x.tanh(),
    lambda x: x.relu(), lambda x: x.clamp(-0.5, 0.5), lambda x: x.float(), lambda x: x.double(),
    lambda x: x > 0.1, lambda x: x.bfloat16(), lambda x: x.half(), lambda x: (x * 8).int(),
    lambda x: x.round(), lambda x: x.sign(), lambda x: x + 1, lambda x: 2.0 / (x.abs() + 1.0),
    lambda x: x.square(), lambda x: x.log1p(), lambda x: x.floor(), lambda x: x.isnan(),
    lambda x: x.detach(), lambda x: x.clone(), lambda x: x.logical_not(), lambda x: x.erf(),
)  # fmt: skip

ALONG: Sequence[Callable[[Any, int], Any]] = (
    lambda x, d: x.softmax(d), lambda x, d: x.log_softmax(d), lambda x, d: x.cumsum(d),
    lambda x, d: x.sum(d), lambda x, d: x.mean(d, keepdim=True), lambda x, d: x.amax(d),
    lambda x, d: x.argmax(d), lambda x, d: x.var(d, correction=0), lambda x, d: x.flip(d),
    lambda x, d: x.sort(d).values, lambda x, d: x.roll(1, d), lambda x, d: x.std(d, correction=0),
    lambda x, d: torch.cat([x, x * 2], d), lambda x, d: torch.stack([x, x], d),
    lambda x, d: x.chunk(2, d)[-1], lambda x, d: x.unsqueeze(d), lambda x, d: x.logsumexp(d),
    lambda x, d: x.topk(min(2, x.shape[d]), d).values, lambda x, d: x.norm(dim=d),
    lambda x, d: x.prod(d), lambda x, d: x.any(d), lambda x, d: x.cumprod(d),
    lambda x, d: x.gather(d, x.argsort(d)), lambda x, d: x.max(d).values,
    lambda x, d: x.diff(dim=d),
)  # fmt: skip

PAIRS: Sequence[Callable[[Any, Any], Any]] = (
    lambda x, y: x + y, lambda x, y: x * y, lambda x, y: x - y * 0.5, lambda x, y: x / (y + 3.0),
    lambda x, y: torch.maximum(x, y), lambda x, y: torch.where(x > y, x, y), lambda x, y: x < y,
    lambda x, y: torch.addcmul(x, x, y, value=0.5), lambda x, y: x.lerp(y, 0.25),
    lambda x, y: torch.atan2(x, y), lambda x, y: x.pow(2) + y, lambda x, y: torch.hypot(x, y),
    lambda x, y: x.masked_fill(y > 0, 0.5), lambda x, y: F.mse_loss(x, y),
    lambda x, y: x.copysign(y), lambda x, y: torch.cat([x.flatten(), y.flatten()]),
)  # fmt: skip

CHANGES: Sequence[Callable[[Any, Any], Any]] = (
    lambda x, y: x.add_(y), lambda x, y: x.mul_(y), lambda x, y: x.copy_(y),
    lambda x, y: x.fill_(0.25), lambda x, y: x.zero_(), lambda x, y: x.clamp_(-1, 1),
    lambda x, y: x.masked_fill_(y > 0, -0.5), lambda x, y: x.sub_(y, alpha=0.5),
    lambda x, y: x.addcmul_(y, y, value=0.1), lambda x, y: x.sigmoid_(), lambda x, y: x.neg_(),
    lambda x, y: x.lerp_(y, 0.5), lambda x, y: torch.add(x, y, out=x), lambda x, y: x.t_(),
    lambda x, y: torch.mul(x, 0.5, out=x), lambda x, y: x.__setitem__(0, y[0]),
    lambda x, y: x.__setitem__(x > 0.5, 0.125), lambda x, y: x.copy_(x.flip(0)),
    lambda x, y: x[1:].copy_(x[:-1]), lambda x, y: x[1:].add_(y[:-1]), lambda x, y: x.add_(x.t()),
)  # fmt: skip

MISTAKES: Sequence[Callable[[Any], Any]] = (
    lambda x: x + torch.ones(7, 13, 3), lambda x: x[1000], lambda x: x.sum(9),
    lambda x: x @ torch.ones(171, 2), lambda x: x.view(-1, 997), lambda x: torch.cat([x, x[None]]),
    lambda x: x.reshape(3, -1, 1009), lambda x: x.backward(), lambda x: x.expand(2, 3, 4, 5, 6, 7),
    lambda x: torch.ones(3).index_select(0, torch.tensor([5])),
)  # fmt: skip


class Run:
    """One execution of a program."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        shapes = [(4, 5), (5,), (3, 4, 5), (33, 70), (17,), (9, 9), (130, 257), (0, 5), (1,)]
        self.variables = [
            torch.tensor(rng.uniform(-1, 1, s).astype(np.float32)).clone() for s in shapes
        ]
        for k in (1, 3, 5):
            self.variables[k].requires_grad_()
        self.leaves = [self.variables[k] for k in (1, 3, 5)]
        self.errors: list[str] = []
        self.exports: list[Any] = []

    def step(self, instruction: Instruction) -> None:
        code, a, b, c = instruction
        x = self.variables[a % len(self.variables)]
        y = self.variables[b % len(self.variables)]
        try:
            made = _CODES[code % len(_CODES)](self, x, y, b, c)
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            return
        if isinstance(made, torch.Tensor) and made.numel() <= _MOST_ELEMENTS:
            self.variables.append(made)
            if len(self.variables) > _MOST_VARIABLES:
                del self.variables[c % 9]

    def function(self, x: Any, y: Any, b: int, c: int) -> Any:
        return FUNCTIONS[b % len(FUNCTIONS)](x)

    def along(self, x: Any, y: Any, b: int, c: int) -> Any:
        return ALONG[b % len(ALONG)](x, c % max(x.ndim, 1))

    def pair(self, x: Any, y: Any, b: int, c: int) -> Any:
        return PAIRS[c % len(PAIRS)](x, y)

    def matching(self, x: Any, y: Any, b: int, c: int) -> Any:
        fitting = [v for v in self.variables if v.shape == x.shape]
        return PAIRS[c % len(PAIRS)](x, fitting[b % len(fitting)])

    def product(self, x: Any, y: Any, b: int, c: int) -> Any:
        if c % 3 == 0:
            return x @ x.mT
        if c % 3 == 1 and x.ndim == 2:
            return F.linear(x, x, x[:, 0]).relu()
        return x @ y

    def view(self, x: Any, y: Any, b: int, c: int) -> Any:
        dim = c % max(x.ndim, 1)
        match b % 9:
            case 0:
                return x.transpose(0, -1)
            case 1:
                return x.flatten()
            case 2:
                return x.narrow(dim, c % x.shape[dim], 1)
            case 3:
                return x.select(dim, c % x.shape[dim])
            case 4:
                return x[(slice(None),) * dim + (slice(c % 3, None, 1 + c % 2),)]
            case 5:
                return x.unsqueeze(0).expand(2, *x.shape)
            case 6:
                return x.unfold(dim, min(2, x.shape[dim]), 1)
            case 7:
                return x.diagonal(0, 0, 1)
            case _:
                return x.as_strided((2, 3), (1, 1), c % 3)

    def layer(self, x: Any, y: Any, b: int, c: int) -> Any:
        match b % 8:
            case 0:
                return F.layer_norm(x, x.shape[-1:])
            case 1:
                return F.conv1d(x.reshape(1, 1, -1), torch.ones(2, 1, 3) * 0.5, padding=1)
            case 2:
                return F.max_pool1d(x.reshape(1, 1, -1), 2)
            case 3:
                return F.embedding((x.reshape(-1)[:20] * 3).abs().long() % x.shape[0], x)
            case 4:
                return F.dropout(x, 0.5)
            case 5:
                return F.cross_entropy(
                    x, (y.reshape(-1)[: x.shape[0]].abs() * 4).long() % x.shape[1]
                )
            case 6:
                q = x.reshape(1, 1, -1, x.shape[-1])
                return F.scaled_dot_product_attention(q, q, q, is_causal=bool(c % 2))
            case _:
                return F.pad(x, (1, 2), value=0.5)

    def draw(self, x: Any, y: Any, b: int, c: int) -> Any:
        match b % 5:
            case 0:
                return torch.randn(x.shape)
            case 1:
                return torch.rand_like(x)
            case 2:
                return torch.randint(0, 5, x.shape)
            case 3:
                return torch.randperm(c + 1).float()
            case _:
                return x.detach().clone().normal_()

    def index(self, x: Any, y: Any, b: int, c: int) -> Any:
        rows = torch.tensor([b % x.shape[0], c % x.shape[0], 0])
        match c % 5:
            case 0:
                return x[rows]
            case 1:
                return x.index_select(0, rows)
            case 2:
                return x.index_add(0, rows, x[:3] if x.shape[0] >= 3 else x[rows])
            case 3:
                return x[x > 0]
            case _:
                return torch.zeros_like(x).index_put_((rows,), x[rows], accumulate=True)

    def change(self, x: Any, y: Any, b: int, c: int) -> None:
        with torch.set_grad_enabled(bool(b % 3 == 0)):
            CHANGES[c % len(CHANGES)](x, y)

    def change_matching(self, x: Any, y: Any, b: int, c: int) -> None:
        fitting = [v for v in self.variables if v.shape == x.shape]
        with torch.no_grad():
            CHANGES[c % len(CHANGES)](x, fitting[b % len(fitting)])

    def forget(self, x: Any, y: Any, b: int, c: int) -> None:
        if len(self.variables) > 5:
            del self.variables[b % len(self.variables)]

    def look(self, x: Any, y: Any, b: int, c: int) -> None:
        match c % 6:
            case 0:
                self.errors.append(str(x.detach().double().nan_to_num().sum().item()))
            case 1:
                self.errors.append(repr(x))
            case 2:
                torch.synchronize()
            case 3:
                self.errors.append(str(bool((x > 0).any())))
            case 4:
                x.tolist()
            case _:
                x.detach().numpy()

    def outside(self, x: Any, y: Any, b: int, c: int) -> None:
        """Memory that others see and write."""
        match b % 6:
            case 0:
                self.exports.append(x.detach().numpy())
            case 1:
                self.exports.append(np.from_dlpack(x.detach()))
            case 2:
                for array in self.exports:
                    if array.flags.writeable and array.dtype.kind == "f":
                        array *= 0.5
            case 3:
                self.exports.clear()
            case 4:
                if x.dtype is torch.float32 and x.is_contiguous() and x.numel():
                    pointer = x.data_ptr()
                    ctypes.c_float.from_address(pointer).value += 0.25
            case _:
                self.variables.append(torch.from_numpy(np.arange(6, dtype=np.float32)))

    def differentiate(self, x: Any, y: Any, b: int, c: int) -> Any:
        loss = (x.float() * x.float()).nan_to_num().sum()
        if b % 3 == 0:
            loss.backward()
            return None
        leaf = self.leaves[b % 3]
        (gradient,) = torch.autograd.grad(loss, [leaf], retain_graph=bool(c % 2), allow_unused=True)
        return gradient

    def descend(self, x: Any, y: Any, b: int, c: int) -> None:
        optimizer = (torch.optim.SGD if b % 2 else torch.optim.Adam)(self.leaves, lr=0.05)
        optimizer.step()
        if c % 2:
            optimizer.zero_grad()

    def elsewhere(self, x: Any, y: Any, b: int, c: int) -> Any:
        """A piece of the program in another thread; what it returns may still be pending there."""
        made: list[Any] = []

        def work() -> None:
            try:
                made.append(FUNCTIONS[b % len(FUNCTIONS)](x) * 0.5)
                if c % 3 == 0:
                    with torch.no_grad():
                        y.mul_(0.5)
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        return made[0] if made else None

    def at_once(self, x: Any, y: Any, b: int, c: int) -> Any:
        """Three threads read the same pending tensors at the same time."""
        made: list[Any] = [None] * 3

        def work(k: int) -> None:
            made[k] = (x.detach() * (k + 1.0) + y.detach().double().sum()).sum()
            if c % 2:
                made[k].item()

        workers = [threading.Thread(target=work, args=(k,)) for k in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return torch.stack(made)

    def mistake(self, x: Any, y: Any, b: int, c: int) -> None:
        """An error in the middle of other work, whose results must still be right."""
        z = x * 1.5
        self.variables.append(z)
        MISTAKES[b % len(MISTAKES)](z)

    def outcome(self) -> Outcome:
        tensors = [*self.variables, *(leaf.grad for leaf in self.leaves if leaf.grad is not None)]
        return [_bits(t) for t in tensors], self.errors


def _bits(tensor: Any) -> tuple[str, tuple[int, ...], bytes]:
    tensor = tensor.detach()
    kept = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
    array = kept.numpy()
    if array.dtype.kind == "f":
        # Which NaN it is says nothing.
        array = np.where(np.isnan(array), array.dtype.type("nan"), array)
    return str(tensor.dtype), tuple(tensor.shape), array.tobytes()


_CODES: Sequence[Callable[[Run, Any, Any, int, int], Any]] = (
    Run.function, Run.function, Run.function, Run.along, Run.along, Run.pair, Run.matching,
    Run.matching, Run.product, Run.view, Run.view, Run.view, Run.layer, Run.draw, Run.index,
    Run.change, Run.change_matching, Run.change_matching, Run.change_matching, Run.forget,
    Run.forget, Run.look, Run.outside, Run.outside, Run.differentiate, Run.differentiate,
    Run.descend, Run.elsewhere, Run.at_once, Run.mistake,
)  # fmt: skip


def run_wild(program: Sequence[Instruction], seed: int = 0) -> Outcome:
    run = Run(seed)
    for instruction in program:
        run.step(instruction)
    return run.outcome()


def wild_program(seed: int) -> list[Instruction]:
    draw = random.Random(seed)
    length = draw.randrange(10, 60)
    return [
        (draw.randrange(len(_CODES)), *(draw.randrange(64) for _ in range(3)))
        for _ in range(length)
    ]


def difference(program: Sequence[Instruction], seed: int = 0) -> str:
    """What depends on the window or on the number of threads, or what is a mistake of flambeau's
    own; empty if nothing is wrong.
    """
    try:
        return _difference(program, seed)
    except Exception as error:
        thread.tape.clear()
        return f"{type(error).__name__}: {error}"


def _difference(program: Sequence[Instruction], seed: int) -> str:
    with window(1):
        alone = run_wild(program, seed)
    for error in alone[1]:
        if "bug in flambeau" in error:
            return error
    for calls, workers in ((3, 1), (1024, 1), (1024, 2), (20, 3)):
        with window(calls), threads(workers):
            found = run_wild(program, seed)
        if found != alone:
            return f"window {calls}, {workers} threads: {_first_difference(alone, found)}"
    return ""


def _first_difference(alone: Outcome, found: Outcome) -> str:
    for one, other in zip(alone[1], found[1], strict=False):
        if one != other:
            return f"{one[:300]!r} became {other[:300]!r}"
    for k, (one, other) in enumerate(zip(alone[0], found[0], strict=False)):
        if one != other:
            return f"variable {k}, {one[:2]} and {other[:2]}"
    return f"{len(alone[0])} and {len(found[0])} results, {len(alone[1])}, {len(found[1])} errors"


def smallest(program: list[Instruction], seed: int) -> list[Instruction]:
    """A shorter program that still shows a difference."""
    k = 0
    while k < len(program):
        shorter = program[:k] + program[k + 1 :]
        if difference(shorter, seed):
            program = shorter
        else:
            k += 1
    return program


def main(seconds: float, seed: int) -> None:
    end = time.monotonic() + seconds
    runs = 0
    while time.monotonic() < end:
        program = wild_program(seed)
        print(f"\rseed {seed}", end="", file=sys.stderr, flush=True)
        text = difference(program, seed)
        if text:
            program = smallest(program, seed)
            print(f"\nseed {seed}: {difference(program, seed)[:900]}")
            for code, a, b, c in program:
                print(f"    {_CODES[code % len(_CODES)].__name__} {a} {b} {c}", flush=True)
        seed += 1
        runs += 1
    print(f"\n{runs} programs")


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:3]), *((60, 0)[len(sys.argv) - 1 :]))
