"""How losses of classes are recorded: few calls, and no flush for a target that is ready."""

import numpy as np
import pytest

import flambeau as torch
import flambeau.nn.functional
from flambeau.ops.declare import pending_calls


@pytest.fixture
def scores():
    torch.synchronize()
    return torch.tensor(np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32))


def test_a_training_step_records_few_calls(scores):
    target = torch.tensor([1, 0, 4, 2, 2, 3])
    scores.requires_grad_()
    torch.synchronize()
    loss = torch.nn.functional.cross_entropy(scores, target)
    forward = pending_calls()
    loss.backward()
    assert forward <= 6
    assert pending_calls() - forward <= 4


def test_a_ready_target_leaves_pending_work_pending(scores):
    target = torch.tensor([1, 0, 4, 2, 2, 3])
    torch.synchronize()
    moved = scores + 1
    first = torch.nn.functional.cross_entropy(moved, target)
    before = pending_calls()
    second = torch.nn.functional.cross_entropy(moved, target)  # the target is on the tape by now
    assert pending_calls() > before > 1
    assert first.item() == second.item()


def test_a_pending_target_is_checked(scores):
    target = torch.tensor([1, 0, 4, 2, 2, 3])
    torch.nn.functional.cross_entropy(scores, target)
    target.add_(1)
    with pytest.raises(IndexError, match=r"Target 5 is out of bounds\."):
        torch.nn.functional.cross_entropy(scores, target)
    with pytest.raises(IndexError, match=r"Target -1 is out of bounds\."):
        torch.nn.functional.cross_entropy(scores, target - 2)


def test_running_statistics_do_not_count_as_changed():
    mean, var = torch.zeros(5), torch.ones(5)
    x = torch.ones(4, 5, requires_grad=True)
    torch.nn.functional.batch_norm(x, mean, var, training=True)
    assert mean._version == var._version == 0
    assert mean.tolist() == pytest.approx([0.1] * 5)
