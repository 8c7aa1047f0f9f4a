"""Fusion: which calls share a kernel, and every hazard that must keep two apart."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.engine import tape
from flambeau.engine.loops import pointwise_axes, reduction_axes
from flambeau.engine.tape import thread
from tests.engine.programs import window


def steps_of(function) -> list[str]:
    """The names of the steps that running the function takes."""
    thread.tape.flush()
    plans = []
    tape.watchers.append(lambda _, plan: plans.append(plan))
    try:
        kept = function()
        thread.tape.flush()
    finally:
        tape.watchers.pop()
    del kept
    return [step.name for plan in plans for step in plan.steps]


def ready(*shape: int, start: float = 0.0) -> torch.Tensor:
    x = (torch.arange(torch.Size(shape).numel()).float() * 0.1 + start).reshape(shape)
    x.tolist()
    return x


def test_a_pointwise_chain_is_one_step():
    a, b, c = ready(40), ready(40), ready(40)
    assert steps_of(lambda: (a * b + c).relu()) == ["mul+add+relu"]


def test_independent_chains_of_one_shape_are_one_step():
    a, b = ready(40), ready(40)
    assert steps_of(lambda: ((a + 1.0).sin(), (b * 2.0).cos())) == ["add+sin+mul+cos"]


def test_another_shape_is_another_step():
    a, b = ready(40), ready(41)
    assert steps_of(lambda: (a + 1.0, b + 1.0)) == ["add", "add"]


def test_a_chain_joins_the_reduction_that_reads_it():
    a = ready(30, 50)
    assert steps_of(lambda: (a * a).sum(1)) == ["mul+sum"]


def test_reductions_of_one_operand_share_their_loops():
    a = ready(30, 50)
    assert steps_of(lambda: (a.sum(1), a.amax(1))) == ["sum+amax"]
    assert steps_of(lambda: (a.sum(1), a.sum(0))) == ["sum*2"]
    assert steps_of(lambda: (a.sum(0), a.sum(1))) == ["sum*2"]
    assert steps_of(lambda: (a.sum(1), a.amax(0))) == ["sum", "amax"]


def softmax_by_hand(x: torch.Tensor) -> torch.Tensor:
    e = (x - x.amax(1, keepdim=True)).exp()
    return e / e.sum(1, keepdim=True)


def layer_norm_by_hand(x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(1)[:, None]
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def attention_by_hand(x: torch.Tensor) -> torch.Tensor:
    scores = (x * 0.125).masked_fill(x > 2.0, float("-inf"))
    return torch.softmax(scores, -1)


ROW_FUNCTIONS = {
    "softmax": lambda x: torch.softmax(x, 1),
    "log_softmax": lambda x: torch.log_softmax(x, 1),
    "layer_norm": lambda x: torch.nn.functional.layer_norm(x, (50,)),
    "rms_norm": lambda x: torch.nn.functional.rms_norm(x, (50,)),
    "variance": lambda x: x.var(1),
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "difference from the sum": lambda x: x - x.sum(1, keepdim=True),
    "softmax by hand": softmax_by_hand,
    "layer norm by hand": layer_norm_by_hand,
    "rms norm by hand": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "masked softmax": attention_by_hand,
    "three reductions": lambda x: x.amax(1) + x.sum(1) * x.amin(1),
    "in place": lambda x: x.clone().sub_(x.mean(1, keepdim=True)).div_(x.std(1, keepdim=True)),
}


@pytest.mark.parametrize("name", ROW_FUNCTIONS)
def test_row_functions_are_one_step(name):
    a = ready(30, 50)
    assert len(steps_of(lambda: ROW_FUNCTIONS[name](a))) == 1


@pytest.mark.parametrize("name", ["softmax", "layer_norm", "rms norm by hand", "softmax by hand"])
def test_row_functions_are_one_step_with_their_backward(name):
    a, grad = ready(30, 50).requires_grad_(), ready(30, 50)

    def both():
        a.grad = None
        result = ROW_FUNCTIONS[name](a)
        result.backward(grad)
        return result, a.grad

    assert len(steps_of(both)) == 1


def test_loss_and_gradient_are_one_walk_over_the_scores():
    scores = ready(30, 50).requires_grad_()
    target = torch.arange(30)

    def both():
        scores.grad = None
        loss = torch.nn.functional.cross_entropy(scores, target)
        loss.backward()
        return loss, scores.grad

    over_scores = [name for name in steps_of(both) if "nll_loss_backward" in name]
    assert over_scores == ["amax+log_exp_sum+nll_loss_backward"]


def test_columns_added_with_rows_go_on_per_column():
    a, weight, bias = ready(30, 50), ready(50).requires_grad_(), ready(50).requires_grad_()
    x = a.clone().requires_grad_()
    x.tolist()

    def step():
        result = torch.nn.functional.layer_norm(x, (50,), weight, bias)
        result.backward(a)
        with torch.no_grad():
            weight.sub_(weight.grad * 0.1)
            bias.sub_(bias.grad * 0.1)
        x.grad = weight.grad = bias.grad = None

    assert len(steps_of(step)) == 1


def test_columns_have_no_second_walk():
    a = ready(30, 50)
    assert steps_of(lambda: a - a.sum(0, keepdim=True)) == ["sum", "sub"]


def test_what_follows_a_reduction_per_result_joins_it():
    a, b = ready(30, 50), ready(50)
    assert steps_of(lambda: (a.sum(0) * 2.0 + b).relu()) == ["sum+mul+add+relu"]
    long = ready(70000)
    assert steps_of(lambda: (long.sum() + 1.0).sqrt()) == ["sum+add+sqrt"]


def test_nobody_computes_what_nobody_sees():
    a = ready(30)

    def step():
        a.exp()
        return a + 1.0

    assert steps_of(step) == ["add"]


def test_writes_in_place_of_what_nobody_sees_are_left_out():
    a = ready(30)

    def step():
        b = a + 1.0
        b.mul_(2.0)
        return a * 3.0

    assert steps_of(step) == ["mul"]


def test_in_place_chains_fuse():
    a = ready(30)
    assert steps_of(lambda: a.add_(1.0).mul_(2.0).sub_(0.5)) == ["add+mul+sub"]
    assert a[1].item() == pytest.approx((0.1 + 1) * 2 - 0.5)


def bits(x: torch.Tensor) -> torch.Tensor:
    """The same memory as integers."""
    return torch.Tensor._from_storage(x._storage, x._layout.with_dtype(types.int32))


HAZARDS = {
    "read after write": lambda a, b: (a.add_(1.0), b + a),
    "write after read": lambda a, b: (b + a, a.add_(1.0)),
    "write after write": lambda a, b: (a.copy_(b), a.fill_(2.0), a + 1.0),
    "read of a part": lambda a, b: (a.add_(1.0), a[1:] * 2.0),
    "write of a part": lambda a, b: (a * 2.0, a[1:].add_(1.0), a * 3.0),
    "read transposed": lambda a, b: (a.add_(1.0), a.t() * 2.0),
    "write transposed": lambda a, b: (a * 2.0, a.t().mul_(3.0), a + 0.0),
    "shifted copies": lambda a, b: (a[1:].copy_(b[1:]), a[:-1].add_(a[1:].clone())),
    "two halves": lambda a, b: (a[:3].add_(1.0), a[3:].mul_(2.0), a + b),
    "broadcast of a row": lambda a, b: (b + a[0], a.add_(1.0), b + a[0]),
    "row written, matrix read": lambda a, b: (a[2].fill_(7.0), a + b, a[2].add_(1.0), a * b),
    "reduction then write": lambda a, b: (a.sum(0), a.zero_(), a.sum(0)),
    "write then reduction": lambda a, b: (a.mul_(b), a.sum(1), a.mul_(b), a.sum(1)),
    "reduction into its operand": lambda a, b: (a[0].copy_(a.sum(0)), a * 1.0),
    "product then write": lambda a, b: (a @ b, a.add_(1.0), a @ b),
    "write then product": lambda a, b: (a.add_(b), a @ b, b.mul_(a), a @ b),
    "expanded read": lambda a, b: (a[0].expand(6, 6) + b, a[0].add_(1.0), a[0].expand(6, 6) + b),
    "swap": lambda a, b: (a.clone(), a.copy_(b), b.copy_(a * 2.0), a - b),
    "same bytes as integers": lambda a, b: (
        a.add_(1.0), bits(a) + 0, a.mul_(2.0), bits(a) + 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HAZARDS)
def test_hazards(name):
    outcomes = []
    for calls in (1, 1024):
        with window(calls):
            a, b = ready(6, 6), ready(6, 6, start=0.5)
            kept = HAZARDS[name](a, b)
            outcomes.append([x.tolist() for x in (*kept, a, b)])
    assert outcomes[0] == outcomes[1]


def test_axes_merge_where_every_operand_allows():
    contiguous, broadcast = (12, 4, 1), (0, 4, 1)
    assert pointwise_axes((2, 3, 4), contiguous, [contiguous]) == ((0, 1, 2),)
    assert pointwise_axes((2, 3, 4), contiguous, [contiguous, broadcast]) == ((0,), (1, 2))


def test_the_loops_of_a_reduction_depend_on_its_own_layouts():
    row = Layout.of((4, 5, 6), types.float32)
    assert reduction_axes(row, (2,)) == ((0, 1), (2,))
    assert reduction_axes(row, (0,)) == ((0,), (1, 2))
    assert reduction_axes(row, (0, 1)) == ((0, 1), (2,))
    column = Layout.of((4, 5, 6), types.float32, strides=(1, 4, 20))
    assert reduction_axes(column, (2,)) == ((2,), (1, 0))
