"""A pickle reader that builds plain data and tensors, and calls nothing that is not on a list.

Pickle is a small stack language; this is an interpreter for the part of it that data needs. What a
file may name, and what it may do with it, is in `allowed`.
"""

from __future__ import annotations

import _compat_pickle
import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from flambeau.nn.parameter import Parameter
from flambeau.serialization.allowed import ALLOWED, Allowed, checked_key, safe
from flambeau.serialization.rebuild import rebuild_from_type_v2

_plain_containers = (dict, OrderedDict, Counter)


class RestrictedUnpickler:
    """Reads one pickle from `file`, which has ``read`` and ``readline``.

    `persistent_load` makes storages from persistent ids. Anything unexpected is an UnpicklingError.
    """

    def __init__(
        self, file: Any, persistent_load: Callable[[Any], Any], encoding: str = "utf-8"
    ) -> None:
        self._file = file
        self._persistent_load = persistent_load
        self._encoding = "utf-8" if encoding == "bytes" else encoding
        self._users = safe.by_name()
        self._named: dict[int, Allowed] = {}
        self._memo: dict[int, Any] = {}
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []

    def load(self) -> Any:
        """Returns the object."""
        try:
            return self._run()
        except _malformed as error:
            raise pickle.UnpicklingError(
                f"the pickle is corrupted or incomplete ({type(error).__name__}: {error})"
            ) from error

    def _run(self) -> Any:
        while True:
            code = self._read(1)
            if code == b".":
                return self._stack.pop()
            step = _steps.get(code)
            if step is None:
                raise pickle.UnpicklingError(f"Unsupported operand {code[0]}")
            step(self)

    # -- input

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise EOFError("Ran out of input")
        return data

    def _number(self, code: str) -> int:
        return struct.unpack(code, self._read(struct.calcsize(code)))[0]

    def _line(self) -> str:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("Ran out of input")
        return line[:-1].decode("utf-8")

    # -- numbers, text, bytes

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _protocol(self) -> None:
        protocol = self._read(1)[0]
        if protocol > pickle.HIGHEST_PROTOCOL:
            raise pickle.UnpicklingError(f"unsupported pickle protocol: {protocol}")

    def _frame(self) -> None:
        self._read(8)

    def _float(self) -> None:
        self._push(struct.unpack(">d", self._read(8))[0])

    def _long(self, code: str) -> None:
        length = self._number(code)
        if length < 0:
            raise pickle.UnpicklingError("a number has a negative length")
        self._push(pickle.decode_long(self._read(length)))

    def _text(self, code: str) -> None:
        self._push(str(self._read(self._number(code)), "utf-8", "surrogatepass"))

    def _bytes(self, code: str) -> None:
        self._push(self._read(self._number(code)))

    def _byte_string(self, code: str) -> None:
        """A string of Python 2."""
        self._push(self._read(self._number(code)).decode(self._encoding))

    # -- containers

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def _drop_mark(self) -> None:
        self._pop_mark()

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _tuple(self, length: int) -> None:
        self._stack[-length:] = [tuple(self._items(length))]

    def _items(self, length: int) -> list[Any]:
        if len(self._stack) < length:
            raise IndexError("a tuple has too few elements")
        return self._stack[-length:]

    def _marked_tuple(self) -> None:
        items = self._pop_mark()
        self._push(tuple(items))

    def _target(self, *kinds: type) -> Any:
        target = self._stack[-1]
        if type(target) not in kinds:
            names = ", ".join(kind.__name__ for kind in kinds)
            raise pickle.UnpicklingError(f"Can only add items to {names}, but got {type(target)}")
        return target

    def _append(self) -> None:
        item = self._stack.pop()
        self._target(list).append(item)

    def _extend(self) -> None:
        items = self._pop_mark()
        self._target(list).extend(items)

    def _add_items(self) -> None:
        items = self._pop_mark()
        self._target(set).update(map(checked_key, items))

    def _frozen_set(self) -> None:
        items = self._pop_mark()
        self._push(frozenset(map(checked_key, items)))

    def _set_item(self) -> None:
        value = self._stack.pop()
        key = self._stack.pop()
        self._target(*_plain_containers)[checked_key(key)] = value

    def _set_items(self) -> None:
        items = self._pop_mark()
        target = self._target(*_plain_containers)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    # -- memo

    def _get(self, code: str) -> None:
        self._push(self._memo[self._number(code)])

    def _put(self, code: str) -> None:
        self._memo[self._number(code)] = self._stack[-1]

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    # -- names and objects

    def _global(self) -> None:
        module = self._line()
        self._push(self._find(module, self._line()))

    def _stack_global(self) -> None:
        name = self._stack.pop()
        module = self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise pickle.UnpicklingError("STACK_GLOBAL requires str")
        self._push(self._find(module, name))

    def _find(self, module: str, name: str) -> Any:
        """The object of that name if files may name it; nothing is imported."""
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        path = f"{module}.{name}"
        allowed = ALLOWED.get(path) or self._users.get(path)
        if allowed is None:
            raise pickle.UnpicklingError(_unsupported_global(path))
        self._named[id(allowed.found)] = allowed
        return allowed.found

    def _allowed(self, found: Any) -> Allowed | None:
        """How `found` was allowed, if a name in this file stands for it."""
        return self._named.get(id(found))

    def _reduce(self) -> None:
        arguments = self._stack.pop()
        found = self._stack.pop()
        allowed = self._allowed(found)
        if allowed is None or allowed.call is None or type(arguments) is not tuple:
            raise pickle.UnpicklingError(f"Trying to call reduce for unrecognized function {found}")
        if found is rebuild_from_type_v2:
            self._check_nested_call(arguments)
        self._push(allowed.call(*arguments))

    def _check_nested_call(self, arguments: tuple[Any, ...]) -> None:
        """The first argument is called with the third: it must be one that may be called."""
        inner = self._allowed(arguments[0])
        is_safe = inner is not None and inner.call is arguments[0]
        if not is_safe or self._allowed(arguments[1]) is None:
            raise pickle.UnpicklingError(
                f"Trying to call reduce for unrecognized function {arguments[0]}"
            )

    def _new_object(self) -> None:
        arguments = self._stack.pop()
        kind = self._stack.pop()
        allowed = self._allowed(kind)
        if kind is Parameter and allowed is not None:
            self._push(Parameter(*arguments))
            return
        if allowed is None or not allowed.may_create or not isinstance(kind, type):
            raise pickle.UnpicklingError(
                "Can only create new object for nn.Parameter or classes allowlisted via "
                f"`add_safe_globals` but got {kind}"
            )
        self._push(kind.__new__(kind, *arguments))

    def _build(self) -> None:
        state = self._stack.pop()
        instance = self._stack[-1]
        if type(instance) is OrderedDict and type(state) is dict:
            instance.__dict__.update(state)
            return
        if type(instance) not in [allowed.found for allowed in self._users.values()]:
            raise pickle.UnpicklingError(
                "Can only build Tensor, Parameter, OrderedDict or types allowlisted via "
                f"`add_safe_globals`, but got {type(instance)}"
            )
        _set_state(instance, state)

    def _persistent_id(self) -> None:
        saved_id = self._stack.pop()
        if type(saved_id) is not tuple or not saved_id or saved_id[0] != "storage":
            raise pickle.UnpicklingError(
                f"Only persistent_load of storage is allowed, but got {saved_id!r}"
            )
        self._push(self._persistent_load(saved_id))


def _set_state(instance: Any, state: Any) -> None:
    """What pickle's BUILD does, for a class that the user has declared safe."""
    if hasattr(instance, "__setstate__"):
        instance.__setstate__(state)
        return
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        instance.__dict__.update(state)
    for name, value in (slots or {}).items():
        setattr(instance, name, value)


def _unsupported_global(path: str) -> str:
    shown = path.removeprefix("builtins.")
    return (
        f"Unsupported global: GLOBAL {shown} was not an allowed global by default. Please use "
        f"`torch.serialization.add_safe_globals([{shown}])` or the "
        f"`torch.serialization.safe_globals([{shown}])` context manager to allowlist this global "
        "if you trust this class/function."
    )


# What a damaged pickle makes ordinary Python operations raise. RuntimeError is not among them: the
# functions of `rebuild` explain themselves.
_malformed = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)

_Step = Callable[[RestrictedUnpickler], None]
_Machine = RestrictedUnpickler


def _pushing(make: Callable[[], Any]) -> _Step:
    return lambda machine: machine._push(make())


def _counted(step: Callable[[Any, Any], None], code: Any) -> _Step:
    return lambda machine: step(machine, code)


def _integer(code: str) -> _Step:
    return lambda machine: machine._push(machine._number(code))


_steps: dict[bytes, _Step] = {
    pickle.PROTO: _Machine._protocol,
    pickle.FRAME: _Machine._frame,
    pickle.NONE: _pushing(lambda: None),
    pickle.NEWTRUE: _pushing(lambda: True),
    pickle.NEWFALSE: _pushing(lambda: False),
    pickle.BININT: _integer("<i"),
    pickle.BININT1: _integer("<B"),
    pickle.BININT2: _integer("<H"),
    pickle.LONG1: _counted(_Machine._long, "<B"),
    pickle.LONG4: _counted(_Machine._long, "<i"),
    pickle.BINFLOAT: _Machine._float,
    pickle.BINUNICODE: _counted(_Machine._text, "<I"),
    pickle.SHORT_BINUNICODE: _counted(_Machine._text, "<B"),
    pickle.BINUNICODE8: _counted(_Machine._text, "<Q"),
    pickle.BINBYTES: _counted(_Machine._bytes, "<I"),
    pickle.SHORT_BINBYTES: _counted(_Machine._bytes, "<B"),
    pickle.BINBYTES8: _counted(_Machine._bytes, "<Q"),
    pickle.SHORT_BINSTRING: _counted(_Machine._byte_string, "<B"),
    pickle.BINSTRING: _counted(_Machine._byte_string, "<i"),
    pickle.EMPTY_TUPLE: _pushing(tuple),
    pickle.EMPTY_LIST: _pushing(list),
    pickle.EMPTY_DICT: _pushing(dict),
    pickle.EMPTY_SET: _pushing(set),
    pickle.MARK: _Machine._mark,
    pickle.POP: _Machine._pop,
    pickle.POP_MARK: _Machine._drop_mark,
    pickle.TUPLE: _Machine._marked_tuple,
    pickle.TUPLE1: _counted(_Machine._tuple, 1),
    pickle.TUPLE2: _counted(_Machine._tuple, 2),
    pickle.TUPLE3: _counted(_Machine._tuple, 3),
    pickle.APPEND: _Machine._append,
    pickle.APPENDS: _Machine._extend,
    pickle.ADDITEMS: _Machine._add_items,
    pickle.FROZENSET: _Machine._frozen_set,
    pickle.SETITEM: _Machine._set_item,
    pickle.SETITEMS: _Machine._set_items,
    pickle.BINGET: _counted(_Machine._get, "<B"),
    pickle.LONG_BINGET: _counted(_Machine._get, "<I"),
    pickle.BINPUT: _counted(_Machine._put, "<B"),
    pickle.LONG_BINPUT: _counted(_Machine._put, "<I"),
    pickle.MEMOIZE: _Machine._memoize,
    pickle.GLOBAL: _Machine._global,
    pickle.STACK_GLOBAL: _Machine._stack_global,
    pickle.REDUCE: _Machine._reduce,
    pickle.NEWOBJ: _Machine._new_object,
    pickle.BUILD: _Machine._build,
    pickle.BINPERSID: _Machine._persistent_id,
}
