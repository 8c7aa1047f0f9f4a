"""Guards: whether everything that captured code can read is still as it was.

The checks run before every replay, so all variables are compared by identity in one pass of
built-in functions.  A value kept here cannot be freed, so its
identity cannot pass to another one.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from ctypes import string_at
from itertools import chain
from operator import attrgetter, call, itemgetter
from types import CellType, FunctionType
from typing import Any

from flambeau.tensor import Tensor

_MISSING = object()
_contents = attrgetter("cell_contents")
_fields = attrgetter("_storage", "_layout", "_requires_grad", "_grad_fn", "_base", "_hooks")


_function_fields = attrgetter("__code__", "__defaults__", "__kwdefaults__")
# So many variables are compared one by one as quickly as all at once.
_FEW = 12
_FIRST_ITEM = tuple.__basicsize__
_ITEM_BYTES = tuple.__itemsize__


def _addresses_one_by_one(values: tuple[Any, ...]) -> bytes:
    """The items' identities, as bytes."""
    return array("Q", map(id, values)).tobytes()


def _addresses_at_once(values: tuple[Any, ...]) -> bytes:
    """The same, read from where CPython's tuples keep them (in a tenth of the time)."""
    return string_at(id(values) + _FIRST_ITEM, len(values) * _ITEM_BYTES)


def _choose() -> Callable[[tuple[Any, ...]], bytes]:
    if sys.implementation.name != "cpython" or _ITEM_BYTES != 8:
        return _addresses_one_by_one
    probe = (None, "probe", 1.5, object(), ())
    agree = _addresses_at_once(probe) == _addresses_one_by_one(probe)
    return _addresses_at_once if agree else _addresses_one_by_one


addresses = _choose()


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
        """Arranges the checks, once everything is known.

        All variables become one sequence of values, which one pass compares with what it was.
        """
        self._getters: list[Any] = []
        self._holders: list[Any] = []
        expected: list[Any] = []
        for variables, known in self._keys.values():
            names = list(known)
            if not names:
                continue
            # With one name it is asked twice, for a getter of one name gives no tuple.
            names = names * 2 if len(names) == 1 else names
            self._getters.append(itemgetter(*names))
            self._holders.append(variables)
            expected += [known[name] for name in names]
        full = [(table, keys, values) for table, keys, values in self._dicts if keys]
        self._tables = [table for table, _, _ in full]
        for _, _, values in full:
            expected += values
        for _, keys, _ in full:
            expected += keys
        self._class_values = [values for values, _, _ in self._classes.values()]
        for _, _, values in self._classes.values():
            expected += values
        self._lists = [values for values, _ in self._sequences]
        for _, items in self._sequences:
            expected += items
        expected += self._cell_values
        expected += list(map(type, self._objects))
        self._sized = [*(t for t, _, _ in self._dicts), *self._class_values, *self._lists]
        self._sizes = list(map(len, self._sized))
        self._absent = [
            (variables.keys(), frozenset(names))
            for variables, names in self._absent_from.values()
            if names
        ]
        self._tensor_list = [tensor for tensor, _ in self._tensors]
        for _, fields in self._tensors:
            expected += fields
        for function in self._functions:
            expected += _function_fields(function)
        self._few = self._as_few()
        # They stay alive with this list, so that their addresses keep their meaning.
        self._expected = tuple(expected)
        self._addresses = addresses(self._expected)

    def _as_few(self) -> Any:
        """What `_few_hold` compares; None where there is too much for it."""
        others = (self._sized, self._objects, self._tensors)
        if any(others) or self.size > _FEW:
            return None
        variables = [
            (holder, name, value)
            for holder, known in self._keys.values()
            for name, value in known.items()
        ]
        functions = [(f, *_function_fields(f)) for f in self._functions]
        return variables, list(zip(self._cells, self._cell_values, strict=True)), functions

    # -- checking -------------------------------------------------------------------------------

    def hold(self) -> bool:
        """Whether nothing has changed."""
        try:
            if self._few is not None:
                return self._few_hold(*self._few) and self._rest_holds()
            if self._sizes != list(map(len, self._sized)):
                return False
            return addresses(tuple(self._values())) == self._addresses and self._rest_holds()
        except Exception:
            # A variable is gone, a cell is empty, or other tensors were compared with ours.
            return False

    def _few_hold(
        self,
        variables: Sequence[tuple[dict[str, Any], str, Any]],
        cells: Sequence[tuple[CellType, Any]],
        functions: Sequence[tuple[FunctionType, Any, Any, Any]],
    ) -> bool:
        """The same for a function that reads some variables and nothing behind them."""
        for holder, name, value in variables:
            if holder[name] is not value:
                return False
        for cell, value in cells:
            if cell.cell_contents is not value:
                return False
        for function, code, defaults, keyword_defaults in functions:
            if function.__code__ is not code or function.__defaults__ is not defaults:
                return False
            if function.__kwdefaults__ is not keyword_defaults:
                return False
        return True

    def _values(self) -> Any:
        flat = chain.from_iterable
        parts = []
        if self._getters:
            parts.append(flat(map(call, self._getters, self._holders)))
        if self._tables:
            parts += (flat(map(dict.values, self._tables)), flat(self._tables))
        if self._class_values:
            parts.append(flat(self._class_values))
        if self._lists:
            parts.append(flat(self._lists))
        parts += (map(_contents, self._cells), map(type, self._objects))
        if self._tensor_list:
            parts.append(flat(map(_fields, self._tensor_list)))
        parts.append(flat(map(_function_fields, self._functions)))
        return chain.from_iterable(parts)

    def _rest_holds(self) -> bool:
        for keys, names in self._absent:
            if not keys.isdisjoint(names):
                return False
        for container, members in self._sets:
            if container != members:
                return False
        return True

    def first_change(self) -> str:
        """The name of a variable that has changed, for messages."""
        for variables, known in self._keys.values():
            for name, value in known.items():
                if variables.get(name, _MISSING) is not value:
                    return f"the variable {name}"
        for variables, names in self._absent_from.values():
            for name in sorted(names & variables.keys()):
                return f"the variable {name}"
        if list(map(id, map(_contents, self._cells))) != list(map(id, self._cell_values)):
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
