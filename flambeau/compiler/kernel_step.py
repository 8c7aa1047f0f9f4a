"""What a library kernel (matrix product, convolution, sort …) hands to the engine: native calls.

A planner such as ``plan_gemm`` turns one problem into a few `KernelStep`s.  The engine compiles the
modules that they name, turns each step's words into an argument block, and runs the steps one after
the other, each as ``parallel_for(function(args, begin, end))`` over ``[0, tasks)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

WORKSPACE = "workspace"


@dataclass(frozen=True, slots=True)
class Pointer:
    """An argument word that holds an address: ``byte_offset`` bytes into an operand.

    ``operand`` is a name that the planner documents (``"a"``, ``"bias"`` …); `WORKSPACE` is scratch
    memory, aligned to 64 bytes, that lives from the first step of a plan to its last.
    """

    operand: str
    byte_offset: int = 0

    def __str__(self) -> str:
        return f"{self.operand}+{self.byte_offset}" if self.byte_offset else self.operand


Word = Pointer | int | float


@dataclass(frozen=True, slots=True)
class KernelStep:
    """One call of ``function`` for the tasks ``0 .. tasks - 1``.

    ``words`` become 8-byte words in this order: a `Pointer` an address, an int an int64, a float a
    float64.  Tasks are independent and may be cut into ranges anywhere, without any effect on the
    result; ``grain`` is the smallest number of tasks worth handing to one thread at a time.
    ``functions`` are all the functions of the module, so that it is compiled once for all steps.
    """

    module_key: str
    source: Callable[[], str] = field(repr=False, compare=False)
    function: str
    words: tuple[Word, ...]
    tasks: int
    grain: int = 1
    functions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.tasks >= 0 and self.grain >= 1, self
        assert not self.functions or self.function in self.functions, self

    def __str__(self) -> str:
        words = ", ".join(str(word) for word in self.words)
        return f"{self.module_key}:{self.function}({words}) x {self.tasks}, grain {self.grain}"
