"""Convolution in half precision: sums in single precision, rounded once, on every target."""

from __future__ import annotations

import numpy as np
import pytest

from flambeau.compiler.convolution import ConvolutionProblem, plan_convolution
from flambeau.compiler.convolution_backward import plan_backward_data, plan_backward_weight
from flambeau.compiler.pooling import PoolingProblem, plan_avg_pool, plan_max_pool
from flambeau.compiler.target import Target, host
from flambeau.core.dtype import bfloat16, float16, float32
from tests.compiler.convolution_cases import make_case
from tests.compiler.library_runner import possible_targets, run_plan

PLANNERS = {
    "output": (plan_convolution, ("input", "weight", "bias")),
    "grad_input": (plan_backward_data, ("grad_output", "weight")),
    "grad_weight": (plan_backward_weight, ("grad_output", "input")),
}


def bits_of(values: np.ndarray) -> np.ndarray:
    """bfloat16, rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def values_of(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("target", possible_targets(), ids=lambda target: target.name)
@pytest.mark.parametrize("result", PLANNERS)
def test_float16(result: str, target: Target) -> None:
    problem = ConvolutionProblem(float16, 3, 5, 7, (9, 11), (3, 2), (2, 1), (1, 0), has_bias=True)
    case = make_case(problem)
    planner, names = PLANNERS[result]
    plan = planner(problem, target)
    values = run_plan(plan, case.operands_for(result, *names), result, target=target)
    assert values.dtype == np.float16
    np.testing.assert_allclose(values, case.expected[result], rtol=2e-3, atol=2e-3)
    again = run_plan(plan, case.operands_for(result, *names), result, 1, target)
    assert again.tobytes() == values.tobytes()


@pytest.mark.parametrize("target", possible_targets(), ids=lambda target: target.name)
def test_bfloat16(target: Target) -> None:
    """Exactly the rounded result of single precision."""
    shapes = {"input": (2, 4, 8, 9), "weight": (70, 4, 3, 3), "output": (2, 70, 6, 7)}
    generator = np.random.default_rng(0)
    operands = {
        name: bits_of(generator.standard_normal(shape).astype(np.float32))
        for name, shape in shapes.items()
    }
    problem = ConvolutionProblem(bfloat16, 2, 4, 70, (8, 9), (3, 3))
    bits = run_plan(plan_convolution(problem, target), operands, "output", target=target)
    single = {name: values_of(array) for name, array in operands.items()}
    plan = plan_convolution(problem.in_single_precision(), target)
    exact = run_plan(plan, single, "output", target=target)
    assert exact.dtype == float32.numpy
    np.testing.assert_array_equal(bits, bits_of(exact))


def test_pooling() -> None:
    problem = PoolingProblem(float16, 6, (7, 9), (3, 2), (2, 2), (1, 0))
    values = np.random.default_rng(0).standard_normal((6, 7, 9)).astype(np.float16)
    rows, columns = problem.out_size
    operands = {
        "input": values,
        "output": np.zeros((6, rows, columns), np.float16),
        "indices": np.zeros((6, rows, columns), np.int64),
    }
    greatest = run_plan(plan_max_pool(problem, host()), operands, "output")
    places = run_plan(plan_max_pool(problem, host()), operands, "indices")
    flat = np.take_along_axis(values.reshape(6, -1), places.reshape(6, -1), axis=1)
    np.testing.assert_array_equal(flat.reshape(greatest.shape), greatest)
    del operands["indices"]
    means = run_plan(plan_avg_pool(problem, host()), operands, "output")
    padded = np.pad(values.astype(np.float64), ((0, 0), (1, 1), (0, 0)))
    for row, column in np.ndindex(rows, columns):
        window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 2]
        np.testing.assert_allclose(means[:, row, column], window.mean((1, 2)), rtol=2e-3, atol=1e-3)
