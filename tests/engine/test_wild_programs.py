"""Invariants I1, I2 and I6 over the whole library: gradients, threads, exports and mistakes.

`python -m tests.engine.wild_programs 600` looks for longer.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.wild_programs import difference, run_wild, wild_program

numbers = st.integers(0, 63)
programs = st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=25)


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(programs)
def test_neither_window_nor_threads_change_a_bit(program):
    assert difference(program) == ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(5))
def test_long_programs(seed):
    assert difference(wild_program(seed), seed) == ""


@pytest.mark.filterwarnings("ignore")
def test_programs_do_what_they_are_for():
    """Most instructions succeed, and all kinds of mistakes occur."""
    outcomes = [run_wild(wild_program(seed), seed) for seed in range(6)]
    errors = [e for _, found in outcomes for e in found if "Error: " in e]
    instructions = sum(len(wild_program(seed)) for seed in range(6))
    assert 0 < len(errors) < instructions // 3
