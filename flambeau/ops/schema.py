"""Operator schemas: parsing, binding Python arguments to them, PyTorch's error texts.

A schema is written as in PyTorch's ``native_functions``:
``sum(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor``;
``Operand`` is a tensor or a number.
Everything is normalised here, once: after binding, ``int[]`` is a tuple, numbers are checked,
missing arguments have their defaults.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flambeau.core import dtype as types
from flambeau.core.device import device
from flambeau.core.dtype import dtype
from flambeau.tensor import Tensor

REQUIRED = object()

_PARAMETER = re.compile(
    r"(?P<type>[\w\[\]()!?.]+?(?:\([a-z]!?\))?)\s+(?P<name>\w+)(?:=(?P<default>.+))?$"
)
_TITLES = {
    "Tensor": "Tensor",
    "Operand": "Tensor",
    "Scalar": "Number",
    "int": "int",
    "bool": "bool",
    "float": "float",
    "str": "str",
    "ScalarType": "torch.dtype",
    "Device": "torch.device",
    "Generator": "Generator",
    "int[]": "tuple of ints",
    "Tensor[]": "tuple of Tensors",
    "any": "object",
    "Layout": "torch.layout",
    "MemoryFormat": "torch.memory_format",
    "bool[]": "tuple of bools",
    "float[]": "tuple of floats",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter; ``kind`` is the type without size and ``?``; ``size`` that of ``int[2]``."""

    name: str
    kind: str
    optional: bool
    size: int | None
    default: Any
    keyword_only: bool
    position: int
    is_tensor: bool = field(init=False)
    is_number: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_tensor", self.kind in ("Tensor", "Operand"))
        object.__setattr__(self, "is_number", self.kind == "Scalar")


@dataclass(frozen=True)
class Schema:
    """A parsed schema.  ``name`` has no overload suffix."""

    name: str
    text: str
    parameters: tuple[Parameter, ...]
    returns: tuple[str, ...]
    # Derived: positional parameters, what `bind` starts from, and per position the one class whose
    # values need no look (for tensors: or a subclass).
    positional: tuple[Parameter, ...] = field(init=False, compare=False, repr=False)
    defaults: tuple[Any, ...] = field(init=False, compare=False, repr=False)
    classes: tuple[type | None, ...] = field(init=False, compare=False, repr=False)
    # Per number of positional arguments: the classes that need no look, or None if too few.
    exact: tuple[tuple[type | None, ...] | None, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        positional = tuple(p for p in self.parameters if not p.keyword_only)
        object.__setattr__(self, "positional", positional)
        object.__setattr__(self, "defaults", tuple(p.default for p in self.parameters))
        classes = tuple(_PLAIN.get(p.kind) for p in positional)
        object.__setattr__(self, "classes", classes)
        required = sum(p.default is REQUIRED for p in self.parameters)
        exact = [classes[:n] if n >= required else None for n in range(len(positional) + 1)]
        object.__setattr__(self, "exact", tuple(exact))

    def bind(
        self, args: Sequence[Any], kwargs: dict[str, Any], *, method: bool = False
    ) -> list[Any]:
        """The arguments in schema order, normalised; PyTorch's TypeError for a misfit."""
        # Hot path: 30 times in the step of a small network (0.4 microseconds each).
        count = len(args)
        if not kwargs and count < len(self.exact) and tuple(map(type, args)) == self.exact[count]:
            return [*args, *self.defaults[count:]]
        if count > len(self.positional):
            args = self._spread(args, self.positional, method)
            count = len(args)
        values: list[Any] = list(args)
        k = 0
        for plain in self.classes[:count]:
            value = values[k]
            if value.__class__ is not plain and not (plain is Tensor and isinstance(value, Tensor)):
                values[k] = self._check(self.positional[k], value, args)
            k += 1
        if kwargs:
            values += [REQUIRED] * (len(self.parameters) - count)
            self._bind_keywords(kwargs, values)
            for k, value in enumerate(values):
                if value is REQUIRED:
                    values[k] = self.defaults[k]
        else:
            values += self.defaults[count:]
        for k, value in enumerate(values):
            if value is REQUIRED:
                raise TypeError(
                    f"{self.name}() missing 1 required positional arguments: "
                    f'"{public_name(self.parameters[k])}"'
                )
        return values

    def _spread(
        self, args: Sequence[Any], positional: Sequence[Parameter], method: bool
    ) -> list[Any]:
        """``x.permute(2, 0, 1)``: trailing ints stand for one ``int[]``."""
        for k, p in enumerate(positional):
            if p.kind == "int[]" and k < len(args) and not isinstance(args[k], (tuple, list)):
                if all(not isinstance(a, (tuple, list, Tensor, str)) for a in args[k:]):
                    return [*args[:k], tuple(args[k:])]
        taken, given = len(positional) - method, len(args) - method
        raise TypeError(
            f"{self.name}() takes {taken} positional argument{'s' * (taken != 1)} but {given} "
            f"{'was' if given == 1 else 'were'} given"
        )

    def _bind_keywords(self, kwargs: dict[str, Any], values: list[Any]) -> None:
        for name, value in kwargs.items():
            for k, p in enumerate(self.parameters):
                if (
                    p.name == name
                    or (p.name == "self" and name == "input")
                    or _ALIASES.get(name) == p.name
                ):
                    if values[k] is not REQUIRED:
                        raise TypeError(f"{self.name}() got multiple values for argument '{name}'")
                    values[k] = self._check(p, value, ())
                    break
            else:
                raise TypeError(f"{self.name}() got an unexpected keyword argument '{name}'")

    def _check(self, p: Parameter, value: Any, args: Sequence[Any]) -> Any:
        if value is None and p.optional:
            return None
        accepted = _CONVERTERS[p.kind](value, p)
        if accepted is REQUIRED:
            if p.kind == "Tensor[]" and isinstance(value, (tuple, list)):
                wrong = next(k for k, v in enumerate(value) if not isinstance(v, Tensor))
                raise TypeError(
                    f"expected Tensor as element {wrong} in argument {p.position}, but got "
                    f"{type(value[wrong]).__name__}"
                )
            if p.kind == "int[]" and isinstance(value, (tuple, list)):
                wrong = next(k for k, v in enumerate(value) if as_int(v) is REQUIRED)
                raise TypeError(
                    f"{self.name}(): argument '{public_name(p)}' (position {p.position + 1}) must "
                    f"be tuple of ints, but found element of type {type(value[wrong]).__name__} at "
                    f"pos {wrong}"
                )
            raise TypeError(
                f"{self.name}(): argument '{public_name(p)}' (position {p.position + 1}) must be "
                f"{_TITLES[p.kind]}, not {describe(value)}"
            )
        return accepted


_PLAIN: dict[str, type] = {
    "Tensor": Tensor,
    "Operand": Tensor,
    "Scalar": float,
    "int": int,
    "bool": bool,
    "float": float,
    "str": str,
    "ScalarType": dtype,
}

# numpy's spellings, which PyTorch accepts for the arguments of these names.
_ALIASES = {
    "axis": "dim",
    "keepdims": "keepdim",
    "x": "self",
    "a": "self",
    "x1": "self",
    "x2": "other",
}


def public_name(p: Parameter) -> str:
    return "input" if p.name == "self" else p.name


def describe(value: Any) -> str:
    """How PyTorch names the type of a wrong argument."""
    if isinstance(value, (tuple, list)):
        inner = type(value[0]).__name__ if value else ""
        return (
            f"{type(value).__name__} of {inner}s"
            if inner and isinstance(value, tuple)
            else type(value).__name__
        )
    return type(value).__name__


def is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex, np.number, np.bool_))


def as_number(value: Any) -> Any:
    """numpy's scalars as Python numbers."""
    return value.item() if isinstance(value, (np.number, np.bool_)) else value


def as_int(value: Any) -> Any:
    """An integer from anything that is one (a 0-d integer tensor too); else REQUIRED."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, float, np.floating)):
        return int(value) if isinstance(value, bool) else REQUIRED
    if isinstance(value, Tensor):
        if value.numel() == 1 and value.dtype.category == "integer":
            return int(value)  # type: ignore[call-overload]
        return REQUIRED
    try:
        return operator.index(value)
    except TypeError:
        return REQUIRED


def _int_list(value: Any, p: Parameter) -> Any:
    if isinstance(value, (tuple, list)):
        result = tuple(as_int(v) for v in value)
        return REQUIRED if REQUIRED in result else result
    one = as_int(value)
    if one is REQUIRED:
        return REQUIRED
    return (one,) * (p.size or 1)


def _number(value: Any, p: Parameter) -> Any:
    if is_number(value):
        return as_number(value)
    if isinstance(value, Tensor) and value.ndim == 0:
        return value.item()  # type: ignore[attr-defined]
    return REQUIRED


def _of_type(*accepted: type) -> Callable[[Any, Parameter], Any]:
    return lambda value, p: value if isinstance(value, accepted) else REQUIRED


_CONVERTERS: dict[str, Callable[[Any, Parameter], Any]] = {
    "Tensor": lambda v, p: v if isinstance(v, Tensor) else REQUIRED,
    "Operand": lambda v, p: (
        v if isinstance(v, Tensor) else as_number(v) if is_number(v) else REQUIRED
    ),
    "Scalar": _number,
    "int": lambda v, p: as_int(v),
    "bool": lambda v, p: (
        v if isinstance(v, (bool, np.bool_)) else bool(v) if type(v) is int else REQUIRED
    ),
    "float": lambda v, p: float(as_number(v)) if is_number(v) else REQUIRED,
    "str": _of_type(str),
    "ScalarType": lambda v, p: v if isinstance(v, dtype) else _python_type(v),
    "Device": lambda v, p: device(v) if isinstance(v, (str, int, device)) else REQUIRED,
    "Generator": lambda v, p: v,
    "int[]": _int_list,
    "bool[]": lambda v, p: tuple(v) if isinstance(v, (tuple, list)) else REQUIRED,
    "float[]": lambda v, p: tuple(map(float, v)) if isinstance(v, (tuple, list)) else REQUIRED,
    "Tensor[]": lambda v, p: tuple(v) if _all_tensors(v) else REQUIRED,
    "Layout": lambda v, p: v,
    "MemoryFormat": lambda v, p: v,
    "any": lambda v, p: v,
}


def _all_tensors(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(v, Tensor) for v in value)


def _python_type(value: Any) -> Any:
    if value in (bool, int, float, complex):
        return {
            bool: types.bool_,
            int: types.int64,
            float: types.float64,
            complex: types.complex128,
        }[value]
    return REQUIRED


def parse(text: str) -> Schema:
    """Parses a schema; raises ValueError where it is not one."""
    match = re.fullmatch(r"([\w.]+)\((.*)\)\s*->\s*(.+)", text.strip())
    if match is None:
        raise ValueError(f"not a schema: {text!r}")
    name, inside, returns = match.groups()
    parameters: list[Parameter] = []
    keyword_only = False
    for part in _split(inside):
        if part == "*":
            keyword_only = True
            continue
        parameters.append(_parameter(part, keyword_only, len(parameters)))
    outputs = tuple(_split(returns[1:-1])) if returns.startswith("(") else (returns,)
    return Schema(name.split(".")[0], text, tuple(parameters), outputs)


def _split(text: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for character in text:
        depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    return [*parts, current.strip()] if current.strip() else parts


def _parameter(text: str, keyword_only: bool, position: int) -> Parameter:
    match = _PARAMETER.match(text)
    if match is None:
        raise ValueError(f"not a parameter: {text!r}")
    kind = re.sub(r"\([a-z]!?\)", "", match["type"])
    optional = kind.endswith("?")
    kind = kind.rstrip("?")
    size: int | None = None
    sized = re.fullmatch(r"(\w+)\[(\d*)\]", kind)
    if sized:
        size = int(sized[2]) if sized[2] else None
        kind = f"{sized[1]}[]"
    default = REQUIRED if match["default"] is None else _default(match["default"], size)
    return Parameter(match["name"], kind, optional, size, default, keyword_only, position)


_CONSTANTS = {"None": None, "True": True, "False": False, "Mean": 1, "Sum": 2}


def _default(text: str, size: int | None) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text.startswith("["):
        return tuple(int(t) for t in text[1:-1].split(",") if t.strip())
    if text[0] in "\"'":
        return text[1:-1]
    number = float(text) if re.search(r"[.e]|inf", text) else int(text)
    return (number,) * size if size is not None else number
