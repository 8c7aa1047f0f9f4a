"""``torch.compile`` and the names around it, as PyTorch has them."""

from __future__ import annotations

import copy
import pickle

import pytest

import flambeau as torch

nn = torch.nn


def test_decorators_with_and_without_arguments():
    @torch.compile
    def double(x):
        """Doubles."""
        return x * 2

    @torch.compile(fullgraph=True, dynamic=False, mode="reduce-overhead")
    def triple(x):
        return x * 3

    for _ in range(4):
        assert double(torch.ones(2)).tolist() == [2, 2]
        assert triple(torch.ones(2)).tolist() == [3, 3]
    assert double.replays and triple.replays
    assert double.__name__ == "double" and double.__doc__ == "Doubles."


def test_methods():
    class Model:
        scale = 2.0

        @torch.compile
        def run(self, x):
            return x * self.scale

    first, second = Model(), Model()
    second.scale = 5.0
    for _ in range(4):
        assert first.run(torch.ones(1)).item() == 2
        assert second.run(torch.ones(1)).item() == 5
    assert Model.run.replays


def test_errors():
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="Invalid backend: 'nosuch'"):
        torch.compile(model, backend="nosuch")
    with pytest.raises(torch._dynamo.exc.InvalidBackend):
        torch.compile(backend="nosuch")
    with pytest.raises(RuntimeError, match="Unrecognized mode=nosuch, should be one of: default"):
        torch.compile(model, mode="nosuch")
    with pytest.raises(RuntimeError, match="Either mode or options can be specified"):
        torch.compile(model, mode="default", options={})
    with pytest.raises(AssertionError, match="A callable function is expected"):
        torch.compile(3)


def test_fullgraph_raises_where_it_would_fall_back():
    f = torch.compile(lambda x: x * x.sum().item(), fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="reads a value"):
        for _ in range(3):
            f(torch.ones(2))


def test_disabled_is_the_function_itself():
    model = nn.Linear(2, 2)
    assert torch.compile(model, disable=True) is model


def test_optimized_modules():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    fast = torch.compile(model)
    assert isinstance(fast, torch._dynamo.OptimizedModule) and isinstance(fast, nn.Module)
    assert fast._orig_mod is model
    assert [name for name, _ in fast.named_parameters()] == [
        f"_orig_mod.{name}" for name, _ in model.named_parameters()
    ]
    assert list(fast.state_dict()) == [f"_orig_mod.{name}" for name in model.state_dict()]
    assert all(map(lambda a, b: a is b, fast.parameters(), model.parameters()))
    assert repr(fast).startswith("OptimizedModule(\n  (_orig_mod): Sequential(")
    fast.eval()
    assert not model.training and not fast.training and not model[1].training
    model.train()
    assert fast.training
    fast.extra = 3
    assert model.extra == 3 and fast.extra == 3
    del fast.extra
    assert not hasattr(model, "extra")
    fast.load_state_dict(fast.state_dict())
    for _ in range(4):
        fast(torch.randn(4, 3))
    assert fast.__dict__["forward"].replays
    with pytest.raises(AttributeError, match="nothing"):
        fast.nothing  # noqa: B018


def test_copies_of_compiled_modules():
    fast = torch.compile(nn.Linear(3, 2))
    x = torch.randn(4, 3)
    expected = fast(x)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(other(x), expected)
        assert other._orig_mod is not fast._orig_mod


def test_compiling_in_place():
    model = nn.Linear(3, 2)
    model.compile(fullgraph=True)
    x = torch.randn(4, 3)
    results = [model(x) for _ in range(4)]
    assert model._compiled_call_impl.replays
    assert list(model.state_dict()) == ["weight", "bias"]
    clone = copy.deepcopy(model)
    assert torch.equal(clone(x), results[0])


def test_disable_keeps_functions_out():
    @torch.compiler.disable
    def outside(x):
        return x + 1

    f = torch.compile(lambda x: outside(x) * 2)
    for _ in range(6):
        assert f(torch.ones(1)).item() == 4
    assert f.replays == 0 and "torch.compiler.disable" in f.reason


def test_graph_breaks_are_recorded():
    def function(x):
        torch._dynamo.graph_break()
        return x + 1

    f = torch.compile(function)
    for _ in range(6):
        assert f(torch.ones(1)).item() == 2
    assert f.replays == 0


def test_reset_and_stance():
    f = torch.compile(lambda x: x + 1)
    for _ in range(4):
        f(torch.ones(1))
    before = f.replays
    assert before
    with torch.compiler.set_stance("force_eager"):
        f(torch.ones(1))
        assert f.replays == before
    f(torch.ones(1))
    assert f.replays == before + 1
    torch._dynamo.reset()
    f(torch.ones(1))
    assert f.replays == before + 1


def test_names_that_programs_use():
    assert not torch.compiler.is_compiling() and not torch._dynamo.is_compiling()
    assert not torch.compiler.is_exporting()
    assert "inductor" in torch.compiler.list_backends()
    torch.compiler.cudagraph_mark_step_begin()
    torch._dynamo.mark_dynamic(torch.ones(2), 0)
    torch._dynamo.mark_static_address(torch.ones(2))
    assert torch.compiler.allow_in_graph(len) is len
    assert torch._dynamo.eval_frame.is_dynamo_supported()
    torch._dynamo.config.suppress_errors = True
    with torch._dynamo.config.patch(cache_size_limit=64):
        assert torch._dynamo.config.cache_size_limit == 64
    assert torch._dynamo.config.cache_size_limit == 8
    torch._inductor.config.coordinate_descent_tuning = True


def test_a_compiled_function_within_another():
    inner = torch.compile(lambda x: x * 2)
    outer = torch.compile(lambda x: inner(x) + 1)
    for k in range(6):
        assert outer(torch.full((1,), float(k))).item() == 2 * k + 1
    assert outer.replays and outer.reason is None
