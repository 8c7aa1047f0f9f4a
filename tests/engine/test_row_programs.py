"""Random programs of reductions and work per element around them: fused or one by one, same bits.

A program is a list of small numbers, so any list is one and shrinking works.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau as torch
from tests.engine.programs import threads, window

SHAPES = [
    (1, 1), (3, 5), (64, 10), (5, 64), (70, 33), (130, 20), (7, 1), (1, 9), (2, 3, 4), (4, 130, 3),
    (3, 17, 18), (600, 17), (2, 40000), (3000, 2),
]  # fmt: skip

REDUCTIONS: list[Callable[..., torch.Tensor]] = [
    lambda x, d: x.sum(d, keepdim=True),
    lambda x, d: x.amax(d, keepdim=True),
    lambda x, d: x.mean(d).unsqueeze(d),
    lambda x, d: x.sum(d, keepdim=True, dtype=torch.float64).float(),
    lambda x, d: (x > 0).sum(d, keepdim=True).float() * 0.01,
    lambda x, d: x.var(d, keepdim=True) if x.shape[d] > 1 else x.amin(d, keepdim=True),
    lambda x, d: torch.logsumexp(x, d, keepdim=True),
    lambda x, d: x.argmax(d, keepdim=True).float() * 0.01,
    lambda x, d: x.sum(tuple(range(x.ndim)), keepdim=True) * 0.01,
]
ELEMENTWISE: list[Callable[..., torch.Tensor]] = [
    lambda x, y: x - y,
    lambda x, y: x * y * 0.5,
    lambda x, y: x / (y.abs() + 1.0),
    lambda x, y: (x - y).tanh(),
    lambda x, y: torch.where(x > y, x, y),
    lambda x, y: (x * 0.1).exp().clamp(max=10.0) + y,
    lambda x, y: x.bfloat16().float() + y,
]


def run(shape: tuple[int, ...], program: list[int], transposed: bool) -> list[bytes]:
    array = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    start = torch.tensor(array)
    if transposed:
        start = torch.tensor(np.ascontiguousarray(array.swapaxes(0, -1))).transpose(0, -1)
    variables = [start, start * 0.5]
    kept = []
    for number in program:
        kind, rest = number % 4, number // 4
        x = variables[rest % len(variables)]
        y = variables[(rest // 7) % len(variables)]
        full = torch.broadcast_shapes(x.shape, shape) == x.shape
        if kind == 0 and full:
            reduction = REDUCTIONS[(rest // 3) % len(REDUCTIONS)]
            variables.append(reduction(x, (rest // 2) % x.ndim))
        elif kind == 3 and full:
            x.sub_(y)
            continue
        else:
            variables.append(ELEMENTWISE[(rest // 5) % len(ELEMENTWISE)](x, y))
        if rest % 3 == 0:
            kept.append(variables[-1])
    kept += [variables[0], variables[-1]]
    return [x.contiguous().numpy().tobytes() for x in kept]


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(SHAPES),
    st.lists(st.integers(0, 4 * 9 * 7 * 5), min_size=1, max_size=12),
    st.booleans(),
)
def test_fusion_changes_no_bit(shape, program, transposed):
    with window(1):
        alone = run(shape, program, transposed)
    with window(1024):
        fused = run(shape, program, transposed)
        with threads(3):
            assert run(shape, program, transposed) == fused
    assert alone == fused


FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "layer_norm": lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
    "rms by hand": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "softmax by hand": lambda x: (
        (x - x.amax(-1, keepdim=True)).exp() / (x - x.amax(-1, keepdim=True)).exp().sum(-1)[:, None]
    ),
}
WIDTHS = [1, 17, 100, 2049, 17000, 70000]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_of_every_length(name, width):
    """Against the formula in float64, forward and backward, however the rows are cut."""
    rows = 70 if width < 5000 else 3
    array = np.random.default_rng(width).standard_normal((rows, width)).astype(np.float32)
    outcomes = []
    for calls in (1, 1024):
        with window(calls):
            x = torch.tensor(array, requires_grad=True)
            y = FUNCTIONS[name](x)
            (y * torch.tensor(array)[:, :1]).sum().backward()
            outcomes.append([y.detach().numpy().tobytes(), x.grad.numpy().tobytes()])
    assert outcomes[0] == outcomes[1]
    exact = torch.tensor(array.astype(np.float64), requires_grad=True)
    z = FUNCTIONS[name](exact)
    (z * torch.tensor(array.astype(np.float64))[:, :1]).sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(x.grad.numpy(), exact.grad.numpy(), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("shape", [(64, 20), (600, 33), (5000, 3), (70, 900), (4200, 2)], ids=str)
def test_columns_added_along_with_rows_have_the_bits_of_columns_alone(shape):
    array = np.random.default_rng(8).standard_normal(shape).astype(np.float32)
    x = torch.tensor(array)
    both = (x.sum(1), (x * 2.0).sum(0), x.sum(0))
    together = [t.numpy().tobytes() for t in both]
    with window(1):
        alone = [t.numpy().tobytes() for t in (x.sum(1), (x * 2.0).sum(0), x.sum(0))]
    assert together == alone
