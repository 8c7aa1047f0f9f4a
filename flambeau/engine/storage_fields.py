"""The fields of a storage, in a class that the accelerator can compile; see `flambeau.fields`."""

from __future__ import annotations

from typing import Any

from flambeau.core.device import device

Place = device


class StorageFields:
    """See `flambeau.engine.storage.Storage`."""

    __slots__ = ("block", "device", "exports", "nbytes", "slot", "tape", "version")
    nbytes: int
    device: Place
    block: Any
    tape: Any
    slot: int
    version: int
    exports: int


# A storage without values, for code that then sets every field.
new_storage: Any = StorageFields.__new__
