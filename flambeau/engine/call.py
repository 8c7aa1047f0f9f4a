"""Calls: what recording one operator leaves behind, and the three kinds of work that it can be.

A call is a node of the trie of all calls recorded before: its parent is the call before it.  It
names storages by slot, so the same call recorded again, on other tensors, is the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from flambeau.compiler.epilogue import Grid
from flambeau.compiler.kernel import Value
from flambeau.compiler.kernel_step import KernelStep
from flambeau.compiler.target import Target
from flambeau.core.layout import Layout

if TYPE_CHECKING:
    from flambeau.engine.plan import CallByCall, Plan
    from flambeau.engine.tape import Watched

# Slots of operands that are not storages: a running index, and nothing at all.
IOTA_SLOT = -1


class View(NamedTuple):
    """A storage, by slot, seen through a layout.

    ``indexed`` operands are not walked in step with the loops; the body computes offsets into them.
    """

    slot: int
    layout: Layout
    indexed: bool = False

    def __repr__(self) -> str:
        name = "index" if self.slot == IOTA_SLOT else f"%{self.slot}"
        return f"{name}:{self.layout!r}"


Body = Callable[[Sequence[Any], Sequence[Value]], Sequence[Value]]


@dataclass(frozen=True)
class Pointwise:
    """One value per element of the written views, whose shape the read views broadcast to.

    ``body(inputs, scalars)`` gets a loaded value per read (for an indexed one, a function from
    offset to value) and returns a value per write, already of its type.
    """

    body: Body


@dataclass(frozen=True)
class Reduction:
    """Values of the read views' shape, combined over ``dims``.

    ``body`` gives what is combined (one value per combination; a value and an index for argmax);
    ``finish(reduced, scalars)`` gives the written values.  The first read decides the order.
    """

    body: Body
    combine: tuple[str, ...]
    dims: tuple[int, ...]
    finish: Body


@dataclass(frozen=True)
class Lowered:
    """A library call as native steps over named operands.

    ``grid`` is set if the steps run an epilogue.
    """

    steps: tuple[KernelStep, ...]
    operands: dict[str, View]
    workspace: int = 0
    constants: bytes = b""
    grid: Grid | None = None


@dataclass(frozen=True)
class Library:
    """Work with kernels of its own (products, convolutions, sorts)."""

    lower: Callable[[Target], Lowered]


Work = Pointwise | Reduction | Library


class Call:
    """A node of the trie.

    ``outputs`` are the layouts of new tensors, in slots ``slots_before`` onwards; ``scalars`` says
    for each run-time number whether it is passed as ``float`` or ``int``.  ``next`` is the child
    taken last, ``plans`` are the plans for flushing here, by which of the ``watched`` slots are
    alive.

    ``key`` is what the call was recorded with.  The written-out forms of recording do not build one
    to compare it; they look at its parts: ``op`` (None for calls of the general form), ``first``
    (the next free slot), and slot and layout of one or two operands (for a number its class).
    ``layouts`` are those of the operands, None in the place of a number.
    """

    __slots__ = (
        "children", "first", "key", "layout_a", "layout_b", "layouts", "name", "next", "op",
        "outputs", "parent", "plans", "reads", "scalars", "slot_a", "slot_b", "watched", "work",
        "writes",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        key: Any,
        reads: tuple[View, ...] = (),
        writes: tuple[View, ...] = (),
        outputs: tuple[Layout, ...] = (),
        scalars: tuple[type, ...] = (),
        work: Work | None = None,
    ) -> None:
        self.name = name
        self.key = key
        self.reads = reads
        self.writes = writes
        self.outputs = outputs
        self.scalars = scalars
        self.work = work
        self.parent: Call | None = None
        self.next: Call | None = None
        self.children: dict[Any, Call] = {}
        self.plans: dict[Any, Plan | CallByCall] = {}
        self.watched: Watched | None = None
        self.op: Any = None
        self.first = -1
        self.slot_a = -1
        self.slot_b = -1
        self.layout_a: Any = None
        self.layout_b: Any = None
        self.layouts: tuple[Layout | None, ...] = ()

    def __repr__(self) -> str:
        operands = [*map(repr, self.reads), *(kind.__name__ for kind in self.scalars)]
        writes = ", ".join(map(repr, self.writes))
        return f"{writes} = {self.name}({', '.join(operands)})"
