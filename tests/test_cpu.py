"""``torch.cpu``: what its memory is used for, under the names of ``torch.cuda``."""

from __future__ import annotations

import pytest

import flambeau as torch
from flambeau.core.config import config

MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def counted_from_here():
    torch.cpu.reset_peak_memory_stats()


def test_living_tensors_are_counted():
    before = torch.cpu.memory_allocated()
    x = torch.ones(4 * MEGABYTE)
    assert torch.cpu.memory_allocated() - before == 16 * MEGABYTE
    del x
    assert torch.cpu.memory_allocated() == before


def test_peaks_are_those_since_the_reset():
    before = torch.cpu.memory_allocated()
    x = torch.ones(4 * MEGABYTE)
    torch.cpu.synchronize()
    del x
    assert torch.cpu.max_memory_allocated() - before >= 16 * MEGABYTE
    torch.cpu.reset_peak_memory_stats()
    assert torch.cpu.max_memory_allocated() - before < 16 * MEGABYTE
    y = torch.ones(4 * MEGABYTE)
    torch.cpu.synchronize()
    assert torch.cpu.max_memory_allocated() - before >= 16 * MEGABYTE
    del y


@pytest.mark.skipif(config.debug_alloc, reason="nothing is kept there")
def test_idle_memory_is_kept_until_it_is_given_back():
    x = torch.ones(4 * MEGABYTE)
    torch.cpu.synchronize()
    del x
    reserved = torch.cpu.memory_reserved()
    assert reserved >= torch.cpu.memory_allocated() + 16 * MEGABYTE
    torch.cpu.empty_cache()
    assert torch.cpu.memory_reserved() <= reserved - 16 * MEGABYTE
    assert torch.cpu.max_memory_reserved() >= reserved


def test_the_dictionary_and_the_table_agree():
    x = torch.ones(MEGABYTE)
    found = torch.cpu.memory_stats()
    assert found["allocated_bytes.all.current"] == torch.cpu.memory_allocated()
    assert found["reserved_bytes.all.peak"] >= found["reserved_bytes.all.current"]
    megabytes = f"{found['allocated_bytes.all.current'] / MEGABYTE:.2f} MiB"
    assert megabytes in torch.cpu.memory_summary()
    assert list(found) == sorted(found)
    del x


def test_the_machine_has_memory():
    free, installed = torch.cpu.mem_get_info()
    assert 0 < free <= installed


def test_the_one_device():
    assert torch.cpu.is_available() and torch.cpu.is_initialized()
    assert (torch.cpu.device_count(), torch.cpu.current_device()) == (1, "cpu")


@pytest.mark.parametrize("name", ["memory_stats", "memory_allocated", "empty_cache"])
def test_accelerators_have_their_own_functions(name):
    with pytest.raises(RuntimeError, match="Cannot access accelerator device when none is"):
        getattr(torch.accelerator, name)()
