"""F(2 x 2, 3 x 3) against numpy, in blocks and in slices, on every target this machine can run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flambeau.compiler import winograd_gradient_plan, winograd_plan
from flambeau.compiler.convolution import ConvolutionProblem, plan_convolution
from flambeau.compiler.convolution_backward import plan_backward_data, plan_backward_weight
from flambeau.compiler.gemm_micro import tile_shape
from flambeau.compiler.jit import emit_object
from flambeau.compiler.library_plan import LibraryPlan
from flambeau.compiler.target import Target, describe_host, host
from flambeau.compiler.winograd import winograd_module
from flambeau.compiler.winograd_gradient import winograd_gradient_module
from flambeau.core.dtype import float32, float64
from tests.compiler.convolution_cases import Case, make_case
from tests.compiler.library_runner import possible_targets, run_plan

PLANNERS = {
    "output": (plan_convolution, ("input", "weight", "bias")),
    "grad_input": (plan_backward_data, ("grad_output", "weight")),
    "grad_weight": (plan_backward_weight, ("grad_output", "input")),
}


def problem(
    batch: int, channels: tuple[int, int], size: tuple[int, int], low=(1, 1), high=(1, 1)
) -> ConvolutionProblem:
    return ConvolutionProblem(
        float32, batch, *channels, size, (3, 3), pad_low=low, pad_high=high, has_bias=batch % 2 == 1
    )


PROBLEMS = {
    "odd plane": problem(3, (17, 19), (9, 11)),
    "no padding": problem(2, (16, 33), (12, 31), (0, 0), (0, 0)),
    "wide padding": problem(3, (20, 16), (5, 4), (3, 2), (0, 4)),
    "small planes": problem(37, (18, 40), (3, 2)),
    "one output": problem(5, (16, 16), (3, 3), (0, 0), (0, 0)),
    "long rows": problem(1, (16, 18), (4, 150)),
    "many channels": problem(9, (330, 321), (4, 6)),
}


def plan(case: Case, result: str, target: Target) -> LibraryPlan:
    planned = PLANNERS[result][0](case.problem, target)
    assert all(step.module_key.startswith("winograd") for step in planned.steps)
    return planned


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (winograd_plan, winograd_gradient_plan):
        monkeypatch.setattr(module, "WORTH", 1e9)


@pytest.mark.parametrize("target", possible_targets(), ids=lambda target: target.name)
@pytest.mark.parametrize("result", PLANNERS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_values(name: str, result: str, target: Target) -> None:
    case = make_case(PROBLEMS[name])
    operands = case.operands_for(result, *PLANNERS[result][1])
    steps = plan(case, result, target)
    values = run_plan(steps, operands, result, target=target)
    case.check(result, values)
    assert run_plan(steps, operands, result, 3, target).tobytes() == values.tobytes()


@pytest.mark.parametrize("result", PLANNERS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_small_blocks_and_slices(name: str, result: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (winograd_plan, winograd_gradient_plan):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1)
        monkeypatch.setattr(module, "LEAST_BLOCK_TILES", 5)
    monkeypatch.setattr(winograd_plan, "SUM_BYTES", 1)
    monkeypatch.setattr(winograd_plan, "WORKERS", 3)
    monkeypatch.setattr(winograd_gradient_plan, "MOST_WORKERS", 3)
    case = make_case(PROBLEMS[name])
    operands = case.operands_for(result, *PLANNERS[result][1])
    values = run_plan(plan(case, result, host()), operands, result, 2)
    case.check(result, values)
    monkeypatch.setattr(winograd_plan, "MANY_CHANNELS", 1)
    monkeypatch.setattr(winograd_plan, "SLICE_BYTES", 1 << 16)
    monkeypatch.setattr(winograd_gradient_plan, "WORKER_SUM_BYTES", 1)
    monkeypatch.setattr(winograd_gradient_plan, "SLICE_BYTES", 1 << 16)
    values = run_plan(plan(case, result, host()), operands, result, 2)
    case.check(result, values)


@pytest.mark.parametrize("result", PLANNERS)
def test_errors_are_those_of_single_precision(result: str) -> None:
    """No worse than plain sums: relative to the largest element, a few units in the last place."""
    case = make_case(problem(2, (128, 128), (20, 20)))
    operands = case.operands_for(result, *PLANNERS[result][1])
    values = run_plan(plan(case, result, host()), operands, result)
    scale = np.abs(case.expected[result]).max()
    assert np.abs(values - case.expected[result]).max() < 1e-6 * scale


def modules(given: ConvolutionProblem) -> set[str]:
    return {step.module_key.split()[0] for step in plan_convolution(given, host()).steps}


def test_chosen_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert modules(problem(8, (64, 64), (56, 56))) == {"winograd"}
    # Little to save: few channels, or so few tiles that the weights' transform costs more.
    assert modules(problem(8, (3, 64), (56, 56))) == {"correlation"}
    assert modules(problem(1, (512, 512), (4, 4))) == {"correlation"}


BASE = problem(2, (64, 64), (30, 30))
OTHERS = {
    "stride": replace(BASE, stride=(1, 2)),
    "dilation": replace(BASE, dilation=(2, 1)),
    "groups": replace(BASE, groups=2),
    "double precision": replace(BASE, dtype=float64),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_plain_sums(name: str) -> None:
    assert modules(OTHERS[name]) == {"correlation"}


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_compiles_for_other_machines(machine: str) -> None:
    flags = {"aarch64": frozenset({"fp", "asimd"}), "x86_64": frozenset()}[machine]
    target = describe_host(machine, flags, None)
    for make in (winograd_module, winograd_gradient_module):
        assert emit_object(make(tile_shape("float", target)).source(), target)
