"""Schedulers against what PyTorch 2.13 did (tools/record_optim.py)."""

import json
import warnings
from pathlib import Path

import pytest

import flambeau as torch
from tests.optim import cases

REFERENCES = Path(__file__).resolve().parent.parent / "references" / "optim"
SCHEDULERS = json.loads((REFERENCES / "schedulers.json").read_text())


def same(expected, actual):
    if isinstance(expected, dict):
        return expected.keys() == actual.keys() and all(
            same(expected[key], actual[key]) for key in expected
        )
    if isinstance(expected, list):
        return len(expected) == len(actual) and all(map(same, expected, actual))
    if isinstance(expected, float):
        return expected == actual or abs(expected - actual) <= 1e-12 * max(1, abs(expected))
    return expected == actual


@pytest.mark.parametrize("name", SCHEDULERS)
def test_rates_and_checkpoint(name):
    found = json.loads(json.dumps(cases.describe_scheduler(torch, name)))
    assert same(SCHEDULERS[name], found)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_resumed_from_its_state_dict(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer, scheduler = cases.make_scheduler(torch, name)
        for epoch in range(6):
            optimizer.step()
            cases.step_scheduler(scheduler, epoch)
        other_optimizer, other = cases.make_scheduler(torch, name)
        other.load_state_dict(scheduler.state_dict())
        other_optimizer.load_state_dict(optimizer.state_dict())
        for epoch in range(6, 20):
            for stepped in (scheduler, other):
                cases.step_scheduler(stepped, epoch)
            assert scheduler.get_last_lr() == other.get_last_lr()


def make(last=None):
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)


def test_stepping_before_the_optimizer_warns():
    _, scheduler = make()
    with pytest.warns(UserWarning, match="before `optimizer.step\\(\\)`"):
        scheduler.step()


def test_steps_from_before_the_scheduler_do_not_count():
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    with pytest.warns(UserWarning, match="Detected call of"):
        scheduler.step()


def test_an_overridden_step_warns():
    optimizer, scheduler = make()
    optimizer.step = lambda: None
    with pytest.warns(UserWarning, match="has been overridden"):
        scheduler.step()


def test_get_lr_warns_outside_of_step():
    _, scheduler = make()
    with pytest.warns(UserWarning, match="please use `get_last_lr"):
        scheduler.get_lr()


def test_the_epoch_argument_warns_and_takes_the_closed_form():
    optimizer, scheduler = make()
    optimizer.step()
    with pytest.warns(UserWarning, match="The epoch parameter"):
        scheduler.step(5)
    assert scheduler.get_last_lr() == [0.1 * 0.1**2]


def test_a_tensor_rate_is_changed_in_place():
    rate = torch.tensor(0.5)
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=rate)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    assert rate.item() == 0.25
    assert scheduler.get_last_lr()[0] is not rate


def test_callable_objects_keep_their_attributes():
    class Decay:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, epoch):
            return self.factor**epoch

    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    saved = torch.optim.lr_scheduler.LambdaLR(optimizer, Decay(0.3)).state_dict()
    assert saved["lr_lambdas"] == [{"factor": 0.3}]
    other = torch.optim.lr_scheduler.LambdaLR(optimizer, Decay(0.9))
    other.load_state_dict(saved)
    assert other.lr_lambdas[0].factor == 0.3


def test_a_scheduler_written_by_a_user():
    class Half(torch.optim.lr_scheduler.LRScheduler):
        def get_lr(self):
            return [rate / 2**self.last_epoch for rate in self.base_lrs]

    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
    scheduler = Half(optimizer)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [0.125]
    assert issubclass(torch.optim.lr_scheduler._LRScheduler, torch.optim.lr_scheduler.LRScheduler)


def test_a_group_added_later_needs_its_own_least_rate():
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.1])
    optimizer.add_param_group({"params": [torch.ones(1, requires_grad=True)]})
    scheduler.step(1.0)
    with pytest.raises(RuntimeError, match="Please modify the `min_lrs` field"):
        scheduler.step(1.0)
