"""The memory plan: intervals that live at the same time never overlap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import flambeau as torch
from flambeau.engine.memory import ALIGNMENT, Interval, plan_memory
from flambeau.engine.tape import thread

spans = st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 10))


def placed(interval: Interval, offsets: dict[int, int]) -> range:
    return range(offsets[interval.name], offsets[interval.name] + interval.nbytes)


@given(st.lists(spans, max_size=40))
def test_living_intervals_are_apart(drawn):
    intervals = [
        Interval(k, nbytes, first, first + length)
        for k, (nbytes, first, length) in enumerate(drawn)
    ]
    offsets, total = plan_memory(intervals)
    for a in intervals:
        assert offsets[a.name] % ALIGNMENT == 0
        assert placed(a, offsets).stop <= total
        for b in intervals[: a.name]:
            if a.first <= b.last and b.first <= a.last and a.nbytes and b.nbytes:
                x, y = placed(a, offsets), placed(b, offsets)
                assert x.stop <= y.start or y.stop <= x.start


def test_a_chain_takes_turns_in_two_places():
    chain = [Interval(k, 1024, k, k + 1) for k in range(20)]
    _, total = plan_memory(chain)
    assert total == 2048


def test_nothing_needs_nothing():
    assert plan_memory([]) == ({}, 0)


def test_results_in_the_arena_are_right():
    """A long chain of products: every intermediate result lies in the arena."""
    torch.manual_seed(3)
    start = torch.randn(40, 40) * 0.1
    weights = [torch.randn(40, 40) * 0.1 for _ in range(6)]
    thread.tape.flush()

    def chain(look):
        x = start
        for k, w in enumerate(weights):
            left = (x @ w).tanh()
            right = (w @ x).relu()
            x = left - right.sum(k % 2, keepdim=True) * 0.1
            if look:
                x.tolist()
                left.tolist()
                right.tolist()
        return x.tolist()

    assert chain(False) == chain(True)
