"""Pickles in PyTorch's words: our objects by PyTorch's names, storages by reference.

Writing uses Python's own Pickler written in Python, the only one that lets a global be written
under another name than its own; reading unrestricted uses the pickle module that the caller chose.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, BinaryIO

from flambeau.core.device import device
from flambeau.core.dtype import dtype
from flambeau.core.memory_format import layout
from flambeau.serialization.names import find_torch_global, is_torch_module, torch_name
from flambeau.serialization.rebuild import (
    StorageType,
    TypedStorage,
    rebuild_layout,
    reduce_tensor,
    storage_type_of,
)
from flambeau.tensor import Tensor

PersistentId = tuple[Any, ...]
_PLAIN_TYPES = frozenset({bool, bytes, dict, float, int, list, str, tuple, type(None)})


class StorageTable:
    """The storages met while an object is pickled, each with the key it has in the file."""

    def __init__(self) -> None:
        self._keys: dict[int, str] = {}
        self._dtypes: dict[int, dtype] = {}
        # Holding the storages keeps their ids from being used again.
        self.storages: dict[str, TypedStorage] = {}

    def saved_id(self, typed: TypedStorage) -> PersistentId:
        """What the pickle says instead of the storage's contents."""
        storage = typed.storage
        identity = id(storage)
        known = self._dtypes.setdefault(identity, typed.dtype)
        if known is not typed.dtype and storage.nbytes:
            raise RuntimeError(
                "Cannot save multiple tensors or storages that view the same data as different "
                "types"
            )
        key = self._keys.setdefault(identity, str(len(self._keys)))
        self.storages[key] = typed
        numel = storage.nbytes // typed.dtype.itemsize
        return "storage", storage_type_of[typed.dtype], key, str(storage.device), numel


def pickle_object(
    obj: Any,
    stream: BinaryIO,
    pickle_module: ModuleType,
    protocol: int,
    saved_id: Callable[[TypedStorage], PersistentId],
) -> None:
    """Writes the pickle of `obj`, with storages replaced by what `saved_id` gives."""
    base = _python_pickler(pickle_module)

    class TorchPickler(base):  # type: ignore[misc, valid-type]
        dispatch = dict(base.dispatch)

        def persistent_id(self, found: Any) -> PersistentId | None:
            return saved_id(found) if type(found) is TypedStorage else None

        def reducer_override(self, found: Any) -> Any:
            if type(found) in _PLAIN_TYPES:
                return NotImplemented
            if isinstance(found, Tensor) and not _reduces_itself(found):
                return reduce_tensor(found)
            if isinstance(found, dtype):
                return found.name
            if isinstance(found, device):
                arguments = (found.type,) if found.index is None else (found.type, found.index)
                return device, arguments
            if isinstance(found, layout):
                return rebuild_layout, (repr(found),)
            if isinstance(found, StorageType):
                return found.name
            return NotImplemented

        def save_global(self, found: Any, name: str | None = None) -> None:
            translated = torch_name(found, name)
            if translated is None:
                super().save_global(found, name)
            else:
                self.save_name(found, *translated)

        def save_name(self, found: Any, module: str, name: str) -> None:
            if self.proto >= 4:
                self.save(module)
                self.save(name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
            self.memoize(found)

        def save_function(self, found: FunctionType) -> None:
            if torch_name(found) is None:
                base.dispatch[FunctionType](self, found)
            else:
                self.save_global(found)

        dispatch[FunctionType] = save_function

    TorchPickler(stream, protocol).dump(obj)


def _python_pickler(pickle_module: ModuleType) -> type:
    """The module's Pickler if it is written in Python (dill's is), else the standard one."""
    python_pickler = pickle._Pickler  # type: ignore[attr-defined]
    chosen = getattr(pickle_module, "Pickler", python_pickler)
    if isinstance(chosen, type) and issubclass(chosen, python_pickler):
        return chosen
    return python_pickler


def _reduces_itself(tensor: Tensor) -> bool:
    """Whether the tensor's class has its own way to be pickled."""
    kind = type(tensor)
    if torch_name(kind) is not None:
        return False
    return (
        kind.__reduce_ex__ is not Tensor.__reduce_ex__ or kind.__reduce__ is not Tensor.__reduce__
    )


def torch_unpickler(
    stream: Any,
    pickle_module: ModuleType,
    persistent_load: Callable[[PersistentId], Any],
    **pickle_load_args: Any,
) -> Any:
    """An unpickler of `pickle_module` that finds our objects under PyTorch's names."""

    class TorchUnpickler(pickle_module.Unpickler):  # type: ignore[name-defined, misc]
        def find_class(self, module: str, name: str) -> Any:
            if is_torch_module(module):
                return find_torch_global(module, name)
            return super().find_class(module, name)

        def persistent_load(self, saved_id: PersistentId) -> Any:
            return persistent_load(saved_id)

    return TorchUnpickler(stream, **pickle_load_args)
