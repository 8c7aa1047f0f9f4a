"""Optimizers against what PyTorch 2.13 did with the same gradients (tools/record_optim.py)."""

import copy
import json
import warnings
from pathlib import Path

import pytest

import flambeau as torch
from flambeau.optim import optimizer as optimizer_module
from tests.optim import cases

REFERENCES = Path(__file__).resolve().parent.parent / "references" / "optim"
OPTIMIZERS = json.loads((REFERENCES / "optimizers.json").read_text())
ERRORS = json.loads((REFERENCES / "errors.json").read_text())


def assert_close(expected, actual, tolerance=1e-6, path=""):
    if isinstance(expected, dict):
        assert list(expected) == list(actual), path
        for key in expected:
            assert_close(expected[key], actual[key], tolerance, f"{path}/{key}")
    elif isinstance(expected, list):
        assert len(expected) == len(actual), path
        for index, item in enumerate(expected):
            assert_close(item, actual[index], tolerance, f"{path}/{index}")
    elif isinstance(expected, float):
        assert abs(expected - actual) <= tolerance * max(1.0, abs(expected)), path
    else:
        assert expected == actual, path


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fifty_steps(name):
    found = json.loads(json.dumps(cases.describe_optimizer(torch, name)))
    assert_close(OPTIMIZERS[name], found)


@pytest.mark.parametrize("name", ["sgd_nesterov", "adam_amsgrad", "adamw"])
def test_window_of_one_gives_the_same_bits(name, monkeypatch):
    _, wide = cases.run_optimizer(torch, name, steps=6)
    torch.synchronize()
    monkeypatch.setattr(torch.config, "window", 1)
    _, narrow = cases.run_optimizer(torch, name, steps=6)
    assert cases.plain(wide) == cases.plain(narrow)


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    assert cases.describe_error(torch, name) == ERRORS[name]


@pytest.mark.parametrize("name", ["sgd_momentum", "adam_amsgrad", "adamw"])
def test_a_run_resumed_from_its_state_dict_continues_exactly(name):
    optimizer, params = cases.run_optimizer(torch, name, steps=4)
    saved = copy.deepcopy(optimizer.state_dict())
    copies = [param.detach().clone().requires_grad_() for param in params]
    cls, options = cases.OPTIMIZERS[name]
    groups = [{"params": copies[:1]}, {"params": copies[1:]}]
    resumed = getattr(torch.optim, cls)(groups, **options)
    resumed.load_state_dict(saved)
    cases.continue_run(torch, optimizer, params, 4, 3)
    cases.continue_run(torch, resumed, copies, 4, 3)
    assert cases.plain(params) == cases.plain(copies)
    assert cases.plain(optimizer.state_dict()) == cases.plain(resumed.state_dict())


def test_the_step_tensor_shows_the_count_whenever_it_is_looked_at():
    param = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([param])
    for count in range(1, 4):
        param.grad = torch.ones(2)
        optimizer.step()
        step = optimizer.state[param]["step"]
        assert step.item() == count
        assert step.dtype is torch.float32 and step.shape == ()
    step.fill_(10)
    optimizer.step()
    assert step.item() == 11


def test_a_tensor_computed_from_the_step_tensor_keeps_its_value():
    param = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([param])
    param.grad = torch.ones(2)
    optimizer.step()
    twice = optimizer.state[param]["step"] * 2
    optimizer.step()
    assert twice.item() == 2


def test_deepcopy_and_pickle_keep_the_state():
    optimizer, _ = cases.run_optimizer(torch, "adam", steps=2)
    twin = copy.deepcopy(optimizer)
    assert cases.plain(twin.state_dict()) == cases.plain(optimizer.state_dict())
    twin.step()


def test_step_runs_the_closure_with_gradients_and_returns_its_loss():
    param = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([param], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (param * param).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 3.0
    assert param.tolist() == [0.0, 0.0, 0.0]


def test_step_ends_with_a_flush_and_leaves_grad_mode_alone():
    param = torch.ones(3, requires_grad=True)
    param.grad = torch.ones(3)
    torch.optim.SGD([param], lr=0.5).step()
    assert param._storage.tape is None
    assert torch.is_grad_enabled()


def test_zero_grad():
    param = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([param], lr=0.5)
    param.grad = torch.ones(3)
    kept = param.grad
    optimizer.zero_grad(set_to_none=False)
    assert param.grad is kept and kept.tolist() == [0.0, 0.0, 0.0]
    optimizer.zero_grad()
    assert param.grad is None


def test_step_hooks_run_in_order_and_may_replace_the_arguments():
    param = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([param], lr=0.5)
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    handle = optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    every = optimizer_module.register_optimizer_step_pre_hook(lambda *_: seen.append("global"))
    optimizer.step()
    every.remove()
    handle.remove()
    optimizer.step()
    assert seen == ["global", "pre", "post", "post"]
    optimizer.register_step_pre_hook(lambda *_: 3)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        optimizer.step()


def test_a_subclass_that_calls_super_runs_its_hooks_once():
    class Twice(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    optimizer = Twice([torch.ones(1, requires_grad=True)], lr=0.1)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(1))
    optimizer.step()
    assert seen == [1]


def test_state_dict_hooks():
    param = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([param], lr=0.5)
    seen = []
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("before saving"))
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "extra": 1})
    optimizer.register_load_state_dict_pre_hook(lambda _, state: seen.append(state.pop("extra")))
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("after loading"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before saving", 1, "after loading"]


def test_names_of_parameters_travel_with_the_state_dict():
    named = [("a", torch.ones(1, requires_grad=True)), ("b", torch.ones(2, requires_grad=True))]
    optimizer = torch.optim.SGD(named, lr=0.5)
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["a", "b"]
    assert optimizer.state_dict()["param_groups"][0]["params"] == [0, 1]


def test_a_parameter_named_twice_warns():
    param = torch.ones(1, requires_grad=True)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        torch.optim.SGD([param, param], lr=0.5)


def test_loaded_moments_take_the_dtype_of_the_parameter():
    optimizer, _ = cases.run_optimizer(torch, "adam", steps=1)
    params = [torch.zeros(shape, dtype=torch.float64) for shape in cases.SHAPES]
    other = torch.optim.Adam([{"params": params[:1]}, {"params": params[1:]}])
    other.load_state_dict(optimizer.state_dict())
    state = other.state[params[0]]
    assert state["exp_avg"].dtype is torch.float64
    assert state["step"].dtype is torch.float32


def test_a_tensor_learning_rate_is_read_at_each_step():
    param = torch.ones(1, requires_grad=True)
    rate = torch.tensor(0.5)
    optimizer = torch.optim.SGD([param], lr=rate)
    param.grad = torch.ones(1)
    optimizer.step()
    rate.fill_(0.25)
    optimizer.step()
    assert param.tolist() == [0.25]


def test_an_optimizer_written_by_a_user():
    class Constant(torch.optim.Optimizer):
        def __init__(self, params, lr=optimizer_module.required):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for param in group["params"]:
                    param.add_(param.grad.sign(), alpha=-group["lr"])

    with pytest.raises(ValueError, match="didn't specify a value of required"):
        Constant([torch.ones(1, requires_grad=True)])
    param = torch.ones(1, requires_grad=True)
    param.grad = torch.tensor([3.0])
    optimizer = Constant([param], lr=0.25)
    optimizer.step()
    assert param.tolist() == [0.75]
    assert param._storage.tape is None


def test_a_long_run_leaves_no_trace():
    param = torch.ones(4, requires_grad=True)
    optimizer = torch.optim.Adam([param])
    param.grad = torch.ones(4)
    for _ in range(3):
        optimizer.step()
    tape = torch.engine.tape.thread.tape
    known = tape.calls_known
    for _ in range(50):
        optimizer.step()
    assert tape.calls_known == known


def test_unused_parameters_cost_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.optim.Adam([torch.ones(2, requires_grad=True)]).step()
