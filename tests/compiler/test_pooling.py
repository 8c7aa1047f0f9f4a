"""Pooling against a plain loop over windows that follows PyTorch's rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flambeau.compiler.gemm_micro import tile_shape
from flambeau.compiler.jit import emit_object
from flambeau.compiler.pooling import (
    AdaptivePoolingProblem,
    AnyPoolingProblem,
    PoolingProblem,
    plan_avg_pool,
    plan_avg_pool_backward,
    plan_max_pool,
    plan_max_pool_backward,
)
from flambeau.compiler.pooling_kernels import pooling_module
from flambeau.compiler.target import Target, describe_host, host
from flambeau.core.dtype import float32, float64
from tests.compiler.library_runner import PlanRunner, possible_targets, run_plan

BASE = PoolingProblem(float32, 3, (12, 21), (2, 2), (2, 2))
NAMED = {
    "halves": BASE,
    "overlapping": replace(BASE, kernel=(3, 3), padding=(1, 1)),
    "stride 1": replace(BASE, kernel=(3, 4), stride=(1, 1), padding=(1, 2)),
    "stride 3": replace(BASE, kernel=(3, 2), stride=(3, 3)),
    "ceil": replace(BASE, kernel=(3, 3), stride=(2, 3), ceil_mode=True),
    "ceil, padding": replace(BASE, kernel=(3, 2), padding=(1, 1), ceil_mode=True),
    "one row": replace(BASE, in_size=(1, 50), kernel=(1, 3), stride=(1, 2), padding=(0, 1)),
    "wide window": replace(BASE, in_size=(9, 60), kernel=(9, 40), stride=(1, 20)),
    "whole plane": replace(BASE, kernel=(12, 21)),
    "everything": AdaptivePoolingProblem(float32, 5, (7, 9), (1, 1)),
    "uneven": AdaptivePoolingProblem(float32, 5, (11, 23), (4, 7)),
    "even": AdaptivePoolingProblem(float32, 5, (8, 20), (4, 10)),
    "larger": AdaptivePoolingProblem(float32, 2, (3, 4), (5, 9)),
    "no planes": replace(BASE, planes=0),
}
DILATED = {
    "dilated": replace(BASE, kernel=(3, 2), dilation=(2, 3), stride=(2, 1), padding=(1, 1)),
    "dilated, ceil": replace(BASE, kernel=(3, 3), dilation=(3, 2), padding=(1, 1), ceil_mode=True),
}
DIVIDED = {
    "padding not counted": replace(
        BASE, kernel=(3, 3), padding=(1, 1), ceil_mode=True, count_include_pad=False
    ),
    "own divisor": replace(BASE, kernel=(3, 3), padding=(1, 0), divisor_override=7),
}


def bounds(problem: AnyPoolingProblem, axis: int, number: int) -> tuple[list[int], int]:
    """The elements of a window along an axis, and its extent with padding."""
    size = problem.in_size[axis]
    if isinstance(problem, AdaptivePoolingProblem):
        start, end = (-(-(number + i) * size // problem.out_size[axis]) for i in range(2))
        start = number * size // problem.out_size[axis]
        return list(range(start, end)), end - start
    start = number * problem.stride[axis] - problem.padding[axis]
    taps = range(problem.kernel[axis])
    places = [start + tap * problem.dilation[axis] for tap in taps]
    extent = min(start + problem.kernel[axis], size + problem.padding[axis]) - start
    return [place for place in places if 0 <= place < size], extent


def windows_of(problem: AnyPoolingProblem):
    """(out row, out column, rows, columns, extent with padding) of every window."""
    for row, column in np.ndindex(*problem.out_size):
        rows, height = bounds(problem, 0, row)
        columns, width = bounds(problem, 1, column)
        yield row, column, rows, columns, height * width


def divisor_of(problem: AnyPoolingProblem, rows: list, columns: list, extent: int) -> int:
    if isinstance(problem, PoolingProblem):
        if problem.divisor_override is not None:
            return problem.divisor_override
        if problem.count_include_pad:
            return extent
    return max(1, len(rows) * len(columns))


def draw(problem: AnyPoolingProblem, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((problem.planes, *size)).astype(problem.dtype.numpy)


def max_reference(problem: AnyPoolingProblem, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.zeros((problem.planes, *problem.out_size), x.dtype)
    places = np.zeros(values.shape, np.int64)
    for row, column, rows, columns, _ in windows_of(problem):
        for plane in range(problem.planes):
            best, place = -np.inf, rows[0] * x.shape[2] + columns[0]
            for i in rows:
                for j in columns:
                    value = x[plane, i, j]
                    if value > best or np.isnan(value):
                        best, place = value, i * x.shape[2] + j
            values[plane, row, column], places[plane, row, column] = best, place
    return values, places


def check_max(problem: AnyPoolingProblem, x: np.ndarray, target: Target) -> None:
    values, places = max_reference(problem, x)
    operands = {"input": x, "output": np.ones_like(values), "indices": np.ones_like(places)}
    for cut in (None, 3):
        runner = PlanRunner(plan_max_pool(problem, target), operands, target)
        runner.run(cut)
        np.testing.assert_array_equal(runner.result("output"), values)
        np.testing.assert_array_equal(runner.result("indices"), places)
    grad = draw(problem, problem.out_size, 1)
    expected = np.zeros(x.shape, x.dtype)
    flat = expected.reshape(problem.planes, problem.in_size[0] * problem.in_size[1])
    for plane in range(problem.planes):
        for place, value in zip(places[plane].reshape(-1), grad[plane].reshape(-1), strict=True):
            flat[plane, place] += value
    operands = {"grad_output": grad, "indices": places, "grad_input": np.ones_like(x)}
    plan = plan_max_pool_backward(problem, target)
    np.testing.assert_array_equal(run_plan(plan, operands, "grad_input", 1, target), expected)


def check_avg(problem: AnyPoolingProblem, target: Target) -> None:
    x, grad = draw(problem, problem.in_size), draw(problem, problem.out_size, 1)
    values = np.zeros(grad.shape)
    grad_input = np.zeros(x.shape)
    for row, column, rows, columns, extent in windows_of(problem):
        divisor = divisor_of(problem, rows, columns, extent)
        window = (slice(None), *np.ix_(rows, columns)) if rows and columns else None
        if window is not None:
            values[:, row, column] = x[window].astype(np.float64).sum((1, 2)) / divisor
            grad_input[window] += (grad[:, row, column].astype(np.float64) / divisor)[:, None, None]
    tolerance = {"rtol": 20 * np.finfo(x.dtype).eps, "atol": 20 * np.finfo(x.dtype).eps}
    forward, backward = plan_avg_pool(problem, target), plan_avg_pool_backward(problem, target)
    for cut in (None, 3):
        operands = {"input": x, "output": np.ones_like(grad)}
        result = run_plan(forward, operands, "output", cut, target)
        np.testing.assert_allclose(result, values, **tolerance)
        operands = {"grad_output": grad, "grad_input": np.ones_like(x)}
        result = run_plan(backward, operands, "grad_input", cut, target)
        np.testing.assert_allclose(result, grad_input, **tolerance)


@pytest.mark.parametrize("target", possible_targets(), ids=lambda target: target.name)
@pytest.mark.parametrize("name", [*NAMED, *DILATED])
def test_max(name: str, target: Target) -> None:
    problem = (NAMED | DILATED)[name]
    check_max(problem, draw(problem, problem.in_size), target)


@pytest.mark.parametrize("target", possible_targets(), ids=lambda target: target.name)
@pytest.mark.parametrize("name", [*NAMED, *DIVIDED])
def test_avg(name: str, target: Target) -> None:
    check_avg((NAMED | DIVIDED)[name], target)


@pytest.mark.parametrize(
    "name", ["halves", "overlapping", "ceil, padding", "wide window", "uneven"]
)
def test_double_precision(name: str) -> None:
    problem = replace(NAMED[name], dtype=float64)
    check_max(problem, draw(problem, problem.in_size), host())
    check_avg(problem, host())


@pytest.mark.parametrize("name", [*NAMED, *DILATED])
def test_max_of_equal_infinite_and_missing_numbers(name: str) -> None:
    """The first of equal values wins, minus infinity has a place too, the last NaN beats all."""
    problem = (NAMED | DILATED)[name]
    generator = np.random.default_rng(3)
    shape = (problem.planes, *problem.in_size)
    whole = generator.integers(-2, 3, shape).astype(np.float32)
    for special in (-np.inf, np.nan):
        for share in (0.05, 0.6, 1.0):
            x = np.where(generator.random(shape) < share, np.float32(special), whole)
            check_max(problem, x, host())


def random_problem(seed: int) -> AnyPoolingProblem:
    generator = np.random.default_rng(seed)

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(generator.integers(low, high)), int(generator.integers(low, high))

    size, planes = pair(6, 40), int(generator.integers(1, 5))
    if seed % 4 == 0:
        return AdaptivePoolingProblem(float32, planes, size, pair(1, 9))
    kernel = pair(1, 6)
    padding = tuple(int(generator.integers(0, k // 2 + 1)) for k in kernel)
    return PoolingProblem(
        float32, planes, size, kernel, pair(1, 5), padding,
        ceil_mode=bool(generator.integers(2)), count_include_pad=bool(generator.integers(2)),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_random_geometry(seed: int) -> None:
    problem = random_problem(seed)
    check_max(problem, draw(problem, problem.in_size), host())
    check_avg(problem, host())


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_module_compiles_for_other_machines(machine: str) -> None:
    flags = {"aarch64": frozenset({"fp", "asimd"}), "x86_64": frozenset()}[machine]
    target = describe_host(machine, flags, None)
    for element in ("float", "double"):
        assert emit_object(pooling_module(tile_shape(element, target)).source(), target)
