"""Plans: the cache by liveness, what is stored, and what can be looked at."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau.core.config import config
from flambeau.engine.inspect import last_plan
from flambeau.engine.tape import thread


@pytest.fixture(autouse=True)
def empty_tape():
    thread.tape.flush()


def test_liveness_is_part_of_what_a_plan_is_for():
    x = torch.ones(9)
    thread.tape.flush()

    def step(keep):
        a = x + 1.0
        b = a * 2.0
        if not keep:
            a = None
        thread.tape.flush()
        return last_plan(), a, b

    both, a, _ = step(True)
    one, _, b = step(False)
    assert both is not one
    assert (len(both.external), len(one.external)) == (3, 2)
    assert a.tolist() == [2.0] * 9 and b.tolist() == [4.0] * 9
    thread.tape.flush()
    assert step(True)[0] is both and step(False)[0] is one


def test_results_between_steps_lie_in_the_arena():
    x = torch.ones(8, 8)
    thread.tape.flush()
    y = (x @ x).relu().sum(1)
    explained = last_plan()
    y.tolist()
    explained = last_plan()
    assert [step.name for step in explained.steps] == ["mm", "relu+sum"]
    assert len(explained.arena_offsets) == 1 and explained.arena_bytes >= 256
    assert y.tolist() == [64.0] * 8


def test_writes_through_a_view_of_a_ready_storage_are_kept():
    x = torch.zeros(4, 4)
    thread.tape.flush()
    x[1].add_(1.0)
    x[:, 2].mul_(5.0)
    thread.tape.flush()
    assert x.tolist() == [[0] * 4, [1, 1, 5, 1], [0] * 4, [0] * 4]


def test_a_dead_call_between_living_ones_leaves_them_alone():
    x = torch.ones(5)
    thread.tape.flush()
    a = x + 1.0
    x.sin().cos()
    b = a + x
    assert b.tolist() == [3.0] * 5


def test_a_plan_of_nothing_runs_nothing():
    x = torch.ones(5)
    thread.tape.flush()
    x + 1.0
    thread.tape.flush()
    assert last_plan().steps == []


def test_empty_results():
    x = torch.ones(0, 3)
    y = (x + 1.0) * 2.0
    assert y.tolist() == [] and y.shape == (0, 3)
    assert y.sum(0).tolist() == [0.0] * 3
    assert y.sum().item() == 0.0
    assert (torch.ones(2, 0) @ torch.ones(0, 3)).tolist() == [[0.0] * 3] * 2


def test_more_than_255_references_count_as_alive():
    x = torch.ones(3)
    thread.tape.flush()
    y = x + 1.0
    views = [y.view(3) for _ in range(300)]
    assert views[299].tolist() == [2.0] * 3


def test_explaining_a_function():
    a, b = torch.ones(100), torch.ones(100)
    thread.tape.flush()
    seen = torch.explain(lambda x: ((x * b + 1.0).relu(), "other"), a)
    assert seen.result[0].tolist() == [2.0] * 100 and seen.result[1] == "other"
    assert repr(seen.tape) == (
        "tape\n"
        "   0  %2:float32[100] = mul(%0:float32[100], %1:float32[100])\n"
        "   1  %3:float32[100] = add(%2:float32[100], float)\n"
        "   2  %4:float32[100] = relu(%3:float32[100])"
    )
    assert seen.plan == (
        "  0  mul+add+relu                             reads %0 %1  writes %4  tasks 100\n"
        "1 step, 3 storages, arena of 0 bytes for 0 results"
    )
    lines = seen.kernels.splitlines()
    assert lines[:4] == [
        "step 0: kernel [for i0]",
        "  @0: float32 memory unit",
        "  @1: float32 memory unit",
        "  @2: float32 memory unit",
    ]
    assert "  %2 = mul %0, %1 : float32" in lines
    assert lines[-1].startswith("  @2 = %")
    assert repr(seen).count("mul") >= 3


def test_explaining_a_function_that_reads_in_between():
    x = torch.ones(100)
    thread.tape.flush()
    seen = torch.explain(lambda: (x + 1.0) * (x * 2.0).sum().item())
    assert len(seen.plans) == 2
    assert seen.result.tolist() == [400.0] * 100


def test_debug_prints_what_is_new(capfd):
    x = torch.ones(101)
    thread.tape.flush()
    before = config.debug
    config.debug = frozenset({"tape", "plan", "kernel"})
    try:
        (x + 3.0).tolist()
        first = capfd.readouterr().err
        (x + 3.0).tolist()
        second = capfd.readouterr().err
    finally:
        config.debug = before
    assert "add(%0:float32[101], float)" in first
    assert "writes %1" in first and "%0 = load @0 : float32" in first
    assert second == ""


def test_a_kernel_that_leaves_an_operand_alone():
    """A search among nothing reads no element of it; what it is made of need not exist."""
    values = torch.ones(3)
    thread.tape.flush()
    assert torch.searchsorted(torch.ones(4)[4:] + 1.0, values).tolist() == [0, 0, 0]
    assert torch.searchsorted(torch.empty(0), values).tolist() == [0, 0, 0]


def test_filling_a_repeated_view():
    x = torch.zeros(3, 7)
    thread.tape.flush()
    x.unsqueeze(0).expand(2, 3, 7).fill_(0.25)
    assert x.tolist() == [[0.25] * 7] * 3
