"""The format before PyTorch 1.6: a row of pickles, then the storages one after another."""

from __future__ import annotations

import io
import pickle
import struct
import sys
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from flambeau.engine.storage import Storage
from flambeau.serialization.archive import read_exactly
from flambeau.serialization.location import Restore
from flambeau.serialization.pickling import (
    PersistentId,
    StorageTable,
    pickle_object,
    torch_unpickler,
)
from flambeau.serialization.rebuild import StorageType, TypedStorage
from flambeau.serialization.restricted import RestrictedUnpickler

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
TYPE_SIZES = {"short": 2, "int": 4, "long": 4}


# --------------------------------------------------------------------------- writing


def save_legacy(obj: Any, stream: BinaryIO, pickle_module: ModuleType, protocol: int) -> None:
    """Writes `obj` to `stream` in the old format."""
    system = {
        "protocol_version": PROTOCOL_VERSION,
        "little_endian": sys.byteorder == "little",
        "type_sizes": TYPE_SIZES,
    }
    for header in (MAGIC_NUMBER, PROTOCOL_VERSION, system):
        pickle.dump(header, stream, protocol=protocol)
    table = StorageTable()
    pickle_object(
        obj, stream, pickle_module, protocol, lambda typed: (*table.saved_id(typed), None)
    )
    keys = sorted(table.storages)
    pickle.dump(keys, stream, protocol=protocol)
    for key in keys:
        typed = table.storages[key]
        stream.write(struct.pack("<q", typed.storage.nbytes // typed.dtype.itemsize))
        stream.write(typed.storage.memory())


# --------------------------------------------------------------------------- reading


class _Bounded:
    """A file that never allocates more for one read than the file has left."""

    def __init__(self, file: Any) -> None:
        self._file = file
        position = file.tell()
        self.size = file.seek(0, io.SEEK_END)
        file.seek(position)

    def read(self, size: int) -> bytes:
        if size < 0 or size > self.size - self._file.tell():
            raise EOFError("Ran out of input")
        return self._file.read(size)

    def readline(self) -> bytes:
        return self._file.readline()


class _StorageReader:
    """Makes storages as the pickle names them; their bytes come after the pickle."""

    def __init__(self, limit: int, restore: Restore) -> None:
        self._left = limit
        self._restore = restore
        self._loaded: dict[str, TypedStorage] = {}
        # Storage as read, before it was moved, by key.
        self._host: dict[str, TypedStorage] = {}

    def persistent_load(self, saved_id: PersistentId) -> Any:
        """The storage, or the class, that a persistent id stands for."""
        if saved_id[0] == "module":
            return saved_id[1]
        if saved_id[0] != "storage" or len(saved_id) not in (5, 6):
            raise RuntimeError(f"Unknown saved id type: {saved_id[0]}")
        storage_type, key, location, numel = saved_id[1:5]
        if len(saved_id) == 6 and saved_id[5] is not None:
            raise RuntimeError("storages that are views of other storages are not supported")
        if not isinstance(storage_type, StorageType) or type(numel) is not int or numel < 0:
            raise pickle.UnpicklingError(f"the file names an impossible storage: {saved_id!r}")
        if key not in self._loaded:
            self._loaded[key] = self._make(storage_type, str(key), str(location), numel)
        return self._loaded[key]

    def _make(self, kind: StorageType, key: str, location: str, numel: int) -> TypedStorage:
        nbytes = numel * kind.dtype.itemsize
        self._left -= nbytes
        if self._left < 0:
            raise RuntimeError("unexpected EOF: the storages are larger than the file")
        host = Storage(nbytes)
        self._host[key] = TypedStorage(host, kind.dtype)
        return TypedStorage(self._restore(host, location), kind.dtype)

    def fill(self, file: Any, keys: list[str], is_little: bool) -> None:
        """Reads the bytes of the storages in the file's order."""
        for key in keys:
            typed = self._host.get(key)
            if typed is None:
                raise RuntimeError("the list of storages does not match the object; corrupt file?")
            count = bytearray(8)
            read_exactly(file, memoryview(count))
            (numel,) = struct.unpack("<q", count)
            if numel * typed.dtype.itemsize != typed.storage.nbytes:
                raise RuntimeError("a storage has another size than announced; corrupt file?")
            fill_storage(typed, lambda memory: read_exactly(file, memory), is_little)


def fill_storage(typed: TypedStorage, read: Any, is_little: bool) -> None:
    """Lets `read` fill the storage's memory, then brings its bytes into this machine's order."""
    if not typed.storage.nbytes:
        return
    memory = typed.storage.memory()
    read(memory)
    if is_little != (sys.byteorder == "little"):
        np.frombuffer(memory, dtype=typed.dtype.numpy).byteswap(inplace=True)


def load_legacy(
    file: Any,
    restore: Restore,
    pickle_module: ModuleType | None,
    pickle_load_args: dict[str, Any],
) -> Any:
    """Reads an object from `file`'s position; unrestricted if a pickle module is given."""
    bounded = _Bounded(file)
    is_little = _read_header(bounded)
    reader = _StorageReader(bounded.size, restore)
    if pickle_module is None:
        obj = RestrictedUnpickler(bounded, reader.persistent_load).load()
    else:
        obj = torch_unpickler(
            file, pickle_module, reader.persistent_load, **pickle_load_args
        ).load()
    reader.fill(file, _read_plain(bounded), is_little)
    return obj


def _read_header(bounded: _Bounded) -> bool:
    """Checks the three pickles at the head; returns whether the bytes are little-endian."""
    if _read_plain(bounded) != MAGIC_NUMBER:
        raise RuntimeError("Invalid magic number; corrupt file?")
    version = _read_plain(bounded)
    if version != PROTOCOL_VERSION:
        raise RuntimeError(f"Invalid protocol version: {version}")
    system = _read_plain(bounded)
    return bool(system.get("little_endian", True)) if isinstance(system, dict) else True


def _read_plain(bounded: _Bounded) -> Any:
    return RestrictedUnpickler(bounded, _no_storage).load()


def _no_storage(saved_id: PersistentId) -> Any:
    raise pickle.UnpicklingError("a storage where none belongs")
