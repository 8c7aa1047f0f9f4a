"""Folded checksums against zlib's."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from flambeau.compiler import checksum
from flambeau.compiler.target import Target, host
from flambeau.serialization.checksum import _WORTH_COMPILING, Checksum, _fold, _folded


@pytest.mark.parametrize("start", [0, 1, 0xDEADBEEF, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [512, 1000, 4096, 100_001])
def test_folded_sums(size, start):
    fold = _fold()
    if fold is None:
        pytest.skip("no carry-less multiplication here")
    data = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    assert _folded(fold, memoryview(data), start) == zlib.crc32(data, start)


def test_long_files():
    data = bytes(range(256)) * 8192
    checksum, crc, expected = Checksum(), 0, 0
    for _ in range(_WORTH_COMPILING // len(data) + 2):
        crc, expected = checksum.crc32(data, crc), zlib.crc32(data, expected)
        assert crc == expected


def test_targets_without_the_instruction_have_no_blocks():
    plain = Target("scalar", "x86_64-unknown-linux-gnu", "x86-64", frozenset(), "", 32)
    assert checksum.block_bytes(plain) == 0
    assert checksum.block_bytes(host()) in (0, 64, 128, 256)
