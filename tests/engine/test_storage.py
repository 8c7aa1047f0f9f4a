"""Storages: when memory exists, and what the outside can see (invariant I6)."""

from __future__ import annotations

import ctypes
import gc

import numpy as np
import pytest

import flambeau as torch
from flambeau.engine.storage import Storage
from flambeau.engine.tape import thread


def is_pending(x: torch.Tensor) -> bool:
    return x._storage.tape is not None


def test_memory_comes_with_the_first_look():
    storage = Storage(40)
    assert storage.block is None
    address = storage.ready()
    assert address % 64 == 0 and storage.ready() == address
    storage.memory()[:4] = b"abcd"
    assert bytes(storage.memory()[:4]) == b"abcd"
    assert len(storage.memory()) == 40


def test_an_empty_storage_has_an_address_and_no_bytes():
    storage = Storage(0)
    assert len(storage.memory()) == 0


def test_a_result_nobody_keeps_gets_no_memory():
    x = torch.ones(100)
    thread.tape.flush()
    y = x + 1.0
    inner = y._storage
    z = (y * 2.0).sum()
    del y
    assert z.item() == 400.0
    assert inner.block is not None  # this test still held it
    y = x + 1.0
    slots = thread.tape.slots
    z = (y * 2.0).sum()
    del y
    storages = list(slots)
    assert sum(s.block is None for s in storages) == 3
    del storages
    assert z.item() == 400.0


def test_what_a_living_array_shows_runs_at_once():
    x = torch.zeros(8)
    array = x.numpy()
    y = x + 1.0
    assert not is_pending(y) and not is_pending(x)
    x.add_(2.0)
    assert array.tolist() == [2.0] * 8
    array[:] = 5.0
    assert (x * 2.0).tolist() == [10.0] * 8
    assert y.tolist() == [1.0] * 8
    del array
    gc.collect()
    z = x + 1.0
    assert is_pending(z)
    assert z.tolist() == [6.0] * 8


def test_a_borrowed_array_is_exported_while_somebody_else_holds_it():
    array = np.zeros(6, np.float32)
    x = torch.from_numpy(array)
    y = x + 1.0
    assert not is_pending(y)
    array += 3.0
    assert x.tolist() == [3.0] * 6 and y.tolist() == [1.0] * 6
    x.mul_(2.0)
    assert array.tolist() == [6.0] * 6
    del array
    assert is_pending(x + 1.0)
    assert (x + 1.0).tolist() == [7.0] * 6


def test_a_view_of_exported_memory_is_exported():
    x = torch.zeros(4, 4)
    array = x[1:].numpy()
    assert not is_pending(x + 1.0)
    array[0] = 7.0
    assert x[1].tolist() == [7.0] * 4
    del array
    assert is_pending(x + 1.0)


def test_data_ptr_completes_and_does_not_export():
    x = torch.ones(5) + 1.0
    address = x.data_ptr()
    assert not is_pending(x)
    assert (ctypes.c_float * 5).from_address(address)[:] == [2.0] * 5
    x += 1.0
    assert is_pending(x)
    assert x.data_ptr() == address
    assert (ctypes.c_float * 5).from_address(address)[:] == [3.0] * 5


def test_resizing_keeps_what_fits():
    x = torch.arange(6).float()
    storage = x._storage
    storage.resize(40)
    assert storage.nbytes == 40
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    storage.resize(8)
    assert x[:2].tolist() == [0.0, 1.0]


def test_borrowed_memory_cannot_be_resized():
    x = torch.from_numpy(np.zeros(3, np.float32))
    assert not x._storage.resizable
    with pytest.raises(RuntimeError, match="not resizable"):
        x._storage.resize(100)


def test_text():
    x = torch.ones(3)
    assert "pending in slot" in repr(x._storage)
    x.tolist()
    assert repr(x._storage) == "<Storage 12 bytes on cpu, ready, version 0>"
