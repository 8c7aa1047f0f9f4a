"""Whatever a compiled function reads may change between calls: each change must be noticed."""

from __future__ import annotations

import functools
import math
import random
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest

import flambeau as torch
from tests.capture.programs import agree, recorded, replayed

nn = torch.nn
F = nn.functional

FACTOR = 2.0
TABLE = {"scale": 3.0, "shift": [1.0, 2.0]}


class Settings:
    scale = 2.0
    mode = "plain"


settings = Settings()


def helper(x):
    return x * 2


@dataclass
class Options:
    power: float = 2.0


def alternate(change, calls=10):
    """A program that calls ``f`` and changes something before every third call."""

    def run(f, make=lambda: torch.randn(3)):
        results = []
        for k in range(calls):
            if k % 3 == 2:
                change(k)
            results.append(f(make()))
        return results

    return run


def test_globals():
    def program(compile):
        global FACTOR
        f = compile(lambda x: x * FACTOR)
        FACTOR = 2.0

        def change(k):
            global FACTOR
            FACTOR = float(k)

        return alternate(change)(f)

    agree(program)


def test_globals_are_guarded_and_replayed():
    replayed(lambda compile: alternate(lambda k: None)(compile(lambda x: x * FACTOR)))


def test_a_global_function_that_is_replaced():
    def program(compile):
        global helper
        original = helper
        f = compile(lambda x: helper(x))

        def change(k):
            global helper
            helper = (lambda x: x + k) if k % 2 else original

        try:
            return alternate(change, 20)(f)
        finally:
            helper = original

    agree(program)


def test_code_defaults_and_closures_of_functions():
    def program(compile):
        cell = 1.0

        def inner(x, add=1.0):
            return x * cell + add

        f = compile(lambda x: inner(x))

        def change(k):
            nonlocal cell
            if k % 2:
                cell = float(k)
            else:
                inner.__defaults__ = (float(k),)

        return alternate(change, 20)(f)

    agree(program)


def test_lists_and_dictionaries():
    def program(compile):
        table = {"scale": 3.0, "shift": [1.0, 2.0]}
        f = compile(lambda x: x * table["scale"] + sum(table["shift"]) + len(table))

        def change(k):
            match k % 4:
                case 0:
                    table["scale"] = float(k)
                case 1:
                    table["shift"].append(float(k))
                case 2:
                    table[k] = None
                case 3:
                    table["shift"][0] = k * 0.5

        return alternate(change, 24)(f)

    agree(program)


def test_attributes_of_instances_and_classes():
    def program(compile):
        class Own(Settings):
            pass

        own = Own()
        f = compile(lambda x: x * own.scale)

        def change(k):
            match k % 3:
                case 0:
                    own.scale = float(k)
                case 1:
                    Own.scale = float(k) + 1
                    own.__dict__.clear()
                case 2:
                    own.other = k

        return alternate(change, 30)(f)

    agree(program)


def test_an_instance_attribute_that_comes_to_hide_the_class():
    own = Settings()
    f = torch.compile(lambda x: x * own.scale)
    for _ in range(5):
        assert f(torch.ones(1)).item() == 2
    assert f.replays
    own.scale = 5.0
    assert f(torch.ones(1)).item() == 5
    Settings.scale, before = 7.0, Settings.scale
    del own.scale
    try:
        assert f(torch.ones(1)).item() == 7
    finally:
        Settings.scale = before


def test_methods_properties_and_asking_for_attributes():
    def program(compile):
        class Layer:
            def __init__(self):
                self.weight = torch.ones(3)
                self._bias = 1.0

            @property
            def bias(self):
                return self._bias

            def apply(self, x):
                if hasattr(self, "extra"):
                    x = x + self.extra
                return x * self.weight + self.bias + getattr(self, "more", 0)

        layer = Layer()
        f = compile(layer.apply)

        def change(k):
            match k % 5:
                case 0:
                    layer._bias = float(k)
                case 1:
                    layer.extra = 1.0
                case 2:
                    layer.weight = torch.full((3,), float(k))
                case 3:
                    layer.more = k
                case 4:
                    Layer.apply = lambda self, x: x - 1

        return alternate(change, 36)(f)

    agree(program)


def test_dataclasses_and_partials_as_arguments():
    def program(compile):
        def function(x, options, finish):
            return finish(x**options.power)

        f = compile(function)
        options = Options()
        results = []
        for k in range(16):
            if k % 4 == 3:
                options.power = float(k % 3)
            finish = functools.partial(torch.add, other=1) if k < 8 else torch.neg
            results.append(f(torch.rand(3), options, finish))
        return results

    agree(program)


def test_tensors_in_variables():
    def program(compile):
        weight = torch.ones(3)
        f = compile(lambda x: x * weight)
        results = []
        for k in range(24):
            match k % 8:
                case 2:
                    weight = weight + 1
                case 3:
                    weight.detach().mul_(2)
                case 4:
                    weight = torch.full((3,), float(k))
                case 5:
                    weight.requires_grad_(not weight.requires_grad)
                case 6:
                    weight.data = torch.full((3,), float(k))
                case 7:
                    weight = weight.detach()[None].expand(2, 3)
            results.append(f(torch.randn(3)))
        return results

    agree(program)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Sequential(nn.ReLU(), nn.Linear(5, 2))
        self.scale = 1.0
        self.blocks = [lambda x: x + 1, lambda x: x * 2]

    def forward(self, x):
        x = self.drop(self.norm(self.first(x)))
        for block in self.blocks:
            x = block(x)
        return self.last(x) * self.scale


def test_modules():
    def program(compile):
        net = Net()
        f = compile(net)
        results = []
        for k in range(60):
            match k % 20:
                case 3:
                    net.eval()
                case 5:
                    net.train()
                case 6:
                    net.scale = float(k)
                case 8:
                    net.last[1] = nn.Linear(5, 2)
                case 10:
                    net.first.weight.data = torch.randn(5, 4)
                case 11:
                    net.first.requires_grad_(False)
                case 12:
                    net.blocks.append(lambda x: -x)
                case 13:
                    net.last.append(nn.Tanh())
                case 14:
                    net.drop.p = 0.1
                case 15:
                    net.norm.momentum = 0.3
                case 16:
                    net.first.forward = lambda x: x[:, [0, 1, 2, 3, 0]]
                case 17:
                    net.norm.running_mean = torch.ones(5)
                case 18:
                    net.double()
            kind = next(net.parameters()).dtype
            results += [
                f(torch.randn(3, 4, dtype=kind)),
                net.norm.running_mean,
                net.norm.num_batches_tracked,
            ]
            if k % 20 == 18:
                net.float()
        return results

    agree(program)


def test_modules_are_replayed_in_both_modes():
    def program(compile):
        net = Net()
        f = compile(net)
        results = []
        for k in range(16):
            net.train(k % 2 == 0)
            results += [f(torch.randn(3, 4)), net.norm.running_var]
        return results

    agree(program)


def test_hooks_of_modules():
    def program(compile):
        net = Net()
        f = compile(net)
        results = []
        for k in range(30):
            if k == 6:
                handle = net.first.register_forward_hook(lambda m, i, o: o * 2)
            if k == 12:
                handle.remove()
            if k == 18:
                handle = net.register_forward_pre_hook(lambda m, i: (i[0] + 1,))
            if k == 24:
                handle.remove()
            results.append(f(torch.randn(3, 4)))
        return results

    agree(program)


def test_hooks_of_tensors():
    def program(compile):
        net = nn.Linear(3, 2)
        f = compile(lambda x: net(x).sum())
        seen = []
        for k in range(16):
            if k == 8:
                net.weight.register_hook(lambda grad: grad * 2)
            net.zero_grad()
            f(torch.ones(2, 3)).backward()
            seen.append(net.weight.grad)
        return seen

    agree(program)


@pytest.mark.parametrize(
    "change, reason",
    [
        ("counter['n'] += 1", "changes"),
        ("log.append(x)", "changes"),
        ("own.last = x", "changes"),
        ("random.random()", "calls Random.random()"),
        ("time.time()", "calls time.time()"),
        ("np.random.rand()", "numpy"),
        ("torch.manual_seed(0)", "random generator"),
        ("x._version", "_version"),
    ],
)
def test_functions_with_effects_are_recorded(change, reason):
    def program(compile):
        counter, log, own = {"n": 0}, [], Settings()
        scope = {"counter": counter, "log": log, "own": own, "__name__": "a_program"}
        scope.update(random=random, time=time, np=np, torch=torch)
        exec(f"def function(x):\n    {change}\n    return x + len(log) + counter['n']", scope)
        f = compile(scope["function"])
        return [f(torch.ones(3)) for _ in range(8)] + [len(log), counter["n"]]

    recorded(program, reason)


def test_first_calls_that_build_state_do_not_matter():
    def program(compile):
        class Lazy:
            weight = None

            def __call__(self, x):
                if self.weight is None:
                    self.weight = torch.ones(x.shape[-1])
                return x * self.weight

        f = compile(Lazy())
        return [f(torch.randn(3)) for _ in range(8)]

    replayed(program, 2)


def test_generators_of_their_own():
    def program(compile):
        generator = torch.Generator().manual_seed(3)
        f = compile(lambda x: x + torch.rand(3, generator=generator))
        return [f(torch.zeros(3)) for _ in range(6)]

    replayed(program, 2)


def test_threads():
    weight = torch.ones(3)
    f = torch.compile(lambda x: (x * weight + math.pi).sum())
    expected = [((torch.full((3,), float(k)) * weight) + math.pi).sum().item() for k in range(40)]
    found: dict[int, list[float]] = {}

    def work(number):
        found[number] = [f(torch.full((3,), float(k))).item() for k in range(40)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(3)] == [expected] * 3
    assert [f(torch.full((3,), float(k))).item() for k in range(40)] == expected


def test_memory_that_numpy_sees():
    array = np.ones(3, np.float32)
    shared = torch.from_numpy(array)
    f = torch.compile(lambda x: x + shared)
    for k in range(10):
        array[:] = k
        assert f(torch.ones(3)).tolist() == [k + 1.0] * 3


def test_user_functions_of_autograd():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * 2 + x * 0

    def program(compile):
        f = compile(lambda x: Double.apply(x).sum())
        results = []
        for _ in range(8):
            x = torch.randn(3, requires_grad=True)
            y = f(x)
            y.backward()
            results += [y, x.grad]
        return results

    agree(program)


def test_classes_and_short_lived_objects_as_arguments():
    def program(compile):
        class Scale:
            factor = 1.0

        f = compile(lambda x, kind, finish: finish(x * kind.factor))
        results = []
        for k in range(24):
            if k % 5 == 4:
                Scale.factor = float(k)
            results.append(f(torch.ones(2), Scale, functools.partial(torch.add, other=k // 6)))
        return results

    agree(program)


def test_writes_into_results_that_autograd_follows():
    def program(compile):
        def function(x, y):
            x.mul_(y)
            return x.sum()

        f = compile(function)
        results = []
        for k in range(10):
            leaf = torch.randn(3, requires_grad=True)
            x = leaf * 1
            view = x[:2] if k % 2 else x
            f(view, torch.full((2,) if k % 2 else (3,), 2.0))
            x.sum().backward()
            results += [leaf.grad, x]
        return results

    agree(program)
