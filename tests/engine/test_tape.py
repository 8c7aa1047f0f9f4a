"""The tape: what hits and misses the trie, what errors and interrupts leave behind."""

from __future__ import annotations

import os
import sys

import pytest

import flambeau as torch
from flambeau.engine import plan, tape
from flambeau.engine.plan import CallByCall
from flambeau.engine.tape import thread
from flambeau.ops import call as path
from tests.engine.programs import window


@pytest.fixture(autouse=True)
def empty_tape():
    thread.tape.flush()
    yield
    thread.tape.flush()


def builds_during(function) -> int:
    """How many calls and plans were new while the function ran."""
    known = thread.tape.calls_known
    seen = []
    built = plan.Plan.__init__

    def counting(self, *arguments):
        seen.append(self)
        built(self, *arguments)

    plan.Plan.__init__ = counting
    try:
        function()
        thread.tape.flush()
    finally:
        plan.Plan.__init__ = built
    return thread.tape.calls_known - known + len(seen)


def test_a_repeated_step_builds_nothing():
    x = torch.ones(33)
    thread.tape.flush()

    def step(number):
        y = (x * number).relu() + x
        return y.sum().item()

    assert builds_during(lambda: step(2.0)) > 0
    assert builds_during(lambda: step(3.0)) == 0
    assert step(-1.0) == 33.0 and step(5.0) == 33 * 6


def test_numbers_are_not_part_of_a_call_but_their_kind_is():
    x = torch.ones(5)
    thread.tape.flush()
    assert builds_during(lambda: x * 2.0) > 0
    assert builds_during(lambda: x * 7.5) == 0
    assert builds_during(lambda: x * 7) > 0


@pytest.mark.parametrize(
    "other",
    [
        lambda: torch.ones(5) - torch.ones(5),
        lambda: torch.ones(6) + torch.ones(6),
        lambda: torch.ones(5, dtype=torch.float64) + torch.ones(5, dtype=torch.float64),
        lambda: (lambda x: x + x)(torch.ones(5)),
    ],
    ids=["operator", "shape", "dtype", "slots"],
)
def test_what_a_call_means_is_part_of_its_key(other):
    for _ in range(2):
        torch.ones(5) + torch.ones(5)
        thread.tape.flush()
    before = builds_during(lambda: torch.ones(5) + torch.ones(5))
    assert before == 0
    other()
    thread.tape.flush()
    assert builds_during(lambda: torch.ones(5) + torch.ones(5)) == 0


def test_programs_that_take_turns_both_hit():
    x = torch.ones(9)
    for _ in range(2):
        builds_during(lambda: x.exp() + 1.0)
        builds_during(lambda: x.tanh() * 2.0)
    assert builds_during(lambda: x.exp() + 1.0) == 0
    assert builds_during(lambda: x.tanh() * 2.0) == 0


def test_an_error_of_shape_leaves_a_whole_tape():
    x, wrong = torch.ones(4), torch.ones(3)
    thread.tape.flush()

    def step(fail):
        a = x + 1.0
        if fail:
            with pytest.raises(RuntimeError, match="size of tensor a"):
                a + wrong
        b = a * 3.0
        c = b - x
        return b.tolist(), c.tolist()

    clean = step(False)
    assert step(True) == clean
    assert step(False) == clean
    assert step(True) == clean
    assert thread.tape.slots == [] and thread.tape.recorded() == []


# Compiled modules call one another directly, so nothing can be put in between.
IS_COMPILED = not path.__file__.endswith(".py")


@pytest.mark.skipif(IS_COMPILED, reason="the recording path is compiled")
def test_an_interrupt_before_a_result_exists_leaves_a_whole_tape(monkeypatch):
    x = torch.ones(4)
    thread.tape.flush()

    def step():
        a = x + 1.0
        b = a * 3.0
        return b.tolist()

    assert step() == [6.0] * 4
    made = path.fresh

    def interrupted(*arguments):
        made(*arguments)
        raise KeyboardInterrupt

    a = x + 1.0
    monkeypatch.setattr(path, "fresh", interrupted)
    with pytest.raises(KeyboardInterrupt):
        a - 2.0
    monkeypatch.undo()
    assert (a * 3.0).tolist() == [6.0] * 4
    assert step() == [6.0] * 4


def test_an_interrupted_run_does_not_run_again(monkeypatch):
    x = torch.zeros(4)
    thread.tape.flush()
    x.add_(1.0)
    ran = plan.Plan.run

    def interrupted(self, *arguments):
        ran(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(plan.Plan, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.tape.flush()
    monkeypatch.undo()
    assert x.tolist() == [1.0] * 4


def test_an_interrupted_build_can_be_repeated(monkeypatch):
    x = torch.zeros(7)
    thread.tape.flush()
    x.add_(1.0)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(tape, "Plan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.tape.flush()
    monkeypatch.undo()
    assert x.tolist() == [1.0] * 7


class _Broken(Exception):
    pass


def break_plans(monkeypatch, breaks):
    built = plan.Plan.__init__

    def failing(self, calls, live):
        if breaks(calls):
            raise _Broken("no such instruction")
        built(self, calls, live)

    monkeypatch.setattr(plan.Plan, "__init__", failing)


def test_calls_that_do_not_compile_together_run_one_by_one(monkeypatch):
    x = torch.ones(11)
    thread.tape.flush()
    break_plans(monkeypatch, lambda calls: len(calls) > 1)
    with pytest.warns(
        RuntimeWarning, match=r"could not run add, mul, sin, sum together(.*\n)*.*no such"
    ):
        assert ((x + 1.0) * 2.0).sin().sum().item() == pytest.approx(11 * -0.7568024953, rel=1e-5)
    # The second time it is known, and silent.
    assert ((x + 1.0) * 2.0).sin().sum().item() == pytest.approx(11 * -0.7568024953, rel=1e-5)


def test_a_call_that_does_not_compile_is_named(monkeypatch):
    x = torch.ones(12)
    y = torch.zeros(12)
    thread.tape.flush()
    y.add_(1.0)
    break_plans(monkeypatch, lambda calls: any(call.name == "cos" for call in calls))
    z = x.cos()
    with pytest.raises(RuntimeError, match=r"kernel for cos\. .*report.*\n.*cos.*\n.*no such"):
        thread.tape.flush()
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="never computed.*kernel for cos"):
        z.tolist()
    assert (x + 1.0).tolist() == [2.0] * 12
    assert x.cos().sum().item() == pytest.approx(12 * 0.5403023, rel=1e-5)


def test_a_window_ends_by_itself():
    with window(4):
        x = torch.ones(2)
        thread.tape.flush()
        results = [x + float(k) for k in range(10)]
        assert len(thread.tape.recorded()) == 2
        assert results[7]._storage.tape is None and results[9]._storage.tape is not None


def test_setting_the_window_takes_effect_at_once():
    with window(1):
        assert (torch.ones(3) + 1.0)._storage.tape is None
    assert (torch.ones(3) + 1.0)._storage.tape is thread.tape


def test_recording_in_a_finalizer_during_a_flush_is_refused(monkeypatch):
    x = torch.ones(3)
    thread.tape.flush()
    problems = []

    def watch(_, __):
        for operation in (lambda: x + 1.0, lambda: y.tolist()):
            try:
                operation()
            except RuntimeError as error:
                problems.append(str(error))

    y = x * 2.0
    tape.watchers.append(watch)
    try:
        assert y.tolist() == [2.0] * 3
    finally:
        tape.watchers.remove(watch)
    assert len(problems) == 2 and all("finalizer" in text for text in problems)
    assert (x + 1.0).tolist() == [2.0] * 3


def test_the_trie_is_bounded(monkeypatch):
    monkeypatch.setattr(tape, "MAX_CALLS", 30)
    thread.tape.forget()
    for n in range(1, 60):
        assert (torch.ones(n) + 1.0).sum().item() == 2 * n
        assert thread.tape.calls_known == known_calls(thread.tape.root)
    assert 20 <= thread.tape.calls_known <= 35


def known_calls(call):
    return sum(1 + known_calls(child) for child in call.children.values())


def test_the_oldest_paths_go_first(monkeypatch):
    monkeypatch.setattr(tape, "MAX_CALLS", 30)
    thread.tape.forget()

    def plan_for(n):
        (torch.ones(n) + 1.0).sum().item()
        return thread.tape.last_plan

    plans = [plan_for(n) for n in range(1, 12)]
    assert plan_for(11) is plans[-1] and plan_for(10) is plans[-2]
    assert plan_for(1) is not plans[0]


def test_plans_of_one_path_are_bounded(monkeypatch):
    monkeypatch.setattr(tape, "_MAX_PLANS", 3)
    x = torch.ones(5)
    for kept in range(12):
        results = [x + 1.0, x * 2.0, x - 1.0, x / 2.0]
        results = [r if kept >> k & 1 else None for k, r in enumerate(results)]
        cursor = thread.tape.cursor
        thread.tape.flush()
        assert len(cursor.plans) <= 3


def test_text_of_a_tape():
    x = torch.ones(2, 3)
    thread.tape.flush()
    y = x.t() + 1.0
    assert repr(thread.tape) == (
        "tape\n   0  %1:float32[3x2] strides (1, 3) = add(%0:float32[3x2] strides (1, 3), float)"
    )
    del y
    thread.tape.flush()
    assert repr(thread.tape) == "<empty tape>"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_with_pending_calls(capfd):
    x = torch.ones(1000)
    y = (x + 1.0).sum()
    child = os.fork()
    if not child:
        status = 1
        try:
            z = y * 2.0
            status = 0 if z.item() == 4000.0 and y.item() == 2000.0 else 2
        finally:
            sys.stdout.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert y.item() == 2000.0


def test_call_by_call_prints():
    x = torch.ones(2)
    thread.tape.flush()
    y = x + 1.0
    text = repr(CallByCall(thread.tape.recorded(), ValueError("why")))
    assert text.startswith("one by one\n  0  %1:float32[2] = add(")
    assert y.tolist() == [2.0, 2.0]
