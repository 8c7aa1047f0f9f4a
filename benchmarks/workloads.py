"""What is measured: each workload is written once, against the API that both libraries have.

A workload is a function that takes the library (``torch`` or ``flambeau``) and returns a `Job`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MLP_BATCH = 64
LENET_BATCH = 64
LARGE = 1 << 22


@dataclass(frozen=True)
class Job:
    """One step of a workload, how to make sure it has really run, and a number that proves it."""

    step: Callable[[], Any]
    finish: Callable[[], Any]
    check: Callable[[], float]


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    prepare: Callable[[Any], Job]
    # The figure to reach: this many microseconds, or this many times PyTorch's time.
    microseconds: float | None = None
    ratio: float | None = None


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def small_pair(torch, requires_grad):
    a = torch.tensor(numbers(1, 16).tolist(), requires_grad=requires_grad)
    b = torch.tensor(numbers(2, 16).tolist())
    return a, b


def add_recorded(torch, requires_grad):
    """The result of every addition but the last is dropped unseen."""
    a, b = small_pair(torch, requires_grad)
    last = a + b

    def step():
        nonlocal last
        last = a + b

    return Job(step, lambda: last.data_ptr(), lambda: last.sum().item())


def add_without_grad(torch):
    return add_recorded(torch, requires_grad=False)


def add_with_grad(torch):
    return add_recorded(torch, requires_grad=True)


def add_forced(torch):
    """Every result is given memory and filled before the next addition."""
    a, b = small_pair(torch, requires_grad=False)

    def step():
        (a + b).data_ptr()

    return Job(step, lambda: None, lambda: (a + b).sum().item())


def relu_chain(torch):
    a, b, c = (torch.tensor(numbers(seed, LARGE)) for seed in (1, 2, 3))
    relu = torch.relu
    result = relu(a * b + c)

    def step():
        nonlocal result
        result = relu(a * b + c)
        result.data_ptr()

    return Job(step, lambda: None, lambda: result.double().mean().item())


def training(torch, model, optimizer, images, labels):
    """A step of training; the loss stays on the tape as in a program that prints it rarely."""
    criterion = torch.nn.CrossEntropyLoss()
    loss = None

    def step():
        nonlocal loss
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()

    def check():
        for _ in range(3):
            step()
        return loss.item()

    return Job(step, lambda: loss.item(), check)


def labels_of(torch, count):
    return torch.tensor(np.random.default_rng(9).integers(0, 10, count))


def mlp_adam(torch):
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = torch.tensor(numbers(5, MLP_BATCH, 784))
    return training(torch, model, optimizer, images, labels_of(torch, MLP_BATCH))


def lenet_sgd(torch):
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.tensor(numbers(6, LENET_BATCH, 1, 28, 28))
    return training(torch, model, optimizer, images, labels_of(torch, LENET_BATCH))


WORKLOADS = (
    Workload("add", "a + b, 16 elements", add_without_grad, microseconds=1.5),
    Workload("add_grad", "a + b, 16 elements, with grad", add_with_grad, microseconds=2.5),
    Workload("add_forced", "a + b, 16 elements, each result read", add_forced, microseconds=4),
    Workload("mlp", "MLP 784-128-10, batch 64, Adam step", mlp_adam, ratio=1.0),
    Workload("lenet", "LeNet-5, batch 64, SGD step", lenet_sgd, ratio=1.0),
    Workload("relu", "relu(a * b + c), 4M elements", relu_chain, ratio=0.5),
)
