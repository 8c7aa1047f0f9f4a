"""Ever new shapes: kernels are known after the first few; shapes that return are planned once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import flambeau as torch
from flambeau.compiler.jit import statistics
from flambeau.engine.tape import thread, watchers

nn = torch.nn
F = nn.functional


class Block(nn.Module):
    """One layer of a transformer over vectors of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(60, 16)
        self.norm = nn.LayerNorm(16)
        self.joined, self.out = nn.Linear(16, 48), nn.Linear(16, 60)

    def forward(self, tokens):
        x = self.table(tokens)
        q, k, v = (t.unsqueeze(1) for t in self.joined(self.norm(x)).split(16, dim=2))
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)
        return self.out(F.gelu(x))


def attention_step() -> Callable[[int], None]:
    block = Block()

    def step(length: int) -> None:
        tokens = torch.randint(0, 60, (2, length))
        F.cross_entropy(block(tokens).flatten(0, 1), tokens.flatten()).backward()
        block.zero_grad()

    return step


def convolution_step() -> Callable[[int], None]:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip

    def step(size: int) -> None:
        net(torch.randn(2, 3, size, size + 1)).square().mean().backward()
        net.zero_grad()

    return step


def kernels_new_in(step: Callable[[int], None], sizes: range) -> int:
    """How many kernels this process had not seen, wherever they came from."""
    before = statistics.compiled + statistics.disk
    for size in sizes:
        step(size)
        thread.tape.flush()
    return statistics.compiled + statistics.disk - before


@pytest.mark.parametrize("make", [attention_step, convolution_step])
def test_new_sizes_need_no_new_kernels(make):
    torch.manual_seed(0)
    step = make()
    kernels_new_in(step, range(70, 74))
    assert kernels_new_in(step, range(74, 94)) == 0


def test_a_last_batch_is_planned_once():
    torch.manual_seed(0)
    model = nn.Linear(9, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plans = []
    watchers.append(lambda tape, plan: plans.append(plan))
    try:
        for _ in range(6):
            for size in (16, 16, 16, 5):
                x, y = torch.ones(size, 9), torch.zeros(size, dtype=torch.int64)
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
        thread.tape.flush()
    finally:
        watchers.pop()
    steady = plans[len(plans) // 2 :]
    assert set(map(id, steady)) <= set(map(id, plans[: len(plans) // 2]))
    assert len(set(map(id, steady))) <= 4
