"""``einsum`` and ``tensordot`` against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch

CASES = [
    ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)]),
    ("bij,bkj->bik", [(5, 2, 3), (5, 4, 3)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("ij->ji", [(2, 3)]),
    ("ij->", [(2, 3)]),
    ("ij->j", [(2, 3)]),
    ("i,j->ij", [(2,), (3,)]),
    ("i,i->", [(3,), (3,)]),
    ("i,i->i", [(3,), (3,)]),
    ("ijk,k->ij", [(2, 3, 4), (4,)]),
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
    ("...i,...i", [(2, 3), (2, 3)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ("a,b,c->cab", [(2,), (3,), (4,)]),
    ("iij->ij", [(3, 3, 2)]),
    ("ab,cd->", [(2, 3), (4, 5)]),
]


def arrays(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize(("equation", "shapes"), CASES)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    given = arrays(shapes)
    found = torch.einsum(equation, *map(torch.tensor, given))
    np.testing.assert_allclose(found.numpy(), np.einsum(equation, *given), rtol=1e-12, atol=1e-12)


def test_einsum_of_sublists_and_lists() -> None:
    a, b = map(torch.tensor, arrays([(2, 3), (3, 4)]))
    assert torch.allclose(torch.einsum(a, [0, 1], b, [1, 2], [0, 2]), a @ b)
    assert torch.allclose(torch.einsum("ij,jk->ik", [a, b]), a @ b)


def test_einsum_broadcasts_ones() -> None:
    a, b = map(torch.tensor, arrays([(2, 1), (3, 4)]))
    assert torch.allclose(torch.einsum("ij,jk->ik", a, b), a.expand(2, 3) @ b)


def test_einsum_has_gradients() -> None:
    a, b = (torch.tensor(x, requires_grad=True) for x in arrays([(2, 3, 4), (2, 4)]))
    assert torch.autograd.gradcheck(lambda x, y: torch.einsum("bij,bj->bi", x, y), (a, b))


ERRORS = [
    ("ij,jk->il", [(2, 2), (2, 2)], "output subscript l does not appear in the equation"),
    ("ij,jk", [(2, 3), (2, 2)], "subscript j has size 2 for operand 1 which does not broadcast"),
    ("ij,jk->ik", [(2, 3)], "fewer operands were provided than specified in the equation"),
    ("i->", [(2,), (2,)], "more operands were provided than specified in the equation"),
    ("ijk->ij", [(2, 3)], "the number of subscripts in the equation (3) does not match"),
    ("ii->i", [(2, 3)], "subscript i is repeated for operand 0 but the sizes don't match, 3 != 2"),
    ("ij->ii", [(2, 3)], "output subscript i appears more than once in the output"),
    ("i$->", [(2,)], "invalid subscript given at index 1 in the equation string"),
]


@pytest.mark.parametrize(("equation", "shapes", "text"), ERRORS)
def test_einsum_errors(equation: str, shapes: list[tuple[int, ...]], text: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.einsum(equation, *map(torch.tensor, arrays(shapes)))
    assert str(caught.value).startswith("einsum(): ") and text in str(caught.value)


@pytest.mark.parametrize("dims", [0, 1, 2, ([1], [0]), ([0, 1], [1, 0])])
def test_tensordot(dims: object) -> None:
    a, b = arrays([(3, 3), (3, 3)])
    found = torch.tensordot(torch.tensor(a), torch.tensor(b), dims=dims)
    np.testing.assert_allclose(found.numpy(), np.tensordot(a, b, dims), rtol=1e-12)


def test_tensordot_errors() -> None:
    with pytest.raises(RuntimeError, match="contracted dimensions need to match, but first has"):
        torch.tensordot(torch.ones(2, 3), torch.ones(4, 3), dims=1)
