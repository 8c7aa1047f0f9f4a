"""Convolution and its gradients against numpy, on every target that this machine can run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flambeau.compiler import correlation_plan, correlation_steps, weight_gradient_plan
from flambeau.compiler.convolution import ConvolutionProblem, plan_convolution
from flambeau.compiler.convolution_backward import (
    plan_backward_bias,
    plan_backward_data,
    plan_backward_weight,
)
from flambeau.compiler.correlation import correlation_module
from flambeau.compiler.correlation_plan import CorrelationProblem
from flambeau.compiler.depthwise import depthwise_module
from flambeau.compiler.gemm_micro import TileShape, tile_shape
from flambeau.compiler.jit import emit_object
from flambeau.compiler.target import Target, describe_host, host
from flambeau.compiler.weight_gradient import weight_gradient_module
from flambeau.compiler.weight_gradient_filters import filter_lanes_module
from flambeau.core.dtype import float32, float64
from tests.compiler.convolution_cases import Case, make_case, random_problem
from tests.compiler.library_runner import possible_targets, run_plan

MODULES = (correlation_module, depthwise_module, weight_gradient_module, filter_lanes_module)

PLANNERS = {
    "output": (plan_convolution, ("input", "weight", "bias")),
    "grad_input": (plan_backward_data, ("grad_output", "weight")),
    "grad_weight": (plan_backward_weight, ("grad_output", "input")),
    "grad_bias": (plan_backward_bias, ("grad_output",)),
}

BASE = ConvolutionProblem(float32, 3, 2, 5, (12, 13), (3, 3), has_bias=True)
NAMED = {
    "lenet first": ConvolutionProblem(
        float32, 4, 1, 6, (28, 28), (5, 5), pad_low=(2, 2), pad_high=(2, 2), has_bias=True
    ),
    "lenet second": ConvolutionProblem(float32, 5, 6, 16, (14, 14), (5, 5), has_bias=True),
    "one column": replace(BASE, kernel=(3, 1), stride=(2, 3)),
    "one row": replace(BASE, in_size=(1, 40), kernel=(1, 7), pad_low=(0, 3), pad_high=(0, 2)),
    "pointwise": replace(BASE, kernel=(1, 1), in_channels=30, out_channels=33),
    "pointwise strided": replace(BASE, kernel=(1, 1), stride=(2, 2), out_channels=40),
    "stride past kernel": replace(BASE, kernel=(2, 2), stride=(5, 4)),
    "whole plane": replace(BASE, kernel=(12, 13), out_channels=20),
    "depthwise": replace(BASE, in_channels=9, out_channels=9, groups=9, pad_low=(1, 1)),
    "depthwise strided": replace(
        BASE,
        in_channels=6,
        out_channels=6,
        groups=6,
        in_size=(30, 35),
        stride=(2, 1),
        dilation=(2, 3),
        pad_low=(3, 2),
        pad_high=(0, 4),
    ),
    "depthwise in strips": replace(
        BASE, in_channels=2, out_channels=2, groups=2, in_size=(90, 120), kernel=(5, 5)
    ),
    "depthwise wide": replace(
        BASE, in_channels=2, out_channels=4, groups=2, in_size=(3, 9000), batch=1
    ),
    "depthwise multiplied": replace(BASE, in_channels=4, out_channels=12, groups=4),
    "many filters": replace(BASE, out_channels=70, in_channels=3, pad_low=(1, 0)),
    "many taps": replace(BASE, in_channels=40, out_channels=37, in_size=(7, 7), batch=9),
    "whole small plane": ConvolutionProblem(float32, 37, 8, 9, (5, 5), (5, 5), has_bias=True),
    "small planes": replace(BASE, batch=33, in_size=(4, 3), out_channels=31, pad_low=(1, 1)),
    "tiny": ConvolutionProblem(float32, 1, 1, 1, (1, 1), (1, 1)),
    "padding past kernel": replace(BASE, pad_low=(4, 5), pad_high=(6, 3)),
    "padding only to the right": replace(BASE, pad_high=(3, 4), stride=(2, 2)),
    "split": replace(BASE, batch=20, in_size=(9, 8), kernel=(3, 2), stride=(2, 3), out_channels=40),
    "split dilated": replace(
        BASE, batch=5, in_size=(11, 12), stride=(3, 2), dilation=(2, 2), pad_low=(2, 1)
    ),
    "long rows": replace(
        BASE, batch=9, in_size=(48, 45), in_channels=140, out_channels=17, kernel=(1, 1)
    ),
    "dilated": replace(BASE, dilation=(3, 4), stride=(1, 2)),
    "strips": ConvolutionProblem(float32, 1, 2, 64, (75, 75), (3, 3), pad_low=(1, 1)),
    "no images": replace(BASE, batch=0),
    "no channels": replace(BASE, in_channels=0),
    "no output": replace(BASE, in_size=(2, 2)),
}


def run(case: Case, result: str, target: Target, cut: int | None = None) -> np.ndarray:
    planner, names = PLANNERS[result]
    operands = case.operands_for(result, *names)
    return run_plan(planner(case.problem, target), operands, result, cut, target)


def check_all(case: Case, target: Target, cut: int = 3) -> None:
    for result in PLANNERS:
        values = run(case, result, target)
        case.check(result, values)
        assert run(case, result, target, cut).tobytes() == values.tobytes(), result


@pytest.mark.parametrize("target", possible_targets(), ids=lambda target: target.name)
@pytest.mark.parametrize("seed", range(30))
def test_random_geometry(seed: int, target: Target) -> None:
    check_all(make_case(random_problem(seed), seed), target, cut=1 + seed % 7)


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("name", NAMED)
def test_named_geometry(name: str, dtype: object) -> None:
    check_all(make_case(replace(NAMED[name], dtype=dtype)), host())


@pytest.mark.parametrize("seed", range(100, 110))
@pytest.mark.parametrize("least_blocks", [1, 1000])
def test_batch_in_slices_and_blocks(
    seed: int, least_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (correlation_steps, correlation_plan, weight_gradient_plan):
        monkeypatch.setattr(module, "SLICE_BYTES", 20_000)
    monkeypatch.setattr(weight_gradient_plan, "STRIP_BYTES", 2_000)
    monkeypatch.setattr(correlation_steps, "PANEL_BLOCK_BYTES", 500)
    monkeypatch.setattr(correlation_steps, "ENOUGH_BLOCKS", 3)
    monkeypatch.setattr(correlation_steps, "FEW_READS", seed % 3 * 1000)
    monkeypatch.setattr(correlation_plan, "BLOCKS", 3)
    monkeypatch.setattr(correlation_plan, "BLOCK_BYTES", 3_000)
    monkeypatch.setattr(correlation_plan, "LEAST_BLOCKS", least_blocks)
    problem = replace(random_problem(seed), batch=10)
    if seed % 2:
        problem = replace(problem, stride=(1, problem.stride[1]))
    check_all(make_case(problem, seed), host())


@pytest.mark.parametrize("result", ["output", "grad_input"])
def test_strips_of_large_planes(result: str) -> None:
    problem = replace(BASE, in_channels=40, out_channels=41, in_size=(60, 62), pad_low=(1, 1))
    problem = replace(problem, pad_high=(1, 1))
    case = make_case(problem)
    plan = PLANNERS[result][0](problem, host())
    assert plan.steps[-1].tasks > 2 * problem.batch
    case.check(result, run(case, result, host()))


@pytest.mark.parametrize("seed", range(200, 212))
def test_strided_gradient_with_joined_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def joined_first(self: CorrelationProblem, tile: TileShape) -> float:
        return float(any(one.out_rows > 1 for one in self.passes))

    monkeypatch.setattr(CorrelationProblem, "cycles", joined_first)
    problem = replace(random_problem(seed), stride=(2, 1 + seed % 3))
    case = make_case(problem, seed)
    case.check("grad_input", run(case, "grad_input", host(), 2))


def test_weight_gradient_formulations_agree() -> None:
    case = make_case(replace(NAMED["many filters"], stride=(2, 3)))
    tile = case.problem.tile(host())
    for number in range(2):
        writer = weight_gradient_plan.PlanWriter()
        problem, layouts = case.problem, case.problem.window().layouts()
        planner = (
            weight_gradient_plan.FilterLanesPlanner(writer, tile, problem)
            if number
            else weight_gradient_plan.PositionLanesPlanner(writer, tile, problem, layouts[0])
        )
        planner.plan()
        operands = case.operands_for("grad_weight", "grad_output", "input")
        case.check("grad_weight", run_plan(writer.finish(), operands, "grad_weight"))


@pytest.mark.parametrize("name", ["lenet first", "one row", "dilated", "many filters", "depthwise"])
def test_non_finite_input_stays_where_it_is_seen(name: str) -> None:
    """Junk lanes must not leak: an infinity reaches exactly the elements that meet it."""
    problem = replace(NAMED[name], batch=2, has_bias=False)
    case = make_case(problem)
    for source, result in (("input", "output"), ("grad_output", "grad_input")):
        original = case.operands[source]
        clean = run(case, result, host())
        case.operands[source] = original.copy()
        case.operands[source][0, -1, -1, -1] = np.inf
        poisoned = run(case, result, host())
        case.operands[source] = original
        reached = ~np.isfinite(poisoned)
        assert reached.any() and not reached[1].any()
        np.testing.assert_array_equal(poisoned[~reached], clean[~reached])
        ones = np.zeros_like(original)
        ones[0, -1, -1, -1] = 1
        case.operands[source] = ones
        response = run(case, result, host())
        case.operands[source] = original
        assert np.array_equal(reached, response != 0)


def test_weight_gradient_ignores_columns_outside_the_window() -> None:
    # Of 15 columns, windows of 2 with stride 2 reach the first 14.
    problem = replace(NAMED["lenet second"], in_size=(14, 15), stride=(1, 2), kernel=(1, 2))
    case = make_case(problem)
    case.operands["input"][..., -1] = np.nan
    assert np.isfinite(run(case, "grad_weight", host())).all()


def test_plans_of_one_type_share_their_modules() -> None:
    keys = set()
    for seed in range(0, 20, 2):
        problem = replace(random_problem(seed), dtype=float32)
        for planner, _ in PLANNERS.values():
            keys |= {step.module_key for step in planner(problem, host()).steps}
    assert len(keys) <= 4, keys


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_modules_compile_for_other_machines(machine: str) -> None:
    flags = {"aarch64": frozenset({"fp", "asimd"}), "x86_64": frozenset()}[machine]
    target = describe_host(machine, flags, None)
    for element in ("float", "double"):
        tile = tile_shape(element, target)
        for make in MODULES:
            assert emit_object(make(tile).source(), target)
