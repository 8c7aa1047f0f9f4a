"""Attention kernels against plain numpy in double precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flambeau.compiler import attention
from flambeau.compiler.attention import (
    AttentionProblem,
    backward_module,
    few_module,
    forward_module,
    plan_attention,
    plan_attention_backward,
)
from flambeau.compiler.jit import emit_object
from flambeau.compiler.target import Target, describe_host
from flambeau.core.dtype import dtype, float16, float32, float64
from tests.compiler.library_runner import PlanRunner, possible_targets

# batch, heads, heads that share keys, queries, keys, dim, value dim
SIZES = {
    "tiny": (1, 1, 1, 1, 1, 1, 1),
    "odd": (1, 2, 2, 40, 9, 5, 3),
    "grouped": (2, 4, 2, 33, 130, 16, 24),
    "many keys": (1, 2, 1, 7, 300, 64, 64),
    "many queries": (1, 1, 1, 170, 20, 16, 16),
    "many heads": (3, 8, 1, 35, 35, 16, 16),
    "one query": (2, 4, 2, 1, 70, 16, 32),
    "few queries": (1, 4, 2, 3, 1100, 32, 80),
}
TOLERANCE = {float16: 2e-3, float32: 1e-5, float64: 1e-12}


def strides(array: np.ndarray) -> tuple[int, ...]:
    return tuple(s // array.itemsize for s in array.strides)


def operands_of(sizes: tuple[int, ...], kind: dtype, masked: bool) -> dict[str, np.ndarray]:
    batch, heads, group, queries, keys, dim, value_dim = sizes
    random = np.random.default_rng(0)

    def make(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(kind.numpy)

    made = {
        "q": make(batch, heads, queries, dim),
        "k": make(batch, heads // group, keys, dim),
        "v": make(batch, heads // group, keys, value_dim),
        "grad": make(batch, heads, queries, value_dim),
    }
    if masked:
        mask = random.standard_normal((batch, 1, queries, keys))
        mask[random.random(mask.shape) < 0.3] = -np.inf
        mask[:, :, queries // 2] = -np.inf
        made["mask"] = mask.astype(np.float32 if kind is float16 else kind.numpy)
    return made


def problem_of(
    sizes: tuple[int, ...], kind: dtype, causal: bool, operands: dict[str, np.ndarray]
) -> AttentionProblem:
    found = {name: strides(array) for name, array in operands.items() if name != "lse"}
    if "mask" in found:
        batch, _, row, column = found["mask"]
        found["mask"] = (batch, 0, row, column)
    return AttentionProblem(kind, *sizes, 0.3, causal, "mask" in operands, found)


def expected(operands: dict[str, np.ndarray], causal: bool) -> dict[str, np.ndarray]:
    wide = {name: array.astype(np.float64) for name, array in operands.items()}
    q, grad = wide["q"], wide["grad"]
    group = q.shape[1] // wide["k"].shape[1]
    k, v = (np.repeat(wide[name], group, 1) for name in "kv")
    scores = q @ k.swapaxes(-1, -2) * 0.3 + wide.get("mask", 0)
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isinf(top), 0, top))
    total = weights.sum(-1, keepdims=True)
    weights /= np.where(total == 0, 1, total)
    slopes = grad @ v.swapaxes(-1, -2)
    slopes = 0.3 * weights * (slopes - (weights * slopes).sum(-1, keepdims=True))

    def shared(x: np.ndarray) -> np.ndarray:
        return x.reshape(x.shape[0], -1, group, *x.shape[2:]).sum(2)

    return {
        "out": weights @ v,
        "dq": slopes @ k,
        "dk": shared(slopes.swapaxes(-1, -2) @ q),
        "dv": shared(weights.swapaxes(-1, -2) @ grad),
    }


def results(
    sizes: tuple[int, ...],
    kind: dtype,
    causal: bool,
    operands: dict[str, np.ndarray],
    target: Target,
    cut: int | None,
) -> dict[str, np.ndarray]:
    """Forward and backward, with tasks in ranges of ``cut``."""
    operands = dict(operands)
    operands["out"] = np.zeros_like(operands["grad"])
    computed = np.float64 if kind is float64 else np.float32
    operands["lse"] = np.zeros(operands["q"].shape[:3], computed)
    runner = PlanRunner(
        plan_attention(problem_of(sizes, kind, causal, operands), target), operands, target
    )
    runner.run(cut)
    operands |= {name: runner.result(name) for name in ("out", "lse")}
    operands |= {f"d{name}": np.zeros_like(operands[name]) for name in "qkv"}
    plan = plan_attention_backward(problem_of(sizes, kind, causal, operands), target)
    runner = PlanRunner(plan, operands, target)
    runner.run(cut)
    return {name: runner.result(name) for name in ("out", "dq", "dk", "dv")}


@pytest.mark.parametrize("target", possible_targets(), ids=lambda target: target.name)
@pytest.mark.parametrize("masked", [False, True], ids=["open", "masked"])
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("kind", [float32, float64, float16], ids=lambda kind: kind.name)
def test_results_and_gradients(kind: dtype, causal: bool, masked: bool, target: Target) -> None:
    for name, sizes in SIZES.items():
        operands = operands_of(sizes, kind, masked)
        found = results(sizes, kind, causal, operands, target, None)
        again = results(sizes, kind, causal, operands, target, 1)
        reference = expected(operands, causal)
        for what, array in found.items():
            scale = 1 + np.abs(reference[what]).max()
            difference = np.abs(array - reference[what]).max() / scale
            assert difference < TOLERANCE[kind], (name, what, difference)
            assert (array == again[what]).all(), f"{name}: {what} depends on the cut"


@pytest.mark.parametrize("kind", [float32, float16], ids=lambda kind: kind.name)
def test_panels_that_share_a_pass_change_no_bit(
    kind: dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = possible_targets()[0]
    sizes = (2, 8, 2, 150, 300, 16, 24)
    for causal, masked in ((False, False), (True, False), (True, True)):
        operands = operands_of(sizes, kind, masked)
        problem = problem_of(sizes, kind, causal, operands | {"out": operands["grad"]})
        tasks = plan_attention(problem, target).steps[0].tasks
        alone = results(sizes, kind, causal, operands, target, None)
        monkeypatch.setattr(attention, "CACHED_BYTES", 0)
        assert plan_attention(problem, target).steps[0].tasks < tasks
        together = results(sizes, kind, causal, operands, target, None)
        monkeypatch.undo()
        assert (alone["out"] == together["out"]).all()


def test_few_queries_take_a_pass_over_memory() -> None:
    target = possible_targets()[0]
    names = {}
    for name, sizes in SIZES.items():
        operands = operands_of(sizes, float32, False)
        operands["out"] = operands["grad"]
        plan = plan_attention(problem_of(sizes, float32, False, operands), target)
        names[name] = [step.function for step in plan.steps]
    assert names["one query"] == ["attention_few"]
    assert names["few queries"] == ["attention_few", "attention_join"]
    assert names["tiny"] == names["odd"] == ["attention_forward"]


def test_any_strides_are_read_in_place() -> None:
    """Heads beside each other within a row, and columns that are not dense."""
    target = possible_targets()[0]
    sizes = SIZES["grouped"]
    operands = operands_of(sizes, float32, False)
    dense = results(sizes, float32, True, operands, target, None)
    moved = {
        name: np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        for name, array in operands.items()
        if name in "qkv"
    }
    problem = problem_of(sizes, float32, True, operands | moved)
    storage = {name: array.transpose(0, 2, 3, 1) for name, array in moved.items()}
    out = np.zeros_like(dense["out"])
    problem = replace(problem, strides=problem.strides | {"out": strides(out)})
    lse = np.zeros(out.shape[:3], np.float32)
    plan = plan_attention(problem, target)
    assert plan.workspace_bytes == 0
    runner = PlanRunner(plan, storage | {"out": out, "lse": lse}, target)
    runner.run()
    assert (runner.result("out") == dense["out"]).all()


def test_sizes_and_strides_are_not_in_the_module_key() -> None:
    target = possible_targets()[0]
    keys = set()
    for sizes in (SIZES["many heads"], SIZES["odd"]):
        operands = operands_of(sizes, float32, False)
        operands["out"] = operands["grad"]
        plan = plan_attention(problem_of(sizes, float32, False, operands), target)
        keys |= {step.module_key for step in plan.steps}
    assert len(keys) == 1


@pytest.mark.parametrize("module", [forward_module, few_module, backward_module])
def test_code_for_neon(module) -> None:
    target = describe_host("aarch64", frozenset({"fp", "asimd", "atomics"}), None)
    assert emit_object(module("float", target).source(), target)
