"""The kernel language: what one generated kernel computes for each index of its loops.

A :class:`Kernel` is a list of instructions in single-assignment form over *operands* (memory seen
through strides) and *scalars* (numbers passed at run time).  It knows nothing of tensors or calls,
and no shape: extents and strides are run-time arguments, so one kernel serves every shape whose
operands have the same stride classes.

Bodies of operators are ordinary Python functions over :class:`Value`; calling one with values
traces it into the kernel under construction.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

# Stride classes of an operand along the innermost loop; TRANSPOSED is strided along it, but
# contiguous along the loop around it; REVERSED is an index that falls by one.
BROADCAST, UNIT, STRIDED, TRANSPOSED, REVERSED = 0, 1, 2, 3, 4

_CLASS_NAMES = ("broadcast", "unit", "strided", "transposed", "reversed")

# How an operand is addressed: through strides; its own running offset is the value; by computed
# offsets from its base.
MEMORY, IOTA, INDEXED = "memory", "iota", "indexed"


class Operand(NamedTuple):
    """One array that a kernel touches.

    One that is ``kept`` walks the kept loops of a reduction only: it is touched once per result,
    not once per element.  In a kernel that reduces nothing it is read once per innermost loop.
    """

    dtype: dtype
    inner: int = UNIT
    kind: str = MEMORY
    kept: bool = False


_EFFECTS = frozenset({"store", "accumulate"})


class Instruction(NamedTuple):
    """``%n = operation(arguments) : dtype``; ``attribute`` is an operand, a number or a name."""

    operation: str
    arguments: tuple[int, ...]
    dtype: dtype
    attribute: int | float | str | None = None


@dataclass(frozen=True)
class Kernel:
    """What to compute.  ``reduced[k]`` says whether loop ``k`` (outermost first) is a reduction.

    What is reduced may be used again per element: such a kernel walks its reduced loops several
    times, in *stages* (see `levels.py`).  ``buffered`` ones keep costly values from one stage to
    the next in a buffer of `levels.ROW_BUFFER` bytes, which the caller knows to be enough.

    ``split`` marks a reduction whose longest loop is cut into chunks: it stores one partial result
    per chunk, and a second kernel combines them.

    A ``banded`` one accumulates: ``accumulate`` adds a value per element to an operand that stands
    still along the last kept loop, before which it is set to zero.  That loop is run within a task,
    and ends early in the last one.
    """

    reduced: tuple[bool, ...]
    operands: tuple[Operand, ...]
    scalars: tuple[dtype, ...]
    instructions: tuple[Instruction, ...]
    split: bool = False
    buffered: bool = False
    banded: bool = False

    @property
    def rank(self) -> int:
        return len(self.reduced)

    @property
    def tiled(self) -> bool:
        """Whether the two innermost loops are walked in tiles."""
        return any(o.inner == TRANSPOSED for o in self.operands)

    @property
    def cut(self) -> bool:
        """Whether one loop's extent is given twice: as that of a chunk, and in all."""
        return self.split or self.banded

    @property
    def marks(self) -> list[str]:
        flags = {"split": self.split, "buffered": self.buffered, "banded": self.banded}
        return [name for name, value in flags.items() if value]

    @functools.cached_property
    def key(self) -> str:
        """A text equal for equal kernels only; names the kernel in the object cache."""
        loops = "".join("r" if r else "k" for r in self.reduced)
        operands = " ".join(
            f"{o.dtype.name}.{o.inner}{o.kind[:2]}{'k' if o.kept else ''}" for o in self.operands
        )
        scalars = " ".join(s.name for s in self.scalars)
        lines = "\n".join(
            f"{i.operation} {i.arguments} {i.dtype.name} {i.attribute!r}" for i in self.instructions
        )
        marks = "".join(f"/{mark}" for mark in self.marks)
        return f"{loops}{marks}\n{operands}\n{scalars}\n{lines}"

    @functools.cached_property
    def module_key(self) -> str:
        """What its module is called in the caches of compiled code."""
        return f"kernel\n{self.key}"

    def interned(self) -> Kernel:
        """The one kernel of this key that plans share."""
        return _kernels.setdefault(self.key, self)

    def __repr__(self) -> str:
        loops = " ".join(f"{'reduce' if r else 'for'} i{k}" for k, r in enumerate(self.reduced))
        lines = [" ".join([f"kernel [{loops}]", *self.marks])]
        for k, operand in enumerate(self.operands):
            stride = _CLASS_NAMES[operand.inner]
            kept = " once per result" if operand.kept else ""
            lines.append(f"  @{k}: {operand.dtype.name} {operand.kind} {stride}{kept}")
        for k, i in enumerate(self.instructions):
            arguments = ", ".join(f"%{a}" for a in i.arguments)
            if i.operation in _EFFECTS:
                sign = "=" if i.operation == "store" else "+="
                lines.append(f"  @{i.attribute} {sign} {arguments}")
                continue
            mark = "@" if i.operation in ("load", "gather") else ""
            attribute = "" if i.attribute is None else f" {mark}{i.attribute}"
            text = f"{i.operation}{attribute}{' ' if arguments else ''}{arguments}"
            lines.append(f"  %{k} = {text} : {i.dtype.name}")
        return "\n".join(lines)


_kernels: weakref.WeakValueDictionary[str, Kernel] = weakref.WeakValueDictionary()

Operandlike = "Value | bool | int | float"


class Value:
    """The result of an instruction while a kernel is being traced; supports Python's operators."""

    __slots__ = ("dtype", "index", "tracer")

    def __init__(self, tracer: Tracer, index: int, dtype: dtype) -> None:
        self.tracer = tracer
        self.index = index
        self.dtype = dtype

    def like(self, number: Value | bool | int | float) -> Value:
        """``number`` as a value of this type."""
        if isinstance(number, Value):
            return number
        return self.tracer.constant(number, self.dtype)

    def _arithmetic(self, operation: str, a: Value, b: Value) -> Value:
        assert a.dtype is b.dtype, f"{operation} of {a.dtype} and {b.dtype}"
        return self.tracer.add(operation, (a, b), a.dtype)

    def _comparison(self, operation: str, other: Value | float) -> Value:
        other = self.like(other)
        assert self.dtype is other.dtype, f"{operation} of {self.dtype} and {other.dtype}"
        return self.tracer.add(operation, (self, other), types.bool_)

    def __add__(self, other: Value | float) -> Value:
        return self._arithmetic("add", self, self.like(other))

    def __radd__(self, other: float) -> Value:
        return self._arithmetic("add", self.like(other), self)

    def __sub__(self, other: Value | float) -> Value:
        return self._arithmetic("sub", self, self.like(other))

    def __rsub__(self, other: float) -> Value:
        return self._arithmetic("sub", self.like(other), self)

    def __mul__(self, other: Value | float) -> Value:
        return self._arithmetic("mul", self, self.like(other))

    def __rmul__(self, other: float) -> Value:
        return self._arithmetic("mul", self.like(other), self)

    def __truediv__(self, other: Value | float) -> Value:
        """Floats divide; integers truncate towards zero (a zero divisor gives 0, see emit.py)."""
        return self._arithmetic("div", self, self.like(other))

    def __rtruediv__(self, other: float) -> Value:
        return self._arithmetic("div", self.like(other), self)

    def __neg__(self) -> Value:
        return self.tracer.add("neg", (self,), self.dtype)

    def __and__(self, other: Value | int) -> Value:
        return self._arithmetic("and", self, self.like(other))

    def __or__(self, other: Value | int) -> Value:
        return self._arithmetic("or", self, self.like(other))

    def __xor__(self, other: Value | int) -> Value:
        return self._arithmetic("xor", self, self.like(other))

    def __invert__(self) -> Value:
        return self._arithmetic("xor", self, self.like(True if self.dtype is types.bool_ else -1))

    def __lshift__(self, other: Value | int) -> Value:
        return self._arithmetic("shl", self, self.like(other))

    def __rshift__(self, other: Value | int) -> Value:
        """Arithmetic for signed types, logical for unsigned ones."""
        return self._arithmetic("shr", self, self.like(other))

    def __lt__(self, other: Value | float) -> Value:
        return self._comparison("lt", other)

    def __le__(self, other: Value | float) -> Value:
        return self._comparison("le", other)

    def __gt__(self, other: Value | float) -> Value:
        return self._comparison("gt", other)

    def __ge__(self, other: Value | float) -> Value:
        return self._comparison("ge", other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        assert isinstance(other, (Value, bool, int, float))
        return self._comparison("eq", other)

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        """True for NaN against anything, itself included."""
        assert isinstance(other, (Value, bool, int, float))
        return self._comparison("ne", other)

    __hash__ = object.__hash__

    def cast(self, dtype: dtype) -> Value:
        """Converts as PyTorch does; to float16 or bfloat16 rounds, the register stays float32."""
        if dtype is self.dtype:
            return self
        return self.tracer.add("cast", (self,), dtype)

    def bitcast(self, dtype: dtype) -> Value:
        """The same bits as another type of equal size."""
        return self.tracer.add("bitcast", (self,), dtype)


class Tracer:
    """Collects the instructions of one kernel; equal instructions become one."""

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self.operands: list[Operand] = []
        self.scalars: list[dtype] = []
        self._known: dict[Instruction, int] = {}
        self._epoch = 0

    def add(
        self,
        operation: str,
        arguments: tuple[Value, ...],
        dtype: dtype,
        attribute: int | float | str | None = None,
    ) -> Value:
        indices = tuple([a.index for a in arguments])
        instruction = Instruction(operation, indices, dtype, attribute)
        if operation == "constant":
            # 0.0 == -0.0 == False and nan != nan as dictionary keys: spell the bits instead.
            key = instruction._replace(attribute=f"{type(attribute).__name__} {attribute!r}")
        else:
            key = instruction
        index = self._known.get(key)
        if index is None or operation in _EFFECTS:
            index = len(self.instructions)
            self.instructions.append(instruction)
            self._known[key] = index
        return Value(self, index, dtype)

    def constant(self, number: bool | int | float, dtype: dtype) -> Value:
        if dtype.category == "floating":
            number = float(number)
        elif dtype is types.bool_:
            number = bool(number)
        else:
            number = int(number)
        return self.add("constant", (), dtype, number)

    def scalar(self, dtype: dtype) -> Value:
        """A new run-time number: float64 for floating kinds, int64 for the rest."""
        self.scalars.append(dtype)
        return self.add("scalar", (), dtype, len(self.scalars) - 1)

    def operand(self, operand: Operand) -> int:
        self.operands.append(operand)
        return len(self.operands) - 1

    def load(self, operand: int) -> Value:
        return self.add("load", (), self.operands[operand].dtype, operand)

    def gather(self, operand: int, offset: Value) -> Value:
        """The element of an INDEXED operand at ``offset`` (int64, in elements)."""
        return self.add("gather", (offset,), self.operands[operand].dtype, operand)

    def store(self, operand: int, value: Value) -> None:
        assert value.dtype is self.operands[operand].dtype
        self.add("store", (value,), value.dtype, operand)

    def reduce(self, combine: str, value: Value, *more: Value) -> Value:
        """Combines ``value`` over the reduction loops: sum, prod, max, min, any, all, argmax,
        argmin.
        """
        result = types.int64 if combine in ("argmax", "argmin") else value.dtype
        return self.add("reduce", (value, *more), result, combine)

    def accumulate(self, operand: int, value: Value) -> None:
        """Adds to an operand of a banded kernel."""
        assert value.dtype is self.operands[operand].dtype
        self.add("accumulate", (value,), value.dtype, operand)

    def finish(
        self, reduced: tuple[bool, ...], split: bool = False, banded: bool = False
    ) -> Kernel:
        return Kernel(
            reduced, tuple(self.operands), tuple(self.scalars), tuple(self.instructions), split,
            banded=banded,
        )  # fmt: skip


# -- functions of values (math.py builds on these) ---------------------------------------------


def _unary(operation: str) -> Callable[[Value], Value]:
    def function(x: Value) -> Value:
        return x.tracer.add(operation, (x,), x.dtype)

    function.__name__ = operation
    return function


sqrt = _unary("sqrt")
floor = _unary("floor")
ceil = _unary("ceil")
trunc = _unary("trunc")
roundeven = _unary("roundeven")
absolute = _unary("abs")


def copysign(x: Value, sign: Value | float) -> Value:
    return x.tracer.add("copysign", (x, x.like(sign)), x.dtype)


def fma(a: Value, b: Value | float, c: Value | float) -> Value:
    """``a * b + c`` rounded once."""
    return a.tracer.add("fma", (a, a.like(b), a.like(c)), a.dtype)


def where(condition: Value, a: Value | float, b: Value | float) -> Value:
    """``a`` where the condition holds, else ``b``; at least one of them a value."""
    if not isinstance(a, Value):
        assert isinstance(b, Value)
        a = b.like(a)
    b = a.like(b)
    assert a.dtype is b.dtype and condition.dtype is types.bool_
    return a.tracer.add("select", (condition, a, b), a.dtype)


def isnan(x: Value) -> Value:
    return x != x


def minimum(a: Value, b: Value | float) -> Value:
    """The smaller; NaN if either is NaN."""
    b = a.like(b)
    smaller = where(a < b, a, b)
    return smaller if a.dtype.category != "floating" else where(isnan(a), a, smaller)


def maximum(a: Value, b: Value | float) -> Value:
    """The larger; NaN if either is NaN."""
    b = a.like(b)
    larger = where(a > b, a, b)
    return larger if a.dtype.category != "floating" else where(isnan(a), a, larger)


# -- code for rare cases ------------------------------------------------------------------------

# Bodies that run only where some lane needs them, by the name that stands in the kernel.
RARE: dict[str, Callable[..., Value | tuple[Value, ...]]] = {}


def rare(body: Callable[..., Value]) -> Callable[..., Value]:
    """Declares the slow way of a function: ``body(condition, usual, *arguments)``.

    Called with values it gives ``body(*arguments)`` where ``condition`` holds and ``usual``
    elsewhere; the code is jumped over where no lane of a vector needs it.
    """
    name = body.__name__.strip("_")
    assert name not in RARE, f"{name} is declared twice"
    RARE[name] = body

    def function(condition: Value, usual: Value, *arguments: Value) -> Value:
        return usual.tracer.add("rare", (condition, usual, *arguments), usual.dtype, name)

    function.__name__ = body.__name__
    function.__doc__ = body.__doc__
    return function


def repeated(body: Callable[..., Value | tuple[Value, ...]]) -> Callable[..., Value]:
    """Declares a step: ``body(times, start, *arguments)`` applies it ``times`` times.

    ``times`` is an int64.  A step is a function of the value so far and the arguments, and must
    leave alone what is finished: lanes of one vector all take as many as the slowest.  A step that
    gives several values gets them back as its first arguments; the first is the result.
    """
    name = body.__name__.strip("_")
    assert name not in RARE, f"{name} is declared twice"
    RARE[name] = body

    def function(times: Value, start: Value, *arguments: Value) -> Value:
        return start.tracer.add("repeat", (times, start, *arguments), start.dtype, name)

    function.__name__ = body.__name__
    function.__doc__ = body.__doc__
    return function


INFINITY = math.inf
NAN = math.nan
