"""Guards: whether everything that captured code can read is still as it was.

The checks run before every replay, so they are arranged by kind in flat lists, and compare by
identity with as few steps of Python as possible.  A value kept here cannot be freed, so its
identity cannot pass to another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter, is_, itemgetter
from types import CellType, FunctionType
from typing import Any

from flambeau.tensor import Tensor

_MISSING = object()
_contents = attrgetter("cell_contents")
_fields = attrgetter("_storage", "_layout", "_requires_grad", "_grad_fn", "_base", "_hooks")


class Guards:
    """``hold()`` says whether a replay would read what the captured run read."""

    def __init__(self) -> None:
        self.size = 0
        self._keys: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._absent_from: dict[int, tuple[dict[str, Any], set[str]]] = {}
        self._cells: list[CellType] = []
        self._cell_values: list[Any] = []
        self._functions: list[FunctionType] = []
        self._objects: list[Any] = []
        self._sequences: list[tuple[Any, list[Any]]] = []
        self._dicts: list[tuple[dict[Any, Any], list[Any], list[Any]]] = []
        self._sets: list[tuple[Any, frozenset[Any]]] = []
        self._classes: dict[type, tuple[Any, int, list[Any]]] = {}
        self._tensors: list[tuple[Tensor, tuple[Any, ...]]] = []
        self._single: list[tuple[dict[str, Any], str, Any]] = []
        self._several: list[tuple[dict[str, Any], Any, tuple[Any, ...]]] = []
        self._absent: list[tuple[Any, frozenset[str]]] = []

    # -- what to watch --------------------------------------------------------------------------

    def watch_keys(self, variables: dict[str, Any], names: Sequence[str]) -> None:
        """These variables keep their values."""
        _, known = self._keys.setdefault(id(variables), (variables, {}))
        for name in names:
            known[name] = variables[name]
        self.size += len(names)

    def watch_absent(self, variables: dict[str, Any], names: Iterable[str]) -> None:
        """These names stay without a value."""
        _, known = self._absent_from.setdefault(id(variables), (variables, set()))
        known.update(name for name in names if name not in variables)

    def watch_cell(self, cell: CellType, contents: Any) -> None:
        self._cells.append(cell)
        self._cell_values.append(contents)
        self.size += 1

    def watch_function(self, function: FunctionType) -> None:
        self._functions.append(function)
        self.size += 1

    def watch_type(self, value: Any) -> None:
        """The object keeps its class."""
        self._objects.append(value)
        self.size += 1

    def watch_sequence(self, values: Any) -> None:
        self._sequences.append((values, list(values)))
        self.size += len(values)

    def watch_dict(self, values: dict[Any, Any]) -> None:
        self._dicts.append((values, list(dict.keys(values)), list(dict.values(values))))
        self.size += len(values)

    def watch_set(self, values: Any) -> None:
        self._sets.append((values, frozenset(values)))
        self.size += len(values)

    def watch_class(self, kind: type) -> bool:
        """The class keeps its attributes; False where it is watched already."""
        if kind in self._classes:
            return False
        variables = vars(kind)
        self._classes[kind] = (variables.values(), len(variables), list(variables.values()))
        self.size += len(variables)
        return True

    def watch_tensor(self, tensor: Tensor) -> None:
        self._tensors.append((tensor, _fields(tensor)))
        self.size += 1

    def settle(self) -> None:
        """Arranges the checks, once everything is known."""
        for variables, known in self._keys.values():
            if len(known) == 1:
                [(name, value)] = known.items()
                self._single.append((variables, name, value))
            elif known:
                self._several.append((variables, itemgetter(*known), tuple(known.values())))
        self._absent = [
            (variables.keys(), frozenset(names))
            for variables, names in self._absent_from.values()
            if names
        ]
        self._function_checks = [
            (f, f.__code__, f.__defaults__, f.__kwdefaults__) for f in self._functions
        ]
        self._types = list(map(type, self._objects))
        self._class_checks = list(self._classes.values())

    # -- checking -------------------------------------------------------------------------------

    def hold(self) -> bool:
        """Whether nothing has changed."""
        try:
            return self._variables_hold() and self._objects_hold()
        except Exception:
            # A variable is gone, a cell is empty, or other tensors were compared with ours.
            return False

    def first_change(self) -> str:
        """The name of a variable that has changed, for messages."""
        for variables, known in self._keys.values():
            for name, value in known.items():
                if variables.get(name, _MISSING) is not value:
                    return f"the variable {name}"
        for variables, names in self._absent_from.values():
            for name in sorted(names & variables.keys()):
                return f"the variable {name}"
        if not all(map(is_, map(_contents, self._cells), self._cell_values)):
            return "a variable of an enclosing function"
        for container, items in self._sequences:
            if list(map(id, container)) != list(map(id, items)):
                return "a list"
        for table, _, values in self._dicts:
            if list(map(id, table.values())) != list(map(id, values)):
                return "a dictionary"
        for tensor, fields in self._tensors:
            if list(map(id, _fields(tensor))) != list(map(id, fields)):
                return "the memory, the shape or the graph of a tensor that it did not make"
        return "the state of the program"

    def _variables_hold(self) -> bool:
        for variables, name, value in self._single:
            if variables[name] is not value:
                return False
        for variables, get, values in self._several:
            if not all(map(is_, get(variables), values)):
                return False
        if self._cells and not all(map(is_, map(_contents, self._cells), self._cell_values)):
            return False
        for keys, names in self._absent:
            if not keys.isdisjoint(names):
                return False
        for container, items in self._sequences:
            if len(container) != len(items) or not all(map(is_, container, items)):
                return False
        for table, keys, values in self._dicts:
            if len(table) != len(keys):
                return False
            if not all(map(is_, table, keys)) or not all(map(is_, table.values(), values)):
                return False
        return True

    def _objects_hold(self) -> bool:
        for function, code, defaults, keyword_defaults in self._function_checks:
            if function.__code__ is not code or function.__defaults__ is not defaults:
                return False
            if function.__kwdefaults__ is not keyword_defaults:
                return False
        if self._objects and not all(map(is_, map(type, self._objects), self._types)):
            return False
        for values, count, expected in self._class_checks:
            if len(values) != count or not all(map(is_, values, expected)):
                return False
        for tensor, fields in self._tensors:
            if _fields(tensor) != fields:
                return False
        for container, members in self._sets:
            if container != members:
                return False
        return True
