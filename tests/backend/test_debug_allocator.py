"""``FLAMBEAU_DEBUG_ALLOC=1``: what it finds, how it says so, and that a sample of programs passes.

The mode belongs to a whole process, so most tests look at one from outside.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

import pytest

from flambeau.backend.debug_allocator import CheckedBlock, DebugAllocator

SIZES = (0, 1, 63, 64, 65, 4096, 4097, 100_000)


def checked(program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program with every access checked."""
    environment = {**os.environ, "FLAMBEAU_DEBUG_ALLOC": "1"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def allocator():
    before = signal.getsignal(signal.SIGSEGV)
    yield DebugAllocator(report_faults=False)
    assert signal.getsignal(signal.SIGSEGV) == before


@pytest.mark.parametrize("nbytes", SIZES)
def test_blocks_are_aligned_and_full_of_ones(allocator, nbytes):
    block = allocator.allocate(nbytes)
    assert block.address % 64 == 0
    assert ctypes.string_at(block.address, nbytes) == b"\xff" * nbytes
    allocator.check([block, None])


@pytest.mark.parametrize(("offset", "where"), [(-1, "up to byte -1"), (70, "from byte 70")])
def test_a_write_outside_is_found(allocator, offset, where):
    block = allocator.allocate(70)
    allocator.activity = "in step 3 of 7, mm"
    ctypes.memset(block.address + offset, 0, 1)
    with pytest.raises(RuntimeError, match=f"{where}; found after in step 3 of 7, mm"):
        allocator.check([block])
    allocator.check([block])
    allocator.activity = "outside of any step"


def test_statistics_count_what_lives(allocator):
    before = allocator.statistics().current
    block = allocator.allocate(1000)
    assert allocator.statistics().current == before + 1000
    assert isinstance(block, CheckedBlock)
    del block
    assert allocator.statistics().current == before


FAULTS = {
    "read after free": (
        "block = backend.allocate(100); address = block.address; del block\n"
        "ctypes.string_at(address + 3, 1)",
        "byte 3 of a freed block of 100 bytes",
    ),
    "read past the end": (
        "block = backend.allocate(4096)\nctypes.string_at(block.address + 4096, 1)",
        "byte 4096 of a block of 4096 bytes",
    ),
    "write in a red zone": (
        "block = backend.allocate(100)\nctypes.memset(block.address + 100, 0, 1)\ndel block",
        "wrote outside a block of 100 bytes",
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="faults are reported on Linux")
@pytest.mark.parametrize("what", FAULTS)
def test_faults_are_reported(what):
    program, expected = FAULTS[what]
    done = checked(f"import ctypes\nfrom flambeau.engine.runtime import backend\n{program}")
    assert done.returncode < 0
    assert "FLAMBEAU_DEBUG_ALLOC" in done.stderr and expected in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="faults are reported on Linux")
def test_a_kernel_that_reads_too_far_is_named():
    """A layout that reaches past its storage, as a wrong shape rule would make one."""
    done = checked(
        "import flambeau as torch\n"
        "from flambeau.core.layout import Layout\n"
        "x = torch.ones(1024)\n"
        "torch.synchronize()\n"
        "x._layout = Layout.of((2048,), torch.float32)\n"
        "(x + 1.0).tolist()\n"
    )
    assert done.returncode < 0
    assert "step 0 of 1, add" in done.stderr and "of a block of 4096 bytes" in done.stderr


def test_training_passes():
    """Products, convolutions, normalisation, attention and an optimiser, forward and backward."""
    done = checked(
        "import flambeau as torch\n"
        "nn = torch.nn\n"
        "torch.manual_seed(0)\n"
        "net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),\n"
        "    nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 25, 17), nn.GELU(), nn.LayerNorm(17),\n"
        "    nn.Dropout(0.2), nn.Linear(17, 5))\n"
        "optimizer = torch.optim.AdamW(net.parameters())\n"
        "for _ in range(3):\n"
        "    optimizer.zero_grad()\n"
        "    x = torch.randn(7, 3, 11, 11)\n"
        "    y = nn.functional.cross_entropy(net(x), torch.randint(0, 5, (7,)))\n"
        "    y.backward()\n"
        "    optimizer.step()\n"
        "q = torch.randn(2, 3, 13, 8, requires_grad=True)\n"
        "z = nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)\n"
        "z.sum().backward()\n"
        "w = torch.randn(30, 7).sort(0).values.cumsum(1)[torch.randint(0, 30, (9,))]\n"
        "assert all(torch.isfinite(t).all() for t in (y, z, q.grad, w))\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
