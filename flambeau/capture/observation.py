"""Observing a call: which Python code runs, which names it uses, which built-in functions it calls.

The interpreter's profiling hook tells of every Python frame and every built-in function.  Operators
and what lies below them are trusted: they read nothing of the program's but the tensors they are
given and the switches that a compiled function guards anyway.  All other code, the ``forward`` of
modules included, is *observed*: what it names is guarded (`exploration.py`), and built-in functions
that are not known to depend on their arguments alone make the function fall back.
"""

from __future__ import annotations

import dis
import gc
import re
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

PACKAGE = str(Path(__file__).resolve().parent.parent)

# Files of the package whose Python code keeps no state of the program's; `nn` is observed.
_TRUSTED = (
    "__init__.py", "autograd", "backend", "bindings.py", "capture", "compiler", "core", "engine",
    "functional.py", "graph.py", "interchange.py", "linalg.py", "ops", "optim/optimizer.py",
    "special.py", "tensor.py", "tensor_creation.py", "tensor_types.py", "storage.py",
    "nn/functional", "nn/module.py", "nn/module_tree.py", "nn/parameter.py", "nn/init.py",
)  # fmt: skip
_TRUSTED_PATHS = tuple(f"{PACKAGE}/{name}" for name in _TRUSTED)
# Trusted files in which only some functions may run during a capture.
_STATEFUL = {
    f"{PACKAGE}/engine/generator.py": "changes or reads a random generator",
    f"{PACKAGE}/core/config.py": "changes a switch of the library",
    f"{PACKAGE}/printing.py": "prints a tensor",
}
_HARMLESS = frozenset({"usable_processors", "from_environment", "initial_seed", "device"})

_PURE_BUILTINS = frozenset(
    "abs all any ascii bin bool bytes callable chr complex dict divmod enumerate filter float "
    "format frozenset hex int isinstance issubclass iter len list map max min next oct ord pow "
    "range repr reversed round set slice sorted str sum tuple type zip __build_class__".split()
)
_BY_NAME = frozenset({"getattr", "hasattr", "setattr", "delattr"})
_PURE_MODULES = frozenset(
    {"math", "cmath", "_operator", "itertools", "_functools", "_collections", "_abc", "_bisect"}
)
# Objects whose built-in methods depend on the object alone; changes of it are noticed.
_PLAIN_OWNERS = (
    str, bytes, bytearray, int, float, complex, bool, list, tuple, dict, set, frozenset, slice,
    range, type(re.compile("")), type({}.keys()), type({}.values()), type({}.items()),
)  # fmt: skip
_CLASS_METHODS = frozenset({"fromkeys", "from_bytes", "fromhex", "maketrans", "__new__"})
# Attributes whose values no guard can follow.
_FORBIDDEN_NAMES = frozenset(
    {"_version", "__globals__", "f_locals", "f_globals", "gi_frame", "__subclasses__"}
)
_EVERYTHING = frozenset({"__dict__", "__getattribute__", "attrgetter"})
_IDENTIFIER = re.compile(r"[^\W\d]\w*\Z")


class Observation:
    """What the runs of a function have shown so far.

    ``codes`` maps the code that ran to its globals; ``names`` are the attributes it may use
    (``everything``: any attribute, ``asks``: whether some exist); ``refusal`` says why no guard can
    do.
    """

    def __init__(self) -> None:
        self.codes: dict[CodeType, dict[str, Any]] = {}
        self.names: set[str] = set()
        self.globals: dict[int, tuple[dict[str, Any], set[str]]] = {}
        self.everything = False
        self.asks = False
        self.imported: set[str] = set()
        self.refusal: str | None = None

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls the function and learns.

        No garbage is collected meanwhile: what a collection runs (finalizers, callbacks) is not
        the function's code.
        """
        collects = gc.isenabled()
        gc.disable()
        sys.setprofile(self._profile)
        try:
            return function(*args, **kwargs)
        finally:
            sys.setprofile(None)
            if collects:
                gc.enable()

    def size(self) -> tuple[int, bool, bool]:
        """Differs where more was learned."""
        return len(self.codes), self.everything, self.asks

    def refuse(self, reason: str, frame: FrameType | None = None) -> None:
        if self.refusal is None:
            where = "" if frame is None else f" ({_line_of(frame)})"
            self.refusal = f"it {reason}{where}"

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call":
            if code not in self.codes:
                self._meet(frame, code)
        elif event == "c_call" and code in self.codes:
            self._judge(frame, argument)

    def _meet(self, frame: FrameType, code: CodeType) -> None:
        if is_trusted(code):
            reason = _STATEFUL.get(code.co_filename)
            if reason is not None and code.co_name not in _HARMLESS:
                self.refuse(reason, _user_frame(frame))
            return
        if self._serves_trusted(frame):
            return
        self.codes[code] = frame.f_globals
        own = uses_of(code)
        forbidden = own.names & _FORBIDDEN_NAMES
        if forbidden:
            self.refuse(f"uses {sorted(forbidden)[0]}", frame)
        self.names |= own.names
        self.imported |= own.imported
        self.asks = self.asks or bool(code.co_exceptiontable)
        if own.names & _EVERYTHING:
            self.everything = True
        _, known = self.globals.setdefault(id(frame.f_globals), (frame.f_globals, set()))
        known |= own.globals

    def _serves_trusted(self, frame: FrameType) -> bool:
        """Whether this is code of Python's own libraries, called by trusted code."""
        at: FrameType | None = frame
        while at is not None and _is_library(at):
            at = at.f_back
        return at is not None and at is not frame and is_trusted(at.f_code)

    def _judge(self, frame: FrameType, function: Any) -> None:
        owner = getattr(function, "__self__", None)
        name = getattr(function, "__name__", "")
        if isinstance(function, type(print)) and (owner is None or isinstance(owner, ModuleType)):
            module = getattr(function, "__module__", None)
            if module == "builtins":
                if name in _PURE_BUILTINS:
                    return
                if name in _BY_NAME:
                    # The name may be computed; constant ones are among the names already.
                    self.everything = self.asks = True
                    return
            elif module in _PURE_MODULES:
                return
            where = f"{module}." if module not in (None, "builtins") else ""
            self.refuse(f"calls {where}{name}()", frame)
            return
        if isinstance(owner, type):
            if name in _CLASS_METHODS or name in ("__init_subclass__", "__subclasshook__"):
                return
        elif isinstance(owner, _PLAIN_OWNERS) or _is_exception_or_iterator(owner):
            return
        elif name in ("__init__", "__setattr__", "__new__", "__enter__", "__exit__"):
            return
        self.refuse(f"calls {type(owner).__name__}.{name}()", frame)


def _is_exception_or_iterator(owner: Any) -> bool:
    return isinstance(owner, BaseException) or type(owner).__name__ in (
        "generator", "zip", "map", "filter", "enumerate", "list_iterator", "tuple_iterator",
        "dict_keyiterator", "dict_valueiterator", "dict_itemiterator", "super", "mappingproxy",
    )  # fmt: skip


class Uses:
    """What a piece of code names: globals, attributes (and identifiers in strings), imports."""

    __slots__ = ("globals", "imported", "names")

    def __init__(self, code: CodeType) -> None:
        self.globals: set[str] = set()
        self.names: set[str] = set()
        self.imported: set[str] = set()
        for instruction in dis.get_instructions(code):
            operation = instruction.opname
            if operation == "IMPORT_NAME":
                self.imported.add(instruction.argval)
            elif operation.endswith(("_GLOBAL", "_GLOBALS", "_NAME")):
                self.globals.add(instruction.argval)
        self.names.update(set(code.co_names) - self.globals - self.imported)
        # A name may be a global in one place and an attribute in another.
        self.names.update(
            instruction.argval
            for instruction in dis.get_instructions(code)
            if "ATTR" in instruction.opname or "METHOD" in instruction.opname
            if isinstance(instruction.argval, str)
        )
        self.names.update(
            value for value in _strings_in(code.co_consts) if _IDENTIFIER.match(value)
        )


def _strings_in(values: Any) -> list[str]:
    found = []
    for value in values:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, tuple | frozenset):
            found += _strings_in(value)
    return found


_uses: dict[CodeType, Uses] = {}


def uses_of(code: CodeType) -> Uses:
    found = _uses.get(code)
    if found is None:
        if len(_uses) > 10_000:
            _uses.clear()
        found = _uses[code] = Uses(code)
    return found


def is_trusted(code: CodeType) -> bool:
    """Whether the code belongs to this package and keeps no state of the program's."""
    return code.co_filename.startswith(_TRUSTED_PATHS)


def _is_library(frame: FrameType) -> bool:
    path = frame.f_code.co_filename
    if path.startswith("<"):
        # Made by `dataclass` and the like; the module that asked for it owns it.
        owner = frame.f_globals.get("__name__", "")
        return path.startswith("<frozen") or owner.partition(".")[0] in _LIBRARIES
    if path.startswith(_STANDARD_LIBRARY):
        return "site-packages" not in path or path.startswith(_LIBRARY_PATHS)
    return path.startswith(_LIBRARY_PATHS)


# What the package itself is built on.
_LIBRARIES = ("flambeau", "numpy", "llvmlite")
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_LIBRARY_PATHS = tuple(
    f"{sysconfig.get_paths()[kind]}/{name}/"
    for kind in ("purelib", "platlib")
    for name in ("numpy", "llvmlite")
)


def _user_frame(frame: FrameType) -> FrameType:
    at: FrameType | None = frame
    while at is not None and at.f_code.co_filename.startswith(PACKAGE):
        at = at.f_back
    return at or frame


def _line_of(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
