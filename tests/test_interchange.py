"""Memory shared with numpy and DLPack against what PyTorch did (tools/record_semantics.py)."""

import numpy as np
import pytest

import flambeau as torch
from flambeau.ops.declare import pending_calls
from tests import interchange_cases, semantics


@pytest.mark.parametrize("name", interchange_cases.CASES)
def test_interchange(name: str, window: int) -> None:
    semantics.check("interchange", interchange_cases.CASES, name, torch)


def test_an_exported_storage_is_never_pending(window: int) -> None:
    x = torch.zeros(3)
    array = x.numpy()
    x.add_(1)
    assert pending_calls() == 0
    assert array.tolist() == [1, 1, 1]


def test_work_is_collected_again_when_the_array_is_gone() -> None:
    x = torch.zeros(3)
    array = x.numpy()
    x.add_(1)
    del array
    torch.synchronize()
    x.add_(1)
    assert pending_calls() > 0
    assert x.tolist() == [2, 2, 2]


def test_a_borrowed_array_that_nobody_else_holds_defers_work() -> None:
    x = torch.from_numpy(np.zeros(3))
    torch.synchronize()
    x.add_(1)
    assert pending_calls() > 0
    assert x.tolist() == [1, 1, 1]
