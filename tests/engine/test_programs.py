"""Invariants I1, I2 and I6 on random programs: any window, any number of threads, same bits."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.programs import (
    ArrayMachine,
    Instruction,
    TensorMachine,
    run_program,
    threads,
    window,
)

numbers = st.integers(0, 63)
programs = st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=40)


def long_program(seed: int) -> list[Instruction]:
    """Longer and more varied than what hypothesis likes to draw."""
    draw = random.Random(seed)
    length = draw.randrange(20, 90)
    return [tuple(draw.randrange(64) for _ in range(4)) for _ in range(length)]


def check_windows(program: list[Instruction]) -> None:
    with window(1):
        alone = run_program(TensorMachine(), program)
    for calls in (3, 1024):
        with window(calls):
            assert_same_bits(alone, run_program(TensorMachine(), program))


def check_against_numpy(program: list[Instruction]) -> None:
    with np.errstate(all="ignore"):
        expected = run_program(ArrayMachine(), program)
    found = run_program(TensorMachine(), program)
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def assert_same_bits(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(programs)
def test_a_window_of_one_gives_the_same_bits(program):
    check_windows(program)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(programs)
def test_programs_mean_what_numpy_means(program):
    check_against_numpy(program)


@pytest.mark.parametrize("seed", range(40))
def test_long_programs(seed):
    program = long_program(seed)
    check_windows(program)
    check_against_numpy(program)


@pytest.mark.parametrize("seed", range(8))
def test_threads_do_not_change_a_bit(seed):
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(run_program(TensorMachine(), long_program(seed)))
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])
