"""``torch.load``: an object from an archive of PyTorch's format."""

from __future__ import annotations

import contextlib
import io
import mmap as memory_map
import os
import pickle
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from flambeau.engine.storage import Storage
from flambeau.serialization.archive import ArchiveReader
from flambeau.serialization.legacy import fill_storage, load_legacy
from flambeau.serialization.location import MapLocation, Restore, restore_by, skips_bytes
from flambeau.serialization.pickling import PersistentId, torch_unpickler
from flambeau.serialization.rebuild import StorageType, TypedStorage
from flambeau.serialization.restricted import RestrictedUnpickler

_PathLike = str | os.PathLike[str]
_NOT_SEEKABLE = (
    "You can only torch.load from a file that is seekable. Please pre-load the data into a buffer "
    "like io.BytesIO and try to load from it instead."
)


def load(
    f: _PathLike | BinaryIO,
    map_location: MapLocation = None,
    pickle_module: ModuleType | None = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Reads an object that `save`, here or in PyTorch, has written.

    Args:
        f: a path, or an object with ``read``, ``readline``, ``seek`` and ``tell``
        map_location: where storages go: None (where they were), a device, a dict from location to
            location, or a function of the storage and its location
        pickle_module: the module whose unpickler is used; only with ``weights_only=False``
        weights_only: True (the default) builds tensors and plain data and runs nothing that is not
            known to be harmless; False runs whatever the file says
        mmap: leaves the storages in the file, which is mapped into memory copy-on-write
        pickle_load_args: passed to the unpickler with ``weights_only=False``
    """
    if weights_only is None:
        weights_only = pickle_module is None
    if weights_only and pickle_module is not None:
        raise RuntimeError("Can not safely load weights when explicit pickle_module is specified")
    if weights_only and pickle_load_args:
        warnings.warn("pickle_load_args only works if `weights_only=False`.", stacklevel=2)
    if not weights_only:
        pickle_module = pickle_module or pickle
        pickle_load_args = {"encoding": "utf-8", **pickle_load_args}
    source = _Source(f if isinstance(f, str | os.PathLike) else None, bool(mmap))
    if mmap and source.path is None:
        raise ValueError("f must be a file path in order to use the mmap argument")
    with _opened_for_reading(f) as file:
        try:
            return _load_from(file, source, map_location, pickle_module, pickle_load_args)
        except pickle.UnpicklingError as error:
            if not weights_only:
                raise
            raise pickle.UnpicklingError(_explanation(str(error))) from None


@dataclass(frozen=True)
class _Source:
    """Where a file object came from, and whether to map it."""

    path: _PathLike | None
    is_mapped: bool


@contextlib.contextmanager
def _opened_for_reading(f: _PathLike | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(f, str | os.PathLike):
        with open(f, "rb") as file:
            yield file
        return
    for attribute in ("read", "readline", "seek", "tell"):
        if not hasattr(f, attribute):
            raise AttributeError(
                f"'{type(f).__name__}' object has no attribute '{attribute}'. {_NOT_SEEKABLE}"
            )
    try:
        f.seek(f.tell())
    except io.UnsupportedOperation as error:
        raise io.UnsupportedOperation(f"{error}. {_NOT_SEEKABLE}") from error
    yield f


def _load_from(
    file: Any,
    source: _Source,
    map_location: MapLocation,
    pickle_module: ModuleType | None,
    pickle_load_args: dict[str, Any],
) -> Any:
    position = file.tell()
    magic = file.read(4)
    file.seek(position)
    if not magic:
        raise EOFError("Ran out of input")
    if magic == b"PK\x03\x04":
        return _load_archive(file, source, map_location, pickle_module, pickle_load_args)
    if source.is_mapped:
        raise RuntimeError(
            "mmap can only be used with files saved with "
            "`torch.save(_use_new_zipfile_serialization=True)`, please torch.save your checkpoint "
            "with this option in order to use mmap."
        )
    return load_legacy(file, restore_by(map_location), pickle_module, pickle_load_args)


def _load_archive(
    file: Any,
    source: _Source,
    map_location: MapLocation,
    pickle_module: ModuleType | None,
    pickle_load_args: dict[str, Any],
) -> Any:
    archive = ArchiveReader(file, file.tell())
    if "constants.pkl" in archive:
        raise RuntimeError(
            "this file is a TorchScript archive, which torch.jit.load would read; "
            "save the module's state_dict with torch.save instead"
        )
    reader: _StorageReader
    if source.is_mapped and source.path is not None:
        reader = _MappedReader(archive, map_location, source.path)
    else:
        reader = _StorageReader(archive, map_location)
    text = io.BytesIO(archive.read("data.pkl"))
    if pickle_module is None:
        return RestrictedUnpickler(text, reader.persistent_load).load()
    return torch_unpickler(text, pickle_module, reader.persistent_load, **pickle_load_args).load()


class _StorageReader:
    """Makes the storages that a pickle names, each once, from the records of an archive."""

    def __init__(self, archive: ArchiveReader, map_location: MapLocation) -> None:
        self._archive = archive
        self._restore: Restore = restore_by(map_location)
        self._skips_bytes = skips_bytes(map_location)
        self._loaded: dict[str, TypedStorage] = {}
        self._is_little = _is_little_endian(archive)

    def persistent_load(self, saved_id: PersistentId) -> TypedStorage:
        """The storage that a persistent id stands for."""
        if len(saved_id) != 5 or saved_id[0] != "storage":
            raise RuntimeError(
                f"Unknown typename for persistent_load, expected 'storage' but got '{saved_id[0]}'"
            )
        _, kind, key, location, numel = saved_id
        if not isinstance(kind, StorageType) or type(numel) is not int or numel < 0:
            raise pickle.UnpicklingError(f"the file names an impossible storage: {saved_id!r}")
        if key not in self._loaded:
            storage = self._read(kind, str(key), numel)
            restored = self._restore(storage, str(location))
            self._loaded[key] = TypedStorage(restored, kind.dtype)
        return self._loaded[key]

    def _read(self, kind: StorageType, key: str, numel: int) -> Storage:
        nbytes = numel * kind.dtype.itemsize
        if self._skips_bytes:
            return Storage(nbytes)
        record = self._archive.record(f"data/{key}")
        if record.size != nbytes:
            raise RuntimeError(
                f"storage {key} has {record.size} bytes in the file instead of {nbytes}; "
                "the file is corrupted"
            )
        storage = Storage(nbytes)
        fill_storage(
            TypedStorage(storage, kind.dtype),
            lambda memory: self._archive.read_into(record, memory),
            self._is_little,
        )
        return storage


class _MappedReader(_StorageReader):
    """Leaves the bytes in the file; a write to a tensor copies the page it touches."""

    def __init__(self, archive: ArchiveReader, map_location: MapLocation, path: _PathLike) -> None:
        super().__init__(archive, map_location)
        if self._is_little != (sys.byteorder == "little"):
            raise RuntimeError("mmap=True needs a file in this machine's byte order")
        with open(path, "rb") as file:
            mapped = memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_COPY)
        self._bytes = np.frombuffer(mapped, dtype=np.uint8)

    def _read(self, kind: StorageType, key: str, numel: int) -> Storage:
        nbytes = numel * kind.dtype.itemsize
        record = self._archive.record(f"data/{key}")
        begin = self._archive.data_offset(record)
        if record.size != nbytes or record.is_deflated or begin + nbytes > self._bytes.size:
            raise RuntimeError(f"storage {key} does not lie in the file as announced")
        part = self._bytes[begin : begin + nbytes]
        if not nbytes or part.ctypes.data % kind.dtype.itemsize:
            # A file from elsewhere may hold its storages at odd addresses.
            return super()._read(kind, key, numel)
        return Storage.from_owner(part, part.ctypes.data, nbytes)


def _is_little_endian(archive: ArchiveReader) -> bool:
    order = archive.read("byteorder") if "byteorder" in archive else b"little"
    if order not in (b"little", b"big"):
        raise ValueError(f"Unknown endianness type: {order.decode('ascii', 'replace')}")
    return order == b"little"


def _explanation(message: str) -> str:
    """What a user can do about a file that the restricted unpickler refuses."""
    return (
        "Weights only load failed. By default (`weights_only=True`) torch.load builds tensors and "
        "plain data only. If, and only if, you trust the source of this file, either re-run "
        "torch.load with `weights_only=False`, which can execute arbitrary code, or allow what is "
        f"named here.\n\tWeightsUnpickler error: {message}"
    )
