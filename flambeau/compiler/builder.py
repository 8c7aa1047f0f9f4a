"""A small typed writer of LLVM IR text.

Everything the compiler generates, from a fused ``relu(a * b + c)`` to a packed matrix product, is
written through this class.  It knows types and control flow, nothing about tensors.  Text rather
than an in-memory IR keeps llvmlite out of processes whose kernels are already in the object cache.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

I64 = "i64"
PTR = "ptr"

_FLOAT_TYPES = ("half", "bfloat", "float", "double")
_INTRINSIC_SUFFIX = {"half": "f16", "float": "f32", "double": "f64"}


@dataclass(frozen=True, slots=True)
class Var:
    """An SSA value (or a literal): its type and how it is written in an instruction."""

    type: str
    name: str

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


def element_type(type_: str) -> str:
    """``<16 x float>`` gives ``float``; a scalar type gives itself."""
    return type_.split(" x ")[1].rstrip(">") if type_.startswith("<") else type_


def lanes(type_: str) -> int:
    """``<16 x float>`` gives 16; a scalar type gives 1."""
    return int(type_[1:].split(" x ")[0]) if type_.startswith("<") else 1


def vector(element: str, width: int) -> str:
    """The vector type of ``width`` lanes; the scalar type itself when ``width`` is 1."""
    return f"<{width} x {element}>" if width > 1 else element


def is_float(type_: str) -> bool:
    return element_type(type_) in _FLOAT_TYPES


def float_literal(value: float, element: str) -> str:
    """A float or double constant in LLVM's exact hexadecimal notation."""
    if element in ("float", "half", "bfloat"):
        try:
            value = struct.unpack("f", struct.pack("f", value))[0]
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    if element == "half":
        return "0xH" + struct.pack(">e", value).hex().upper()
    return "0x" + struct.pack(">d", value).hex().upper()


def mangled(type_: str) -> str:
    """The type as intrinsic names spell it: ``v16f32``, ``i64``, ``p0``."""
    element = element_type(type_)
    short = {"ptr": "p0"}.get(element) or _INTRINSIC_SUFFIX.get(element, element)
    return f"v{lanes(type_)}{short}" if lanes(type_) > 1 else short


class Builder:
    """Writes the body of one function; several builders' functions join into one module."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self.block = "entry"
        self._counter = 0

    # -- names and raw text ------------------------------------------------------------------

    def fresh(self, prefix: str = "v") -> str:
        self._counter += 1
        return f"{prefix}{self._counter}"

    def emit(self, type_: str, text: str) -> Var:
        """Appends ``%new = text`` and returns the new value."""
        name = "%" + self.fresh()
        self.lines.append(f"  {name} = {text}")
        return Var(type_, name)

    def do(self, text: str) -> None:
        """Appends an instruction without a result."""
        self.lines.append("  " + text)

    # -- constants ---------------------------------------------------------------------------

    def constant(self, value: float | int | bool, type_: str = I64) -> Var:
        element = element_type(type_)
        if is_float(type_):
            text = float_literal(float(value), element)
        elif element == "i1":
            text = "true" if value else "false"
        else:
            text = str(int(value))
        if lanes(type_) > 1:
            text = f"splat ({element} {text})"
        return Var(type_, text)

    def zero(self, type_: str) -> Var:
        if lanes(type_) > 1:
            return Var(type_, "zeroinitializer")
        return self.constant(0, type_)

    def _value(self, value: Var | int | float, like: Var) -> Var:
        return value if isinstance(value, Var) else self.constant(value, like.type)

    # -- arithmetic (operands of equal type; a Python number takes the other's type) -----------

    def _binary(
        self, a: Var | int | float, b: Var | int | float, int_op: str, float_op: str
    ) -> Var:
        if not isinstance(a, Var):
            assert isinstance(b, Var)
            a = self.constant(a, b.type)
        b = self._value(b, a)
        assert a.type == b.type, f"{int_op}: {a} and {b}"
        return self.emit(a.type, f"{float_op if is_float(a.type) else int_op} {a}, {b.name}")

    def add(self, a: Var | int | float, b: Var | int | float) -> Var:
        return self._binary(a, b, "add", "fadd")

    def sub(self, a: Var | int | float, b: Var | int | float) -> Var:
        return self._binary(a, b, "sub", "fsub")

    def mul(self, a: Var | int | float, b: Var | int | float) -> Var:
        return self._binary(a, b, "mul", "fmul")

    def div(self, a: Var | int | float, b: Var | int | float) -> Var:
        """Signed integer division truncates."""
        return self._binary(a, b, "sdiv", "fdiv")

    def rem(self, a: Var | int | float, b: Var | int | float) -> Var:
        return self._binary(a, b, "srem", "frem")

    def and_(self, a: Var, b: Var | int) -> Var:
        return self._binary(a, b, "and", "and")

    def or_(self, a: Var, b: Var | int) -> Var:
        return self._binary(a, b, "or", "or")

    def xor(self, a: Var, b: Var | int) -> Var:
        return self._binary(a, b, "xor", "xor")

    def shl(self, a: Var, b: Var | int) -> Var:
        return self._binary(a, b, "shl", "shl")

    def lshr(self, a: Var, b: Var | int) -> Var:
        return self._binary(a, b, "lshr", "lshr")

    def ashr(self, a: Var, b: Var | int) -> Var:
        return self._binary(a, b, "ashr", "ashr")

    def neg(self, a: Var) -> Var:
        if is_float(a.type):
            return self.emit(a.type, f"fneg {a}")
        return self.sub(self.zero(a.type), a)

    def compare(self, predicate: str, a: Var, b: Var | int | float) -> Var:
        """``predicate`` as LLVM names it (``slt``, ``ult``, ``oeq``, ``uno`` …)."""
        b = self._value(b, a)
        instruction = "fcmp" if is_float(a.type) else "icmp"
        return self.emit(vector("i1", lanes(a.type)), f"{instruction} {predicate} {a}, {b.name}")

    def select(self, condition: Var, a: Var | int | float, b: Var | int | float) -> Var:
        if not isinstance(a, Var):
            assert isinstance(b, Var)
            a = self.constant(a, b.type)
        b = self._value(b, a)
        if lanes(condition.type) == 1 and lanes(a.type) > 1:
            condition = self.splat(condition, lanes(a.type))
        return self.emit(a.type, f"select {condition}, {a}, {b}")

    def intrinsic(self, name: str, result: str, *arguments: Var) -> Var:
        """Calls ``@name`` (spelt in full, with its type suffix) and declares it."""
        types = ", ".join(a.type for a in arguments)
        self.declarations.add(f"declare {result} @{name}({types})")
        return self.emit(result, f"call {result} @{name}({', '.join(map(str, arguments))})")

    def unary(self, name: str, a: Var) -> Var:
        """``llvm.<name>``: sqrt, fabs, floor, ceil, trunc, roundeven, ctpop, …"""
        return self.intrinsic(f"llvm.{name}.{mangled(a.type)}", a.type, a)

    def binary(self, name: str, a: Var, b: Var | int | float) -> Var:
        """``llvm.<name>`` of two operands: copysign, smin, smax, umin, minimum, maximum, …"""
        b = self._value(b, a)
        return self.intrinsic(f"llvm.{name}.{mangled(a.type)}", a.type, a, b)

    def fma(self, a: Var, b: Var | float, c: Var | float) -> Var:
        """``a * b + c`` rounded once."""
        b, c = self._value(b, a), self._value(c, a)
        return self.intrinsic(f"llvm.fma.{mangled(a.type)}", a.type, a, b, c)

    def min(self, a: Var, b: Var | int) -> Var:
        """Signed integer minimum."""
        return self.binary("smin", a, b)

    def max(self, a: Var, b: Var | int) -> Var:
        """Signed integer maximum."""
        return self.binary("smax", a, b)

    def convert(self, instruction: str, a: Var, element: str) -> Var:
        """``sext``, ``zext``, ``trunc``, ``fpext``, ``sitofp``, ``bitcast`` … to ``element``,
        same lanes.
        """
        target = vector(element, lanes(a.type))
        return a if target == a.type else self.emit(target, f"{instruction} {a} to {target}")

    # -- vectors -----------------------------------------------------------------------------

    def splat(self, a: Var, width: int) -> Var:
        """The scalar ``a`` in every lane."""
        if width == 1:
            return a
        type_ = vector(a.type, width)
        first = self.emit(type_, f"insertelement {type_} poison, {a}, i64 0")
        return self.emit(
            type_, f"shufflevector {first}, {type_} poison, <{width} x i32> zeroinitializer"
        )

    def extract(self, a: Var, lane: int) -> Var:
        if lanes(a.type) == 1:
            return a
        return self.emit(element_type(a.type), f"extractelement {a}, i64 {lane}")

    def insert(self, a: Var, value: Var, lane: int) -> Var:
        return self.emit(a.type, f"insertelement {a}, {value}, i64 {lane}")

    def shuffle(self, a: Var, b: Var, mask: Sequence[int]) -> Var:
        width = len(mask)
        indices = ", ".join(f"i32 {i}" for i in mask)
        type_ = vector(element_type(a.type), width)
        return self.emit(type_, f"shufflevector {a}, {b}, <{width} x i32> <{indices}>")

    def lane_numbers(self, width: int, element: str = "i32") -> Var:
        """The constant vector 0, 1, 2, …"""
        if width == 1:
            return Var(element, "0")
        numbers = ", ".join(f"{element} {i}" for i in range(width))
        return Var(vector(element, width), f"<{numbers}>")

    def mask(self, count: Var, width: int) -> Var:
        """Lanes ``0 .. count - 1`` true; ``count`` (i64) may exceed ``width`` or be negative."""
        clamped = self.max(self.min(count, width), 0)
        if width == 1:
            return self.compare("sgt", clamped, 0)
        narrow = self.convert("trunc", clamped, "i32")
        return self.compare("ult", self.lane_numbers(width), self.splat(narrow, width))

    # -- memory ------------------------------------------------------------------------------

    def gep(self, element: str, pointer: Var, index: Var | int) -> Var:
        """The address of ``pointer[index]`` for elements of type ``element``."""
        index = self._value(index, Var(I64, ""))
        return self.emit(pointer.type, f"getelementptr {element}, {pointer}, {index}")

    def load(self, type_: str, pointer: Var, align: int) -> Var:
        return self.emit(type_, f"load {type_}, {pointer}, align {align}")

    def store(self, value: Var, pointer: Var, align: int) -> None:
        self.do(f"store {value}, {pointer}, align {align}")

    def masked_load(self, type_: str, pointer: Var, mask: Var, align: int) -> Var:
        """Zero in the lanes that the mask leaves out."""
        name = f"llvm.masked.load.{mangled(type_)}.p0"
        return self.intrinsic(name, type_, pointer, Var("i32", str(align)), mask, self.zero(type_))

    def masked_store(self, value: Var, pointer: Var, mask: Var, align: int) -> None:
        name = f"llvm.masked.store.{mangled(value.type)}.p0"
        types = f"{value.type}, ptr, i32, {mask.type}"
        self.declarations.add(f"declare void @{name}({types})")
        self.do(f"call void @{name}({value}, {pointer}, i32 {align}, {mask})")

    def gather(self, type_: str, pointer: Var, index: Var, mask: Var, align: int) -> Var:
        """``pointer[index]`` lane by lane, zero where the mask leaves a lane out."""
        width = lanes(type_)
        text = f"getelementptr {element_type(type_)}, {pointer}, {index}"
        addresses = self.emit(vector(PTR, width), text)
        name = f"llvm.masked.gather.{mangled(type_)}.v{width}p0"
        return self.intrinsic(
            name, type_, addresses, Var("i32", str(align)), mask, self.zero(type_)
        )

    def prefetch(self, pointer: Var, *, write: bool = False) -> None:
        """Asks for a cache line; any address is harmless."""
        self.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.do(f"call void @llvm.prefetch.p0({pointer}, i32 {int(write)}, i32 3, i32 1)")

    def argument(self, block: Var, index: int, type_: str = I64) -> Var:
        """Word ``index`` of an argument block of 8-byte words."""
        return self.load(type_, self.gep(I64, block, index), 8)

    # -- control flow ------------------------------------------------------------------------

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def branch(self, name: str) -> None:
        self.do(f"br label %{name}")

    def loop(
        self,
        start: Var | int,
        stop: Var | int,
        step: int,
        carried: Sequence[Var],
        body: Callable[[Var, list[Var]], Sequence[Var] | None],
    ) -> tuple[Var, list[Var]]:
        """``for i in start, start + step, … while i + step <= stop``.

        ``carried`` are the loop-carried values' initial values; ``body(i, values)`` returns their
        next ones.  Returns the first ``i`` not run (where a remainder loop starts) and the values.
        """
        one = Var(I64, "")
        start, stop = self._value(start, one), self._value(stop, one)
        head, inside, done = self.fresh("head"), self.fresh("body"), self.fresh("done")
        before = self.block
        self.branch(head)
        self.label(head)
        index = Var(I64, "%" + self.fresh("i"))
        phis = len(self.lines)
        self.lines.append("")
        values = []
        for initial in carried:
            values.append(Var(initial.type, "%" + self.fresh("c")))
            self.lines.append("")
        following = self.emit(I64, f"add nsw {index}, {step}")
        condition = self.compare("sle", following, stop)
        self.do(f"br {condition}, label %{inside}, label %{done}")
        self.label(inside)
        updated = list(body(index, values) or ())
        assert len(updated) == len(values), "the body must return every carried value"
        last = self.block
        self.branch(head)
        self.lines[phis] = (
            f"  {index.name} = phi i64 [{start.name}, %{before}], [{following.name}, %{last}]"
        )
        for k, (value, initial, new) in enumerate(zip(values, carried, updated, strict=True)):
            self.lines[phis + 1 + k] = (
                f"  {value.name} = phi {value.type} [{initial.name}, %{before}], [{new.name}, "
                f"%{last}]"
            )
        self.label(done)
        return index, values

    def if_(self, condition: Var, then: Callable[[], None]) -> None:
        """Runs ``then`` where the i1 ``condition`` holds; no value comes out."""
        inside, after = self.fresh("then"), self.fresh("after")
        self.do(f"br {condition}, label %{inside}, label %{after}")
        self.label(inside)
        then()
        self.branch(after)
        self.label(after)

    def if_else(
        self,
        condition: Var,
        then: Callable[[], Sequence[Var]],
        otherwise: Callable[[], Sequence[Var]],
    ) -> list[Var]:
        """Runs one branch; returns the values that it returned (equal types on both sides)."""
        yes, no, after = self.fresh("then"), self.fresh("else"), self.fresh("after")
        self.do(f"br {condition}, label %{yes}, label %{no}")
        self.label(yes)
        a, a_block = list(then()), self.block
        self.branch(after)
        self.label(no)
        b, b_block = list(otherwise()), self.block
        self.branch(after)
        self.label(after)
        return [
            self.emit(x.type, f"phi {x.type} [{x.name}, %{a_block}], [{y.name}, %{b_block}]")
            for x, y in zip(a, b, strict=True)
        ]

    def switch(self, value: Var, cases: Mapping[int, Callable[[], None]]) -> None:
        """Runs the case equal to ``value``; none of them for any other value."""
        after = self.fresh("after")
        labels = {case: self.fresh("case") for case in cases}
        table = " ".join(f"i64 {case}, label %{label}" for case, label in labels.items())
        self.do(f"switch {value}, label %{after} [{table}]")
        for case, label in labels.items():
            self.label(label)
            cases[case]()
            self.branch(after)
        self.label(after)

    # -- functions ---------------------------------------------------------------------------

    def function(
        self, name: str, parameters: str, *, internal: bool = False, convention: str = ""
    ) -> str:
        """The finished function.  ``parameters`` as in LLVM: ``ptr %args, i64 %begin, i64
        %end``.
        """
        body = "\n".join(self.lines)
        linkage = "internal " if internal else convention
        return f"define {linkage}void @{name}({parameters}) #0 {{\nentry:\n{body}\n  ret void\n}}\n"


ATTRIBUTES = 'attributes #0 = { nounwind "no-builtins" "no-trapping-math"="true" }\n'

KERNEL_PARAMETERS = "ptr %args, i64 %begin, i64 %end"
ARGS, BEGIN, END = Var(PTR, "%args"), Var(I64, "%begin"), Var(I64, "%end")


def module(functions: Sequence[str], builders: Sequence[Builder]) -> str:
    """One module of the given functions and every declaration that their builders collected."""
    declarations = sorted(set().union(*(b.declarations for b in builders)))
    return "\n".join([*functions, *declarations, ATTRIBUTES])
