"""When each instruction of a kernel runs: once, once per result, or in which walk over elements.

A reduction's value is known after a walk over its elements, so what is computed per element from it
belongs to the next walk: a kernel runs in *stages*.  Stage ``s`` combines what its elements
give, then the instructions per result follow, then stage ``s + 1`` walks the same elements again.
Softmax has three: the maximum; the sum of exponentials; the quotients.

A stage computes again what it needs from earlier ones, unless that is costly and the kernel is
buffered: such a value is *held* in a buffer between stages.

In a kernel that reduces nothing, what stays the same along the innermost loop takes the place of
what runs once per result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from flambeau.compiler.kernel import Kernel
from flambeau.core import dtype as types

# Bytes of the buffer of a buffered kernel, on the stack of whatever thread runs it.
ROW_BUFFER = 64 * 1024
# Elements by which each held value's part of the buffer is rounded up.
ROW_BUFFER_STEP = 64

# A value is held if making it again takes so many arithmetic instructions (from the first level
# cache a vector comes in about two).
_COSTLY = 6
_COSTS = {"div": 4, "sqrt": 4, "rem": 20, "rare": 8, "repeat": 20, "gather": 8, "load": 0}
_HELD_TYPES = (types.float16, types.bfloat16, types.float32, types.float64, types.int32)

_EFFECTS = ("store", "accumulate")

UNIFORM, ROW, ELEMENT = 0, 1, 2


@dataclass
class Stage:
    """One walk over the elements: instructions in order, what is then reduced, what is held."""

    instructions: list[int] = field(default_factory=list)
    reductions: list[int] = field(default_factory=list)
    holds: list[int] = field(default_factory=list)


@dataclass
class Levels:
    """``rows[s]`` run once per result before stage ``s``; the last of them after all stages."""

    uniform: list[int]
    rows: list[list[int]]
    stages: list[Stage]
    held: list[int]


def levels_of(kernel: Kernel) -> Levels:
    levels, stages = _places(kernel)
    roots = _roots(kernel, levels, stages)
    walks = [Stage(reductions=reduces) for _, reduces in roots]
    known = {k for k, level in enumerate(levels) if level != ELEMENT}
    held = _held(kernel, levels, stages, roots, known) if kernel.buffered else []
    for s, (targets, _) in enumerate(roots):
        earlier = {k for k in held if stages[k] < s}
        walks[s].holds = [k for k in held if stages[k] == s]
        walks[s].instructions = closure(kernel, [*targets, *walks[s].holds], known | earlier)
    rows: list[list[int]] = [[] for _ in range(len(walks) + 1)]
    for k, level in enumerate(levels):
        if level == ROW and kernel.instructions[k].operation != "reduce":
            rows[stages[k]].append(k)
    uniform = [k for k, level in enumerate(levels) if level == UNIFORM]
    return Levels(uniform, rows, walks, held)


def held_values(kernel: Kernel) -> list[types.dtype]:
    """The types of the values that the kernel would hold if it were buffered."""
    levels, stages = _places(kernel)
    roots = _roots(kernel, levels, stages)
    known = {k for k, level in enumerate(levels) if level != ELEMENT}
    held = _held(kernel, levels, stages, roots, known)
    return [kernel.instructions[k].dtype for k in held]


def closure(kernel: Kernel, roots: Iterable[int], known: Iterable[int]) -> list[int]:
    """The instructions that the roots need beyond what is known, the roots included, in order."""
    found = set(known)
    result: list[int] = []
    left = list(roots)
    while left:
        k = left.pop()
        if k not in found:
            found.add(k)
            result.append(k)
            left += kernel.instructions[k].arguments
    return sorted(result)


def _places(kernel: Kernel) -> tuple[list[int], list[int]]:
    """Level and stage of each instruction."""
    levels: list[int] = []
    stages: list[int] = []
    reducing = any(kernel.reduced)
    for i in kernel.instructions:
        level = max((levels[a] for a in i.arguments), default=UNIFORM)
        stage = max((stages[a] for a in i.arguments), default=0)
        if i.operation == "reduce":
            level, stage = ROW, stage + 1
        elif i.operation == "gather":
            level = max(level, ROW if reducing else ELEMENT)
        elif i.operation in ("load", *_EFFECTS):
            assert isinstance(i.attribute, int)
            kept = kernel.operands[i.attribute].kept
            assert not (kept and level == ELEMENT), "a value per element stored once per result"
            level = ROW if kept else ELEMENT
        levels.append(level)
        stages.append(stage)
    return levels, stages


def _roots(
    kernel: Kernel, levels: list[int], stages: list[int]
) -> list[tuple[list[int], list[int]]]:
    """Per stage: the instructions it runs for their own sake or to reduce them; the reductions."""
    count = 1
    loaded = set()
    for k, i in enumerate(kernel.instructions):
        if i.operation == "reduce":
            count = max(count, stages[k])
        elif i.operation in _EFFECTS and levels[k] == ELEMENT:
            count = max(count, stages[k] + 1)
        elif i.operation == "load":
            loaded.add(i.attribute)
    roots: list[tuple[list[int], list[int]]] = [([], []) for _ in range(count)]
    for k, i in enumerate(kernel.instructions):
        if i.operation == "reduce":
            targets, reductions = roots[stages[k] - 1]
            targets += [a for a in i.arguments if levels[a] == ELEMENT]
            reductions.append(k)
        elif i.operation in _EFFECTS and levels[k] == ELEMENT:
            # Later stages may load the same memory again: it is written by the last one.
            roots[-1 if i.attribute in loaded else stages[k]][0].append(k)
    return roots


def _held(
    kernel: Kernel,
    levels: list[int],
    stages: list[int],
    roots: list[tuple[list[int], list[int]]],
    known: set[int],
) -> list[int]:
    """Costly values of one stage that instructions of a later one use."""
    asked: set[int] = set()
    for s, (targets, _) in enumerate(roots):
        for k in closure(kernel, targets, known):
            i = kernel.instructions[k]
            if stages[k] == s or i.operation in _EFFECTS:
                asked.update(a for a in i.arguments if levels[a] == ELEMENT and stages[a] < s)
    held: list[int] = []
    cost: dict[int, int] = {}
    for k, i in enumerate(kernel.instructions):
        if levels[k] == ELEMENT:
            total = _COSTS.get(i.operation, 1) + sum(cost.get(a, 0) for a in set(i.arguments))
            cost[k] = min(total, _COSTLY)
            if k in asked and total >= _COSTLY and i.dtype in _HELD_TYPES:
                held.append(k)
                cost[k] = 0
    return held
