"""Fused calls over operands in different layouts, against numpy."""

import itertools

import numpy as np
import pytest

import flambeau as torch
from flambeau.ops.fused import FusedPointwise, FusedReduction

_DOT = FusedReduction("dot", "sum", lambda x, y: x * y)
_SCALED = FusedPointwise("scaled", lambda x, y, factor: (x + y) * factor)

LAYOUTS = {
    "plain": lambda a: torch.tensor(a),
    "permuted": lambda a: torch.tensor(np.ascontiguousarray(a.transpose(2, 0, 1))).permute(1, 2, 0),
    "strided": lambda a: torch.tensor(np.repeat(a, 2, axis=1))[:, ::2],
    "expanded": lambda a: torch.tensor(a[:1]).expand(*a.shape),
}
PAIRS = list(itertools.product(LAYOUTS, repeat=2))


@pytest.mark.parametrize("first, second", PAIRS)
@pytest.mark.parametrize("dims", [(0,), (1, 2), (0, 2), (0, 1, 2)])
def test_reductions_of_operands_in_different_layouts(first, second, dims):
    random = np.random.default_rng(0)
    x, y = (LAYOUTS[name](random.normal(size=(3, 4, 5))) for name in (first, second))
    (found,) = _DOT((x, y), dims)
    expected = (x.numpy() * y.numpy()).sum(dims)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("first, second", PAIRS)
def test_numbers_are_passed_at_run_time(first, second):
    random = np.random.default_rng(1)
    x, y = (LAYOUTS[name](random.normal(size=(3, 4, 5))) for name in (first, second))
    for factor in (0.5, 3.0):
        (found,) = _SCALED((x, y), (factor,))
        np.testing.assert_allclose(found.numpy(), (x.numpy() + y.numpy()) * factor, rtol=1e-12)
