"""Stages: when each instruction of a kernel runs, and what is kept from one walk to the next."""

from __future__ import annotations

from dataclasses import replace

from flambeau.compiler.kernel import BROADCAST, UNIT, Kernel, Operand, Tracer
from flambeau.compiler.levels import held_values, levels_of
from flambeau.compiler.math import exp
from flambeau.core import dtype as types

f32 = types.float32


def softmax_kernel() -> Kernel:
    t = Tracer()
    x = t.load(t.operand(Operand(f32, UNIT)))
    shifted = exp(x - t.reduce("max", x))
    t.store(t.operand(Operand(f32, UNIT)), shifted / t.reduce("sum", shifted))
    return t.finish((False, True))


def operations(kernel: Kernel, instructions: list[int]) -> list[str]:
    return [kernel.instructions[k].operation for k in instructions]


def test_softmax_has_three_stages():
    kernel = softmax_kernel()
    levels = levels_of(kernel)
    assert len(levels.stages) == 3 and len(levels.rows) == 4
    first, second, third = levels.stages
    assert operations(kernel, first.instructions) == ["load"]
    assert operations(kernel, first.reductions) == operations(kernel, second.reductions)
    assert third.reductions == []
    # Not buffered, so the exponential is computed again.
    assert set(second.instructions) < set(third.instructions)


def test_a_buffered_kernel_holds_what_is_costly():
    kernel = replace(softmax_kernel(), buffered=True)
    assert held_values(kernel) == [f32]
    _, second, third = levels_of(kernel).stages
    assert len(second.holds) == 1
    assert operations(kernel, third.instructions) == ["div", "store"]


def test_cheap_values_are_computed_again():
    t = Tracer()
    x = t.load(t.operand(Operand(f32, UNIT)))
    centred = x - t.reduce("sum", x)
    t.store(t.operand(Operand(f32, UNIT)), centred * t.reduce("sum", centred * centred))
    assert held_values(t.finish((False, True))) == []


def test_what_does_not_move_with_the_elements_runs_once_per_result():
    t = Tracer()
    x = t.load(t.operand(Operand(f32, UNIT)))
    bias = t.load(t.operand(Operand(f32, BROADCAST, kept=True)))
    number = t.scalar(types.float64).cast(f32)
    doubled = bias * 2.0
    total = t.reduce("sum", x * doubled) + number
    t.store(t.operand(Operand(f32, BROADCAST, kept=True)), total)
    kernel = t.finish((False, True))
    levels = levels_of(kernel)
    assert operations(kernel, levels.rows[0]) == ["load", "mul"]
    assert operations(kernel, levels.stages[0].instructions) == ["load", "mul"]
    assert operations(kernel, levels.rows[1]) == ["add", "store"]


def test_memory_that_is_read_again_is_written_by_the_last_stage():
    t = Tracer()
    operand = t.operand(Operand(f32, UNIT))
    x = t.load(operand)
    doubled = x * 2.0
    out = t.operand(Operand(f32, UNIT))
    t.store(out, x - t.reduce("sum", doubled))
    t.store(operand, doubled)
    kernel = t.finish((False, True))
    first, second = levels_of(kernel).stages
    assert "store" not in operations(kernel, first.instructions)
    assert operations(kernel, second.instructions).count("store") == 2
