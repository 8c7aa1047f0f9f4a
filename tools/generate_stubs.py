"""Writes the typed stubs of the public interface from the operators' declarations.

    python tools/generate_stubs.py            writes flambeau/__init__.pyi, tensor.pyi, …
    python tools/generate_stubs.py --check    only says which of them are stale

Operators are typed by their schemas, everything else by its signature.  The output depends on the
sources alone, and `tests/test_stubs.py` fails while a committed stub differs from it.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import flambeau  # noqa: E402
from flambeau import tensor as tensor_module  # noqa: E402
from flambeau.core.dtype import dtype  # noqa: E402
from flambeau.core.memory_format import layout, memory_format  # noqa: E402
from flambeau.ops import return_types  # noqa: E402
from flambeau.ops.operator import Operator  # noqa: E402
from flambeau.ops.schema import REQUIRED, Parameter, Schema, public_name  # noqa: E402
from flambeau.tensor import Tensor, TensorHooks  # noqa: E402

HEADER = "# Written by tools/generate_stubs.py; edit the declarations, not this file.\n"

# What each kind of a schema's parameter accepts.
KINDS = {
    "Tensor": "Tensor",
    "Operand": "Tensor | Number",
    "Scalar": "Number",
    "int": "_int",
    "bool": "_bool",
    "float": "_float",
    "str": "_str",
    "ScalarType": "_dtype",
    "Device": "_device | _str | _int",
    "Generator": "Generator",
    "Layout": "_layout",
    "MemoryFormat": "_memory_format",
    "int[]": "_int | Sequence[_int]",
    "bool[]": "Sequence[_bool]",
    "float[]": "Sequence[_float]",
    "Tensor[]": "Sequence[Tensor]",
    "any": "Any",
}

# Annotations are rewritten where a class or the package has a member of the same name.
RENAMED = {
    name: f"_{name}"
    for name in ("int", "float", "bool", "str", "complex", "dtype", "device", "layout")
} | {"memory_format": "_memory_format", "_Device": "Any", "types.dtype": "_dtype"}
KNOWN = {
    "Any", "Callable", "ClassVar", "Generator", "Iterable", "Iterator", "Layout", "Node", "None",
    "Number", "RemovableHandle", "Sequence", "Size", "Storage", "Tensor", "TensorHooks", "dict",
    "list", "np.ndarray", "object", "set", "tuple", "type",
}  # fmt: skip

# What protocols return whose functions are one-line lambdas.
RESULTS = {
    "__bool__": "_bool",
    "__complex__": "_complex",
    "__dlpack_device__": "tuple[_int, _int]",
    "__float__": "_float",
    "__index__": "_int",
    "__int__": "_int",
    "__iter__": "Iterator[Tensor]",
    "copy_": "Tensor",
    "expand_as": "Tensor",
    "reshape_as": "Tensor",
    "resize_as_": "Tensor",
    "view_as": "Tensor",
}

# Methods whose result depends on what is given: parameters and result of each form.
OVERLOADS = {
    "size": (("dim: None = None", "Size"), ("dim: _int", "_int")),
    "stride": (("dim: None = None", "tuple[_int, ...]"), ("dim: _int", "_int")),
    "view": (
        ("size: Sequence[_int]", "Tensor"),
        ("*size: _int", "Tensor"),
        ("dtype: _dtype", "Tensor"),
    ),
}

SKIPPED = {
    "__annotations__", "__dict__", "__doc__", "__firstlineno__", "__module__", "__new__",
    "__qualname__", "__slots__", "__static_attributes__", "__weakref__",
}  # fmt: skip

IMPORTS = """\
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, overload

import numpy as np

"""

TENSOR_IMPORTS = """\
from flambeau.core.layout import Layout, Size
from flambeau.engine.generator import Generator
from flambeau.engine.storage import Storage
from flambeau.graph import Node, RemovableHandle
from flambeau.graph import grad_mode as grad_mode
from flambeau.ops import return_types
from flambeau.types import (
    Number, _bool, _complex, _device, _dtype, _float, _int, _layout, _memory_format, _str,
)

"""

PACKAGE_IMPORTS = TENSOR_IMPORTS.replace(
    "from flambeau.core.layout import Layout, Size\n", "from flambeau.core.layout import Layout\n"
).replace("from flambeau.engine.generator import Generator\n", "")


# -- annotations -----------------------------------------------------------------------------------


class _Renamer(ast.NodeTransformer):
    """An annotation in the stub's names; `unknown` is set where one has no counterpart there."""

    def __init__(self) -> None:
        self.unknown = False

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._named(node.id, node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self._named(ast.unparse(node), node)

    def _named(self, name: str, node: ast.expr) -> ast.AST:
        if name in RENAMED:
            return ast.Name(RENAMED[name])
        self.unknown = self.unknown or name not in KNOWN
        return node


def annotation(given: Any) -> str:
    """The text of an annotation in the stub's names; ``Any`` for what is not annotated."""
    if given is inspect.Parameter.empty:
        return "Any"
    if not isinstance(given, str):
        given = getattr(given, "__name__", "Any")
    renamer = _Renamer()
    text = ast.unparse(renamer.visit(ast.parse(given, mode="eval")))
    return "Any" if renamer.unknown else text


def default_text(value: Any) -> str:
    """A default as it is written in a stub; `...` for what has no short literal."""
    plain = value is None or isinstance(value, bool | int | str)
    if isinstance(value, float):
        plain = value == value and abs(value) != float("inf")
    return repr(value) if plain or value == () else "..."


# -- operators -------------------------------------------------------------------------------------


def kind_text(p: Parameter) -> str:
    text = KINDS[p.kind]
    return f"{text} | None" if p.optional else text


def schema_parameter(p: Parameter, name: str) -> str:
    text = f"{name}: {kind_text(p)}"
    if p.default is REQUIRED:
        return text
    default = "..." if p.kind == "MemoryFormat" else default_text(p.default)
    return f"{text} = {default}"


def schema_parameters(parameters: Iterable[Parameter]) -> list[str]:
    found: list[str] = []
    for p in parameters:
        if p.keyword_only and "*" not in found:
            found.append("*")
        found.append(schema_parameter(p, public_name(p)))
    return found


def result_text(schema: Schema) -> str:
    """Several results come as PyTorch's named tuple, or as one result if no ``dim`` was given."""
    single = len(schema.returns) == 1
    if schema.name in return_types.__dict__:
        return "Any" if single else f"return_types.{schema.name}"
    if single:
        return "Tensor"
    return f"tuple[{', '.join(['Tensor'] * len(schema.returns))}]"


def operator_function(name: str, op: Operator) -> Iterator[str]:
    parameters = schema_parameters(op.schema.parameters)
    if "out" in op.variants:
        out = "Tensor" if len(op.schema.returns) == 1 else "Sequence[Tensor]"
        parameters += [*([] if "*" in parameters else ["*"]), f"out: {out} | None = None"]
    yield f"def {name}({', '.join(parameters)}) -> {result_text(op.schema)}: ..."


def operator_method(name: str, op: Operator) -> Iterator[str]:
    """A method, its in-place form, or one of Python's operators."""
    if name.startswith("__"):
        other = ", other: Any" if len(op.schema.parameters) > 1 else ""
        ignore = "  # type: ignore[override]" if name in ("__eq__", "__ne__") else ""
        yield f"def {name}(self{other}) -> Tensor: ...{ignore}"
        return
    rest = [p for p in op.schema.parameters if public_name(p) != "input"]
    result = "Tensor" if name.endswith("_") else result_text(op.schema)
    written = f"def {name}({', '.join(['self', *schema_parameters(rest)])}) -> {result}: ..."
    spread = spread_parameters(rest)
    if spread is None:
        yield written
        return
    yield from ("@overload", written, "@overload")
    yield f"def {name}({', '.join(['self', *spread])}) -> {result}: ..."


def spread_parameters(parameters: Sequence[Parameter]) -> list[str] | None:
    """``permute(*dims)``: the form in which ints stand for the last, required ``int[]``."""
    positional = [p for p in parameters if not p.keyword_only]
    if len(positional) != 1 or positional[0].kind != "int[]" or positional[0].size is not None:
        return None
    keywords = [schema_parameter(p, p.name) for p in parameters if p.keyword_only]
    return [f"*{positional[0].name}: _int", *keywords]


def operator_of(function: Any) -> Operator | None:
    """The operator that a bound method calls."""
    makers = ("flambeau.bindings", "flambeau.ops.call", "flambeau.ops.view_form")
    if not inspect.isfunction(function) or function.__module__ not in makers:
        return None
    found = inspect.getclosurevars(function).nonlocals.get("op")
    return found if isinstance(found, Operator) else None


# -- what is not an operator -----------------------------------------------------------------------


def signature_text(name: str, function: Callable[..., Any], method: bool = False) -> str:
    signature = inspect.signature(function)
    parameters: list[str] = []
    for k, p in enumerate(signature.parameters.values()):
        if method and k == 0:
            parameters.append("self")
            continue
        if p.kind is p.KEYWORD_ONLY and not any(q.startswith("*") for q in parameters):
            parameters.append("*")
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        default = "" if p.default is p.empty else f" = {default_text(p.default)}"
        parameters.append(f"{star}{p.name}: {annotation(p.annotation)}{default}")
    result = RESULTS.get(name) or annotation(signature.return_annotation)
    return f"def {name}({', '.join(parameters)}) -> {result}: ..."


def property_lines(name: str, member: property) -> Iterator[str]:
    signature = inspect.signature(member.fget) if member.fget else None
    kind = annotation(signature.return_annotation) if signature else "Any"
    if kind == "Any" and name in ("T", "mT", "H", "mH"):
        kind = "Tensor"
    yield "@property"
    yield f"def {name}(self) -> {kind}: ..."
    if member.fset is not None:
        yield f"@{name}.setter"
        yield f"def {name}(self, value: {kind}) -> None: ..."
    if member.fdel is not None:
        yield f"@{name}.deleter"
        yield f"def {name}(self) -> None: ..."


def member_lines(name: str, member: Any) -> Iterator[str]:
    op = operator_of(member)
    if name in OVERLOADS:
        for parameters, result in OVERLOADS[name]:
            yield "@overload"
            yield f"def {name}(self, {parameters}) -> {result}: ..."
    elif op is not None:
        yield from operator_method(name, op)
    elif isinstance(member, property):
        yield from property_lines(name, member)
    elif isinstance(member, staticmethod):
        yield "@staticmethod"
        yield signature_text(name, member.__func__)
    elif callable(member) and inspect.isroutine(member):
        yield (
            "def __hash__(self) -> _int: ..."
            if name == "__hash__"
            else signature_text(name, member, method=True)
        )
    else:
        yield f"{name}: {constant_kind(member)}"


def constant_kind(value: Any) -> str:
    if isinstance(value, dtype | layout | memory_format):
        return f"_{type(value).__name__}"
    if value is None:
        return "None"
    if type(value) in (bool, int, float, str):
        return f"_{type(value).__name__}"
    return "Any"


def class_lines(cls: type, bases: str = "") -> Iterator[str]:
    """Fields as they are annotated, then properties and constants, then methods, each by name."""
    yield f"class {cls.__name__}{bases}:"
    for name, given in inspect.get_annotations(cls).items():
        yield f"    {name}: {annotation(given)}"
    slots = set(inspect.get_annotations(cls)) | SKIPPED
    members = {n: m for n, m in vars(cls).items() if n not in slots}
    for name in sorted(members, key=lambda n: (inspect.isroutine(members[n]), n)):
        if inspect.ismemberdescriptor(members[name]):
            yield f"    {name}: Any"
            continue
        for line in member_lines(name, members[name]):
            yield f"    {line}"


# -- the files -------------------------------------------------------------------------------------


def tensor_stub() -> str:
    lines = ["class TensorMeta(type): ...", "", *class_lines(TensorHooks), ""]
    lines += [
        line.replace(":", "(metaclass=TensorMeta):", 1) if line == "class Tensor:" else line
        for line in class_lines(Tensor)
    ]
    new = "    def __new__(cls, *args: Any, **kwargs: Any) -> Tensor: ..."
    lines.insert(lines.index("class Tensor(metaclass=TensorMeta):") + 1, new)
    lines.append("")
    for name, member in sorted(vars(tensor_module).items()):
        if inspect.isfunction(member) and member.__module__ == tensor_module.__name__:
            lines.append(signature_text(name, member))
    return HEADER + IMPORTS + TENSOR_IMPORTS + "\n" + "\n".join(lines) + "\n"


def return_types_stub() -> str:
    lines = ["from typing import Any, NamedTuple", "", "from flambeau.tensor import Tensor", ""]
    lines += ["class ReturnType(tuple[Any, ...]):", "    fields: tuple[str, ...]", ""]
    for name, member in sorted(vars(return_types).items()):
        if isinstance(member, type) and member.__name__ == name and getattr(member, "fields", ()):
            lines.append(f"class {name}(NamedTuple):")
            lines += [f"    {field}: Tensor" for field in member.fields]
            lines.append("")
    return HEADER + "\n".join(lines)


def source_of(name: str, value: Any) -> tuple[str, str]:
    """The module and the name there from which the package takes a class or an object."""
    home = value.__module__ if isinstance(value, type) else type(value).__module__
    candidates = [home] if home in sys.modules else []
    candidates += sorted(n for n in sys.modules if n.startswith("flambeau.") and n != home)
    for module in candidates:
        for own in (getattr(value, "__name__", name), f"{name}_", name):
            if vars(sys.modules[module]).get(own) is value:
                return module, own
    raise LookupError(f"flambeau.{name} is defined in no module of the package")


def public_names() -> dict[str, Any]:
    """What the package offers, without the modules that are its own business."""
    internal = flambeau.compat.torch_alias.INTERNAL
    found = {}
    for name, value in vars(flambeau).items():
        if name.startswith("_") and name != "__version__":
            continue
        if isinstance(value, ModuleType) and name in internal | {"ops", "compiler"}:
            continue
        found[name] = value
    return found


def package_stub() -> str:
    modules: list[str] = []
    imported: list[str] = []
    constants: list[str] = []
    operators: list[str] = []
    functions: list[str] = []
    for name, value in sorted(public_names().items()):
        if isinstance(value, ModuleType):
            modules.append(f"from flambeau import {name} as {name}")
        elif isinstance(value, Operator):
            operators += operator_function(name, value)
        elif inspect.isfunction(value):
            functions.append(signature_text(name, value))
        elif constant_kind(value) != "Any":
            constants.append(f"{name}: {constant_kind(value)}")
        else:
            module, own = source_of(name, value)
            imported.append(f"from {module} import {own} as {name}")
    sections = [modules, sorted(imported), constants, operators, functions]
    body = "\n\n".join("\n".join(section) for section in sections)
    return HEADER + IMPORTS + PACKAGE_IMPORTS + body + "\n"


def stubs() -> dict[Path, str]:
    """The text of every generated stub by its place."""
    package = ROOT / "flambeau"
    return {
        package / "__init__.pyi": package_stub(),
        package / "tensor.pyi": tensor_stub(),
        package / "ops" / "return_types.pyi": return_types_stub(),
    }


def stale() -> list[str]:
    """The stubs that differ from what the sources give now."""
    return [
        str(path.relative_to(ROOT))
        for path, text in stubs().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one is stale")
    if parser.parse_args(arguments).check:
        found = stale()
        for name in found:
            print(f"{name} is stale: run python tools/generate_stubs.py")
        return 1 if found else 0
    for path, text in stubs().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
