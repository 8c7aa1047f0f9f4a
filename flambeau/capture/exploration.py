"""Exploration: from a function to everything that its Python code can read.

Starting from the function and its arguments, the explorer follows closures, defaults, the globals
that observed code names, containers, and the attributes that observed code names.  Every variable
that it passes is guarded by the identity of its value, so that the code, run again, would take the
same way.  A value that could change unseen makes the exploration fail, with the reason.
"""

from __future__ import annotations

import enum
import functools
import re
import sys
import types
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

from flambeau.capture.guards import Guards
from flambeau.capture.observation import Observation, is_trusted
from flambeau.capture.recording import is_plain
from flambeau.engine.segment import NotRepeatable
from flambeau.nn.hook_registry import global_hooks, hook_state
from flambeau.nn.module import Module
from flambeau.ops.operator import Operator
from flambeau.optim.optimizer import Optimizer
from flambeau.tensor import Tensor

# More variables than this are not guarded: checking them would cost more than recording.
MAX_VARIABLES = 20_000

_LEAVES = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
    types.MethodWrapperType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.ClassMethodDescriptorType, types.CodeType, types.NotImplementedType, types.GenericAlias,
    types.UnionType, re.Pattern, enum.Enum, Operator,
)  # fmt: skip
_OWN_LEAVES = ("Generator", "finfo", "iinfo", "Config")
_HOOK_TABLES = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_compiled_call_impl",
)  # fmt: skip
_MODULE_TABLES = ("_parameters", "_buffers", "_modules")


class Wrapper:
    """Something that is called in place of ``function`` and does the same."""

    function: Any


class Explorer:
    """Collects guards, and the ``tensors`` and ``objects`` that the code can reach."""

    def __init__(self, observation: Observation) -> None:
        self.observation = observation
        self.guards = Guards()
        self.tensors: list[Tensor] = []
        self.objects: dict[int, Any] = {}
        self.functions: set[types.CodeType] = set()
        self._waiting: list[tuple[Any, str]] = []

    def explore(self, roots: Iterable[tuple[Any, str]]) -> None:
        """Follows everything from the roots, each with its name in the program.

        Raises `NotRepeatable` where something cannot be guarded.
        """
        self._waiting += roots
        for variables, names in self.observation.globals.values():
            self._globals(variables, names)
        for name in self.observation.imported:
            module = sys.modules.get(name)
            if module is not None:
                self._waiting.append((module, name))
        if hook_state.installed:
            self._waiting += [(table, name) for name, table in vars(global_hooks).items()]
        while self._waiting:
            self._visit(*self._waiting.pop())
            if self.guards.size > MAX_VARIABLES:
                raise NotRepeatable("can reach too many variables")
        self._check_functions()
        self.guards.settle()

    def _follow(self, value: Any, where: str) -> None:
        self._waiting.append((value, where))

    def _visit(self, value: Any, where: str) -> None:
        if is_plain(value) and not isinstance(value, type):
            return
        if id(value) in self.objects:
            return
        self.objects[id(value)] = value
        for kind, visit in _VISITS:
            if isinstance(value, kind):
                visit(self, value, where)
                return
        self._instance(value, where)

    # -- variables ------------------------------------------------------------------------------

    def _globals(self, variables: dict[str, Any], names: set[str]) -> None:
        present = sorted(name for name in names if name in variables)
        self.guards.watch_keys(variables, present)
        self.guards.watch_absent(variables, names - set(present))
        for name in present:
            self._follow(variables[name], name)

    def _module(self, module: types.ModuleType, where: str) -> None:
        if module.__name__.partition(".")[0] == "flambeau":
            return
        variables = vars(module)
        present = sorted(name for name in self.observation.names if name in variables)
        self.guards.watch_keys(variables, present)
        for name in present:
            self._follow(variables[name], f"{where}.{name}")

    # -- callables ------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType, where: str) -> None:
        code = function.__code__
        self.guards.watch_function(function)
        if code not in self.observation.codes and not is_trusted(code):
            return
        self.functions.add(code)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                contents = cell.cell_contents
            except ValueError:
                raise NotRepeatable(f"uses {name} before it has a value") from None
            self.guards.watch_cell(cell, contents)
            self._follow(contents, name)
        for default in (function.__defaults__ or (), (function.__kwdefaults__ or {}).values()):
            for value in default:
                self._follow(value, f"a default of {where}")
        if function.__dict__ and not is_trusted(code):
            self._attributes(function.__dict__, where)

    def _method(self, method: types.MethodType, where: str) -> None:
        self._follow(method.__func__, where)
        self._follow(method.__self__, where)

    def _wrapper(self, wrapper: Wrapper, where: str) -> None:
        self._follow(wrapper.function, where)

    def _partial(self, partial: functools.partial, where: str) -> None:
        if type(partial) is not functools.partial:
            raise NotRepeatable(f"uses {where}, a {type(partial).__name__}")
        for value in (partial.func, partial.args, partial.keywords):
            self._follow(value, where)

    def _descriptor(self, descriptor: Any, where: str) -> None:
        self._follow(descriptor.__func__, where)

    def _property(self, descriptor: property, where: str) -> None:
        for function in (descriptor.fget, descriptor.fset):
            if function is not None:
                self._follow(function, where)

    def _cached_property(self, descriptor: functools.cached_property, where: str) -> None:
        self._follow(descriptor.func, where)

    # -- containers -----------------------------------------------------------------------------

    def _tuple(self, values: Any, where: str) -> None:
        for value in values:
            self._follow(value, where)

    def _list(self, values: Any, where: str) -> None:
        self.guards.watch_sequence(values)
        for value in values:
            self._follow(value, where)
        self._own_attributes(values, where)

    def _dict(self, values: dict[Any, Any], where: str) -> None:
        self.guards.watch_dict(values)
        for key, value in dict.items(values):
            self._follow(key, where)
            self._follow(value, where)
        if isinstance(values, defaultdict):
            self._follow(values.default_factory, where)
        self._own_attributes(values, where)

    def _set(self, values: Any, where: str) -> None:
        self.guards.watch_set(values)
        for value in values:
            self._follow(value, where)

    def _own_attributes(self, value: Any, where: str) -> None:
        own = getattr(value, "__dict__", None)
        if own is not None:
            self._attributes(own, where)
            self._class(type(value), where)

    # -- objects --------------------------------------------------------------------------------

    def _tensor(self, tensor: Tensor, where: str) -> None:
        if not type(tensor).__module__.startswith("flambeau"):
            raise NotRepeatable(f"uses {where}, a {type(tensor).__name__}")
        self.guards.watch_tensor(tensor)
        self.tensors.append(tensor)

    def _neural_module(self, module: Module, where: str) -> None:
        state = module.__dict__
        self.guards.watch_type(module)
        self._class(type(module), where)
        for table in _MODULE_TABLES:
            if table in state:
                self.guards.watch_keys(state, [table])
                self._dict(state[table], where)
        if hook_state.installed:
            for table in _HOOK_TABLES:
                if table in state:
                    self.guards.watch_keys(state, [table])
                    self._follow(state[table], where)
        names = self._named(state)
        present = [n for n in state if n in names and n not in _MODULE_TABLES]
        self._values_of(state, present, where)
        if "training" not in present:
            self.guards.watch_keys(state, ["training"])
        self._watch_shadows(state, type(module))

    def _optimizer(self, optimizer: Optimizer, where: str) -> None:
        state = optimizer.__dict__
        self.guards.watch_type(optimizer)
        self.guards.watch_keys(state, ["param_groups"])
        groups = state["param_groups"]
        self.guards.watch_sequence(groups)
        for group in groups:
            self.guards.watch_keys(group, ["params"])
            self._follow(group["params"], where)
        if not self.observation.names.isdisjoint(("param_groups", "state", "defaults")):
            self._attributes(state, where)
        self._class(type(optimizer), where)

    def _instance(self, value: Any, where: str) -> None:
        kind = type(value)
        if kind.__module__.startswith("flambeau") and kind.__name__ in _OWN_LEAVES:
            return
        own = getattr(value, "__dict__", None)
        if not isinstance(own, dict) or _slots_of(kind) or not _is_written_in_python(kind):
            raise NotRepeatable(f"uses {where}, a {kind.__module__}.{kind.__qualname__}")
        self.guards.watch_type(value)
        self._class(kind, where)
        self._attributes(own, where)
        self._watch_shadows(own, kind)

    def _attributes(self, variables: dict[str, Any], where: str) -> None:
        names = self._named(variables)
        self._values_of(variables, [name for name in variables if name in names], where)

    def _named(self, variables: Any) -> Any:
        return set(variables) if self.observation.everything else self.observation.names

    def _values_of(self, variables: dict[str, Any], present: list[str], where: str) -> None:
        self.guards.watch_keys(variables, present)
        for name in present:
            self._follow(variables[name], f"{where}.{name}")

    def _watch_shadows(self, own: dict[str, Any], kind: type) -> None:
        """An attribute of the instance must not come to hide one of the class.

        Where code asks whether attributes exist, none that it names may appear at all.
        """
        names = self.observation.names.difference(own)
        if not self.observation.asks:
            names = {name for name in names if hasattr(kind, name)}
        self.guards.watch_absent(own, names)

    # -- classes --------------------------------------------------------------------------------

    def _class(self, kind: type, where: str) -> None:
        for base in kind.__mro__:
            if id(base) in self.objects and base is not kind:
                continue
            self.objects[id(base)] = base
            if not base.__module__.startswith("flambeau") and _is_written_in_python(base):
                self._own_class(base)

    def _own_class(self, kind: type) -> None:
        if not self.guards.watch_class(kind):
            return
        for name, value in vars(kind).items():
            executed = _code_of(value) in self.observation.codes
            if executed or name in self.observation.names:
                self._follow(value, f"{kind.__name__}.{name}")

    def _visit_class(self, kind: type, where: str) -> None:
        if kind.__module__.startswith("flambeau") or kind.__module__ in _KNOWN_MODULES:
            return
        if not _is_written_in_python(kind):
            raise NotRepeatable(f"uses {where}, the type {kind.__module__}.{kind.__qualname__}")
        self._class(kind, where)

    def _ignore(self, value: Any, where: str) -> None:
        """Nobody can change it."""

    # -- the rest -------------------------------------------------------------------------------

    def _check_functions(self) -> None:
        """Every closure that ran was found, or was made by code that ran."""
        codes = self.observation.codes
        nested = {c for code in codes for c in code.co_consts if isinstance(c, types.CodeType)}
        for code in codes:
            if code.co_freevars and code not in self.functions and code not in nested:
                raise NotRepeatable(f"calls {code.co_qualname}, which its variables do not lead to")


def _code_of(value: Any) -> Any:
    function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
    return getattr(function, "__code__", None)


def _slots_of(kind: type) -> bool:
    return any(vars(base).get("__slots__") for base in kind.__mro__)


# Modules in C whose types hold no state but their instances'.
_KNOWN_MODULES = frozenset(
    {"builtins", "collections", "itertools", "functools", "types", "typing", "abc", "enum", "math",
     "dataclasses", "numbers", "collections.abc", "contextlib", "fractions", "decimal"}
)  # fmt: skip


def _is_written_in_python(kind: type) -> bool:
    """Whether the frames of its methods can be observed."""
    if kind.__module__ in _KNOWN_MODULES:
        return True
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    return file is None or file.endswith((".py", ".pyc"))


# The first that fits decides.
_VISITS: tuple[tuple[Any, Any], ...] = (
    (Tensor, Explorer._tensor),
    (types.FunctionType, Explorer._function),
    (types.MethodType, Explorer._method),
    (types.ModuleType, Explorer._module),
    (type, Explorer._visit_class),
    (Module, Explorer._neural_module),
    (Optimizer, Explorer._optimizer),
    (functools.partial, Explorer._partial),
    (Wrapper, Explorer._wrapper),
    (staticmethod, Explorer._descriptor),
    (classmethod, Explorer._descriptor),
    (property, Explorer._property),
    (functools.cached_property, Explorer._cached_property),
    (_LEAVES, Explorer._ignore),
    ((tuple, frozenset), Explorer._tuple),
    ((list, deque), Explorer._list),
    (dict, Explorer._dict),
    (set, Explorer._set),
)
