"""What a file may name when it is read without trust, and what calling it does.

Names are looked up here and among the globals that the user has declared safe, never imported.
Several stand for a stricter function than PyTorch's, one that cannot be talked into allocating more
memory than the file has.
"""

from __future__ import annotations

import _codecs
import contextlib
import pickle
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from flambeau.core.layout import Size
from flambeau.serialization.names import fixed_names, torch_name
from flambeau.tensor import Tensor

# Elements in a key of a dict or set, nested ones included.
_LARGEST_KEY = 10_000


@dataclass(frozen=True)
class Allowed:
    """A global that files may name; `call` is what REDUCE does with it, None if it may not."""

    found: Any
    call: Callable[..., Any] | None = None
    may_create: bool = False


def _bytes_from_text(text: str, encoding: str = "latin1") -> bytes:
    """What pickle protocol 2 calls for `bytes`."""
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise pickle.UnpicklingError(f"Unsupported encoding {encoding!r} of bytes")
    return text.encode(encoding)


def _bytearray_from_data(*arguments: Any) -> bytearray:
    """`bytearray` without the form that allocates as many bytes as the file likes."""
    if not arguments:
        return bytearray()
    if isinstance(arguments[0], str):
        return bytearray(_bytes_from_text(*arguments))
    if not isinstance(arguments[0], bytes | bytearray):
        raise pickle.UnpicklingError("bytearray can only be made from bytes")
    return bytearray(arguments[0])


def _size_from_numbers(numbers: Iterable[int] = ()) -> Size:
    numbers = tuple(numbers)
    if any(type(number) is not int for number in numbers):
        raise pickle.UnpicklingError("torch.Size() takes an iterable of 'int'")
    return Size(numbers)


def _set_from_items(items: Iterable[Any] = ()) -> set[Any]:
    return set(map(checked_key, items))


def _ordered_dict_from_pairs(pairs: Iterable[Any] = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((checked_key(key), value) for key, value in pairs)


def _counter_from_counts(counts: Any = ()) -> Counter[Any]:
    return Counter(counts if isinstance(counts, dict) else map(checked_key, counts))


def checked_key(key: Any) -> Any:
    """`key`, unless hashing it would take ages or overflow the stack: nested tuples can do both."""
    pending = [key]
    visited = 0
    while pending:
        part = pending.pop()
        if isinstance(part, tuple | frozenset):
            visited += len(part) + 1
            pending.extend(part)
        if visited > _LARGEST_KEY:
            raise pickle.UnpicklingError("a key of a dict or set is too large")
    return key


def _default_globals() -> dict[str, Allowed]:
    allowed = {
        "collections.OrderedDict": Allowed(OrderedDict, _ordered_dict_from_pairs, may_create=True),
        "collections.Counter": Allowed(Counter, _counter_from_counts, may_create=True),
        "_codecs.encode": Allowed(_codecs.encode, _bytes_from_text),
        "builtins.bytearray": Allowed(bytearray, _bytearray_from_data),
        "builtins.set": Allowed(set, _set_from_items),
        "builtins.complex": Allowed(complex, complex),
    }
    for (module, name), found in fixed_names.items():
        allowed[f"{module}.{name}"] = Allowed(found, _call_of(found))
    return allowed


def _call_of(found: Any) -> Callable[..., Any] | None:
    """What calling one of our own names does; classes and constants are named only."""
    special = {Tensor: None, Size: _size_from_numbers}
    if isinstance(found, type) and found in special:
        return special[found]
    return found if callable(found) else None


ALLOWED = _default_globals()


class SafeGlobals:
    """The globals that the user has declared safe, for the whole process."""

    def __init__(self) -> None:
        self._globals: list[Any] = []
        self._lock = threading.Lock()

    def add(self, found: Iterable[Any]) -> None:
        with self._lock:
            self._globals = [*self._globals, *(one for one in found if one not in self._globals)]

    def remove(self, found: Iterable[Any]) -> None:
        removed = list(found)
        with self._lock:
            self._globals = [one for one in self._globals if one not in removed]

    def clear(self) -> None:
        with self._lock:
            self._globals = []

    def listed(self) -> list[Any]:
        return list(self._globals)

    def by_name(self) -> dict[str, Allowed]:
        """The same by the names that files use."""
        return dict(_named(one) for one in self._globals)


def _named(found: Any) -> tuple[str, Allowed]:
    if isinstance(found, tuple):
        if len(found) != 2 or not isinstance(found[1], str):
            raise ValueError(
                f"Expected tuple of size 2 (global, str of callable full path), but got {found}"
            )
        name = found[1]
        found = found[0]
    else:
        module, qualname = torch_name(found) or (found.__module__, found.__qualname__)
        name = f"{module}.{qualname}"
    return name, Allowed(found, found if callable(found) else None, may_create=True)


safe = SafeGlobals()


def add_safe_globals(safe_globals: list[Any]) -> None:
    """Declares classes and functions as safe for ``load(weights_only=True)``.

    An entry may be a tuple of the object and the name that files use for it.
    """
    safe.add(safe_globals)


def get_safe_globals() -> list[Any]:
    """Returns what `add_safe_globals` has declared."""
    return safe.listed()


def clear_safe_globals() -> None:
    """Forgets what `add_safe_globals` has declared."""
    safe.clear()


@contextlib.contextmanager
def safe_globals(safe_globals: Iterable[Any]) -> Iterator[None]:
    """Declares globals as safe for the length of a ``with`` block."""
    added = [found for found in safe_globals if found not in safe.listed()]
    safe.add(added)
    try:
        yield
    finally:
        safe.remove(added)
