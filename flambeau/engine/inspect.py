"""Looking at what a piece of program becomes: its tape, its plan and its kernels.

>>> import flambeau
>>> a, b = flambeau.ones(1000), flambeau.ones(1000)
>>> print(flambeau.explain(lambda: (a * b + 1.0).relu()).tape)
tape
   0  %0:float32[1000] = full(int)
   1  %1:float32[1000] = full(int)
   2  %2:float32[1000] = mul(%0:float32[1000], %1:float32[1000])
   3  %3:float32[1000] = add(%2:float32[1000], float)
   4  %4:float32[1000] = relu(%3:float32[1000])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.engine.plan import CallByCall, Plan
from flambeau.engine.tape import Tape, thread, watchers


class Text(str):
    """A text that shows itself as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Explanation:
    """What `explain` saw.  ``result`` is what the function returned.

    ``tape`` lists the recorded calls, ``plan`` the steps that they became, ``kernels`` what each
    generated kernel computes per element.  A function that reads values in between has several of
    each, one after the other.
    """

    def __init__(self) -> None:
        self.result: Any = None
        self.tapes: list[Text] = []
        self.plans: list[Plan | CallByCall] = []

    @property
    def tape(self) -> Text:
        return Text("\n".join(self.tapes))

    @property
    def plan(self) -> Text:
        return Text("\n".join(map(repr, self.plans)))

    @property
    def kernels(self) -> Text:
        return Text("\n".join(map(kernels_of, self.plans)))

    def __repr__(self) -> str:
        return "\n\n".join([self.tape, f"plan\n{self.plan}", self.kernels])


def kernels_of(plan: Plan | CallByCall) -> Text:
    """The kernels of a plan, each under the step that runs it."""
    steps = plan.steps if isinstance(plan, Plan) else []
    return Text(
        "\n".join(
            f"step {k}: {kernel!r}" for k, step in enumerate(steps) for kernel in step.kernels
        )
    )


def explain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Calls the function and says what became of its operations, which are run at the end.

    What was pending before belongs to the explanation if the function reads it.
    """
    explanation = Explanation()

    def watch(tape: Tape, plan: Plan | CallByCall) -> None:
        explanation.tapes.append(Text(repr(tape)))
        explanation.plans.append(plan)

    watchers.append(watch)
    try:
        explanation.result = function(*args, **kwargs)
        thread.tape.flush()
    finally:
        watchers.remove(watch)
    return explanation


def last_plan() -> Plan | CallByCall | None:
    """The plan that this thread's tape ran last."""
    return thread.tape.last_plan
