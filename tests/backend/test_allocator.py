"""The caching allocator: alignment, reuse, limits, threads, shutdown."""

import ctypes
import gc
import random
import subprocess
import sys
import threading

import pytest

from flambeau.backend import allocator as module
from flambeau.backend.allocator import (
    SMALL_LIMIT,
    CachingAllocator,
    ExternalBlock,
    class_size,
)

SIZES = (0, 1, 63, 64, 65, 512, 513, 4096, 8192, 8193, 100_000, 1 << 20, (1 << 20) + 1, 5 << 20)


@pytest.fixture
def allocator():
    return CachingAllocator()


def test_class_sizes_waste_little():
    for nbytes in [*range(0, 20_000, 7), *(int(1.3**k) for k in range(1, 90))]:
        size = class_size(nbytes)
        assert size >= nbytes and size % 64 == 0
        assert size <= max(nbytes + 64, nbytes * 1.26), nbytes


def test_blocks_are_aligned_distinct_and_writable(allocator):
    blocks = [allocator.allocate(nbytes) for nbytes in SIZES for _ in range(3)]
    for number, block in enumerate(blocks):
        assert block.address % 64 == 0
        assert block.capacity >= block.nbytes
        ctypes.memset(block.address, number, block.nbytes)
    for number, block in enumerate(blocks):
        assert ctypes.string_at(block.address, block.nbytes) == bytes([number]) * block.nbytes
    spans = sorted((block.address, block.address + block.capacity) for block in blocks)
    assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize("nbytes", SIZES)
def test_freed_memory_is_reused(allocator, nbytes):
    block = allocator.allocate(nbytes)
    address = block.address
    requests = allocator.statistics().system_allocations
    del block
    assert allocator.allocate(nbytes).address == address
    assert allocator.statistics().system_allocations == requests


def test_large_blocks_start_on_huge_pages(allocator):
    assert allocator.allocate(8 << 20).address % (2 << 20) == 0


def test_statistics(allocator):
    assert allocator.statistics().reserved == 0
    small, large = allocator.allocate(1000), allocator.allocate(3 << 20)
    before = allocator.statistics()
    assert before.current == class_size(1000) + class_size(3 << 20)
    assert before.peak == before.reserved >= before.current + before.cached
    del small, large
    after = allocator.statistics()
    assert after.current == 0
    assert after.cached == before.cached + before.current
    allocator.empty_cache()
    emptied = allocator.statistics()
    assert emptied.reserved == before.reserved - class_size(3 << 20)
    assert emptied.peak == before.peak


def test_idle_large_blocks_are_bounded():
    allocator = CachingAllocator(cache_limit=10 << 20)
    blocks = [allocator.allocate(4 << 20) for _ in range(8)]
    del blocks
    assert allocator.statistics().cached <= 10 << 20
    assert allocator.statistics().current == 0


def test_an_idle_large_block_serves_smaller_requests(allocator):
    block = allocator.allocate(8 << 20)
    address = block.address
    del block
    small, large = allocator.allocate(3 << 20), allocator.allocate(5 << 20)
    assert (small.address == address, large.address == address) == (False, True)
    assert large.nbytes == 5 << 20
    del large
    assert allocator.allocate(8 << 20).address == address


def test_ever_new_large_sizes_do_not_pile_up():
    allocator = CachingAllocator(cache_limit=64 << 20)
    for k in range(2, 60):
        allocator.allocate(k << 20)
    assert allocator.statistics().reserved <= (64 + 60) << 20


def test_idle_blocks_go_when_memory_is_short(allocator, monkeypatch):
    block = allocator.allocate(8 << 20)
    del block
    monkeypatch.setattr(module, "available_memory", lambda: 1 << 20)
    kept = allocator.allocate(30 << 20)
    assert allocator.statistics().reserved == kept.capacity == 30 << 20


def test_memory_runs_out_in_pytorchs_words(allocator):
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator: can't allocate memory: you tried"):
        allocator.allocate(1 << 60)
    assert allocator.allocate(100).nbytes == 100


def test_external_blocks_keep_their_owner(allocator):
    class Owner:
        pass

    owner, gone = Owner(), []
    import weakref

    weakref.finalize(owner, gone.append, True)
    block = ExternalBlock(4096, 10, owner)
    del owner
    gc.collect()
    assert not gone and block.capacity == 10
    del block
    gc.collect()
    assert gone


def test_threads(allocator):
    failures = []

    def work(seed):
        generator = random.Random(seed)
        held = []
        for step in range(3000):
            block = allocator.allocate(generator.choice((8, 64, 700, 5000, SMALL_LIMIT + 1)))
            ctypes.c_int64.from_address(block.address).value = seed << 32 | step
            held.append((block, seed << 32 | step))
            if len(held) > 20:
                old, mark = held.pop(generator.randrange(20))
                if ctypes.c_int64.from_address(old.address).value != mark:
                    failures.append(mark)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert allocator.statistics().current == 0


def test_blocks_alive_at_exit_are_silent():
    program = (
        "from flambeau.backend.allocator import CachingAllocator\n"
        "a = CachingAllocator(cache_limit=0)\n"
        "import sys\n"
        "kept = [a.allocate(n) for n in (1, 100, 5000, 3 << 20, 9 << 20)]\n"
        "sys.kept = kept; kept.append(kept)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
