"""Checksums of long files at the speed of memory."""

from __future__ import annotations

import ctypes
import functools
import zlib
from collections.abc import Callable

import numpy as np

from flambeau.compiler.checksum import FUNCTION, block_bytes, fold_source
from flambeau.compiler.jit import CompileError, compile_module
from flambeau.compiler.target import host

# Code for this processor may have to be generated first: short files do without.
_WORTH_COMPILING = 8 << 20
_SHORT = 1 << 14
_PRESET = 0xFFFFFFFF

Fold = Callable[[int, int, int], None]


class Checksum:
    """Takes CRC-32 of one file's records, as ``zlib.crc32`` does."""

    def __init__(self) -> None:
        self._seen = 0

    def crc32(self, data: bytes | memoryview, crc: int = 0) -> int:
        """The checksum of what had ``crc`` and of ``data`` after it."""
        size = len(data)
        self._seen += size
        if size >= _SHORT and self._seen > _WORTH_COMPILING:
            fold = _fold()
            if fold is not None:
                return _folded(fold, data, crc)
        return zlib.crc32(data, crc)


def _folded(fold: Fold, data: bytes | memoryview, crc: int) -> int:
    """All whole blocks are folded into one, which zlib sums up with what is left over."""
    array = np.frombuffer(data, np.uint8)
    size = block_bytes(host())
    blocks = array.size // size
    state = array[:size].copy()
    # What came before is as good as added to the first bytes.
    state[:4] ^= np.frombuffer((crc ^ _PRESET).to_bytes(4, "little"), np.uint8)
    words = (ctypes.c_void_p * 2)(array.ctypes.data + size, state.ctypes.data)
    fold(ctypes.addressof(words), 0, blocks - 1)
    return zlib.crc32(array[blocks * size :], zlib.crc32(state, _PRESET))


@functools.cache
def _fold() -> Fold | None:
    """The generated function; None where the processor or the compiler cannot help."""
    target = host()
    if not block_bytes(target):
        return None
    try:
        found = compile_module("checksum", lambda: fold_source(target), [FUNCTION])
    except CompileError:
        return None
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    return kind(found[FUNCTION])
