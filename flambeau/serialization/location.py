"""``map_location``: on which device a loaded storage ends up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flambeau.core.device import META, device
from flambeau.engine.storage import Storage

MapLocation = Callable[[Storage, str], Any] | Mapping[str, str] | str | device | None
Restore = Callable[[Storage, str], Storage]


def restore_by(map_location: MapLocation) -> Restore:
    """What to do with a storage that was just read, given the location its file names."""
    if map_location is None:
        return default_restore
    if isinstance(map_location, Mapping):
        names = map_location
        return lambda storage, location: default_restore(
            storage, str(names.get(location, location))
        )
    if isinstance(map_location, str | bytes | device):
        fixed = device(_text(map_location))
        return lambda storage, location: default_restore(storage, str(fixed))
    if not callable(map_location):
        raise TypeError(
            "map_location must be None, a function, a device, a str or a dict, got "
            f"{type(map_location).__name__}"
        )
    function = map_location

    def restore(storage: Storage, location: str) -> Storage:
        moved = function(storage, location)
        return default_restore(storage, location) if moved is None else moved

    return restore


def skips_bytes(map_location: MapLocation) -> bool:
    """Whether no storage needs its bytes, because all go to the meta device."""
    return isinstance(map_location, str | device) and str(map_location) == "meta"


def default_restore(storage: Storage, location: str) -> Storage:
    """Puts a storage where its file says it was."""
    kind = location.partition(":")[0]
    if kind == "cpu":
        return storage
    if kind == "meta":
        return Storage(storage.nbytes, META)
    if kind == "cuda":
        raise RuntimeError(
            "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is "
            "False. If you are running on a CPU-only machine, please use torch.load with "
            "map_location=torch.device('cpu') to map your storages to the CPU."
        )
    raise RuntimeError(
        "don't know how to restore data location of torch.storage.UntypedStorage "
        f"(tagged with {location})"
    )


def _text(name: str | bytes | device) -> str:
    return name.decode("ascii") if isinstance(name, bytes) else str(name)
