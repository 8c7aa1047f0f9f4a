"""How objects travel between the loading process and its workers.

A `Channel` sends one pickled object as one packet of a Unix socket.  The bytes of tensors and
numpy arrays do not go through the socket: the sender writes them once into an anonymous memory
file, whose descriptor travels with the packet, and the receiver's tensors lie in that file.  It
has no name and no other keeper, so nothing is left behind when either process dies.
"""

import contextlib
import ctypes
import io
import mmap
import os
import pickle
import socket
import struct
import weakref
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout
from flambeau.engine.storage import Storage
from flambeau.tensor import Tensor

_INLINE = b"\0"
_IN_FILE = b"\1"
# A packet stays far below the least buffer of a socket, so that many wait there unread.
_PACKET_LIMIT = 8192
# Buffers below this size go into the pickle itself.
_SMALL_BUFFER = 1024
_ALIGNMENT = 64
_HEADER = struct.Struct("<QQ")
_LENGTH = struct.Struct("<Q")
_ANCILLARY_SIZE = socket.CMSG_SPACE(struct.calcsize("i"))

_loader_ends: "weakref.WeakSet[Channel]" = weakref.WeakSet()


class Channel:
    """One end of a two-way connection; `receive` raises EOFError when the other end is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    @staticmethod
    def pair() -> "tuple[Channel, socket.socket]":
        """The loader's end, and the socket to hand to a worker."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel = Channel(ours)
        _loader_ends.add(channel)
        return channel, theirs

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def send(self, message: object) -> None:
        """Hand over ``message``; raises what pickling raises, or BrokenPipeError."""
        # Held until all is written: the buffers are views of storages that `kept` keeps.
        kept, data, buffers = _dump(message)
        if not buffers and len(data) < _PACKET_LIMIT:
            self.socket.sendmsg([_INLINE, data])
            return
        descriptor = os.memfd_create("flambeau-batch", os.MFD_CLOEXEC)
        try:
            parts = [memoryview(data), *buffers]
            size = _write_parts(descriptor, parts)
            header = _IN_FILE + _HEADER.pack(size, len(parts))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
            self.socket.sendmsg([header], rights)
        finally:
            os.close(descriptor)
            kept.clear()

    def receive(self) -> Any:
        """The next message, waiting for it."""
        try:
            packet, ancillary, flags, _ = self.socket.recvmsg(
                _PACKET_LIMIT + 1, _ANCILLARY_SIZE, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            raise EOFError from None
        if not packet:
            raise EOFError
        if packet[:1] == _INLINE:
            return pickle.loads(memoryview(packet)[1:])
        if flags & socket.MSG_CTRUNC or not ancillary:
            raise RuntimeError(
                "Too many open files. Communication with the workers is no longer possible. "
                "Please increase the limit using `ulimit -n` in the shell"
            )
        size, count = _HEADER.unpack(packet[1:])
        (descriptor,) = struct.unpack("i", ancillary[0][2])
        try:
            parts = _read_parts(descriptor, size, count)
        finally:
            os.close(descriptor)
        return pickle.loads(parts[0], buffers=parts[1:])


def _close_loader_ends() -> None:
    """In a forked child: a worker must see the end of file when the loader goes away."""
    for channel in list(_loader_ends):
        with contextlib.suppress(OSError):
            channel.close()
    _loader_ends.clear()


os.register_at_fork(after_in_child=_close_loader_ends)


def _dump(message: object) -> tuple[list[Tensor], bytes, list[memoryview]]:
    """The pickle of ``message`` and the large buffers that it refers to, after their keepers."""
    buffers: list[memoryview] = []

    def keep_small_inside(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < _SMALL_BUFFER:
            return True
        buffers.append(view)
        return False

    file = io.BytesIO()
    pickler = _MessagePickler(file, 5, buffer_callback=keep_small_inside)
    pickler.dump(message)
    return pickler.kept, file.getvalue(), buffers


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _write_parts(descriptor: int, parts: Sequence[memoryview]) -> int:
    """Write the table of lengths and the parts behind it; returns the size of the file."""
    table = b"".join(_LENGTH.pack(part.nbytes) for part in parts)
    offset = 0
    for part in [memoryview(table), *parts]:
        _write_all(descriptor, part, offset)
        offset += _aligned(part.nbytes)
    os.ftruncate(descriptor, offset)
    return offset


def _write_all(descriptor: int, part: memoryview, offset: int) -> None:
    # Writing fills the file's fresh pages faster than a mapping, which faults on each of them.
    while part.nbytes:
        written = os.pwrite(descriptor, part, offset)
        part = part[written:]
        offset += written


def _read_parts(descriptor: int, size: int, count: int) -> list[memoryview]:
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    whole = memoryview(mmap.mmap(descriptor, size, flags=flags))
    parts = []
    offset = _aligned(count * _LENGTH.size)
    for (length,) in _LENGTH.iter_unpack(whole[: count * _LENGTH.size]):
        parts.append(whole[offset : offset + length])
        offset += _aligned(length)
    return parts


class _MessagePickler(pickle.Pickler):
    """Pickles tensors as buffers, and handles and the like as multiprocessing does."""

    dispatch_table = ForkingPickler(io.BytesIO()).dispatch_table

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: list[Tensor] = []

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not Tensor:
            return NotImplemented
        dense = _contiguous(value)
        self.kept.append(dense)
        return _rebuild_tensor, (pickle.PickleBuffer(_bytes_of(dense)), *_description(value))


def _contiguous(value: Tensor) -> Tensor:
    if value.requires_grad and not value.is_leaf:
        raise RuntimeError(
            "Cowardly refusing to serialize non-leaf tensor which requires_grad, since autograd "
            "does not support crossing process boundaries.  If you just want to transfer the "
            "data, call detach() on the tensor before serializing (e.g., putting it on the queue)."
        )
    return value.detach().contiguous()


def _bytes_of(dense: Tensor) -> memoryview:
    """The memory of a contiguous tensor, valid while the tensor lives."""
    start = dense.storage_offset() * dense.element_size()
    return dense._storage.memory()[start : start + dense.nbytes]


def _description(value: Tensor) -> tuple[tuple[int, ...], dtype, bool]:
    return tuple(value.shape), value.dtype, value.requires_grad


def _rebuild_tensor(
    data: memoryview | bytearray, shape: tuple[int, ...], kind: dtype, requires_grad: bool
) -> Tensor:
    """A tensor in the memory of ``data``, which nobody else keeps."""
    size = memoryview(data).nbytes
    if size:
        owner = (ctypes.c_ubyte * size).from_buffer(data)
        storage = Storage.from_owner(owner, ctypes.addressof(owner), size)
    else:
        storage = Storage(0)
    tensor = Tensor._from_storage(storage, Layout.of(shape, kind))
    return tensor.requires_grad_() if requires_grad else tensor


def _reduce_tensor(value: Tensor) -> Any:
    dense = _contiguous(value)
    return _rebuild_tensor, (bytearray(_bytes_of(dense)), *_description(value))


# Arguments of a worker that is spawned, not forked, go through multiprocessing's own pickler.
ForkingPickler.register(Tensor, _reduce_tensor)
