"""Storage: the memory behind tensors, which may not exist yet.

A storage whose contents are still being recorded has a ``slot`` on a tape and no memory; it gets a
block when a plan writes it.  One that the outside can see (a living numpy array, a DLPack capsule)
is *exported* for as long as it can be seen, and everything that touches it runs at once.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

from flambeau.backend.allocator import Block, ExternalBlock
from flambeau.core.device import CPU, device
from flambeau.engine.runtime import backend
from flambeau.engine.storage_fields import StorageFields
from flambeau.engine.watch import ever, watch

if TYPE_CHECKING:
    pass


class Storage(StorageFields):
    """One allocation.

    ``slot`` is its number on ``tape`` while calls on it are pending (-1 otherwise), ``version``
    counts in-place writes, ``exports`` counts the outside views that we handed out.
    """

    __slots__ = ("__weakref__",)

    def __init__(self, nbytes: int, device: device = CPU) -> None:
        self.nbytes = nbytes
        self.device = device
        self.block = None
        self.tape = None
        self.slot = -1
        self.version = 0
        self.exports = 0
        if ever.listened and watch.capture is not None:
            watch.capture.made(self)

    @staticmethod
    def from_owner(owner: Any, address: int, nbytes: int) -> Storage:
        """A storage over memory that ``owner`` keeps alive; exported while others hold the
        owner.
        """
        storage = Storage(nbytes)
        if ever.listened and watch.capture is not None:
            watch.capture.touched()
        storage.block = ExternalBlock(address, nbytes, owner)
        return storage

    def is_exported(self) -> bool:
        """Whether somebody outside can read or write these bytes now."""
        if self.exports:
            return True
        block = self.block
        return isinstance(block, ExternalBlock) and sys.getrefcount(block.owner) > _UNSHARED

    @property
    def resizable(self) -> bool:
        """Whether the memory is our own to give up."""
        return not isinstance(self.block, ExternalBlock)

    def ready(self) -> int:
        """Completes pending work, makes the memory exist and returns its address."""
        if ever.listened and watch.capture is not None:
            watch.capture.touched()
        tape = self.tape
        if tape is not None:
            tape.flush()
        block: Block | None = self.block
        if block is None:
            block = self.allocate()
        return block.address

    def allocate(self) -> Block:
        """Gives the storage memory of its size, contents undefined."""
        block = self.block = backend.allocate(self.nbytes)
        return block

    def memory(self) -> memoryview:
        """The bytes, writable and shared; valid only while the storage lives."""
        address = self.ready()
        if not self.nbytes:
            return memoryview(bytearray())
        return memoryview((ctypes.c_ubyte * self.nbytes).from_address(address)).cast("B")

    def resize(self, nbytes: int) -> None:
        """Changes the size, keeping the common prefix of the contents."""
        if not self.resizable:
            raise RuntimeError("Trying to resize storage that is not resizable")
        address = self.ready()
        kept, old = self.block, min(self.nbytes, nbytes)
        self.nbytes = nbytes
        if old:
            ctypes.memmove(self.allocate().address, address, old)
        else:
            self.block = None
        del kept

    def __repr__(self) -> str:
        state = f"pending in slot {self.slot}" if self.tape is not None else "ready"
        return f"<Storage {self.nbytes} bytes on {self.device}, {state}, version {self.version}>"


# What `getrefcount` says of an owner that only its block refers to.
_lone = ExternalBlock(0, 0, object())
_UNSHARED = sys.getrefcount(_lone.owner)
