"""The GPU schedule: numbers by an emulated GPU, PTX by NVIDIA's assembler where it is installed."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from flambeau.compiler import schedule_gpu
from flambeau.compiler.jit import emit_assembly
from flambeau.compiler.kernel import BROADCAST, IOTA, STRIDED, UNIT, Kernel, Operand, Tracer
from flambeau.compiler.kernel import sqrt as square_root
from flambeau.compiler.math import exp, tanh
from flambeau.compiler.target import Target
from flambeau.core import dtype as types
from tests.compiler import emulated_gpu

f32, i64 = types.float32, types.int64


def pointwise_kernel() -> Kernel:
    """``tanh(a * b) + number`` over two loops; ``b`` is strided."""
    t = Tracer()
    a = t.load(t.operand(Operand(f32, UNIT)))
    b = t.load(t.operand(Operand(f32, STRIDED)))
    number = t.scalar(types.float64).cast(f32)
    t.store(t.operand(Operand(f32, UNIT)), tanh(a * b) + number)
    return t.finish((False, False))


def row_kernel(combine: str = "sum", kind: types.dtype = f32) -> Kernel:
    """Loops: kept, reduced, reduced; squares are stored on the way."""
    t = Tracer()
    x = t.load(t.operand(Operand(kind, UNIT)))
    t.store(t.operand(Operand(kind, UNIT)), x * x)
    total = t.reduce(combine, x * x)
    t.store(t.operand(Operand(kind, BROADCAST, kept=True)), total)
    return t.finish((False, True, True))


def column_kernel() -> Kernel:
    """Loops: kept, reduced, kept."""
    t = Tracer()
    x = t.load(t.operand(Operand(f32, UNIT)))
    t.store(t.operand(Operand(f32, UNIT, kept=True)), square_root(t.reduce("sum", x * x)))
    return t.finish((False, True, False))


def place_kernel() -> Kernel:
    """The place of the largest element, over one loop."""
    t = Tracer()
    x = t.load(t.operand(Operand(f32, UNIT)))
    index = t.load(t.operand(Operand(i64, UNIT, IOTA)))
    t.store(t.operand(Operand(i64, BROADCAST, kept=True)), t.reduce("argmax", x, index))
    return t.finish((True,))


def split_kernel() -> Kernel:
    """Chunks of one long sum: a kept loop over chunks, a reduced one within."""
    t = Tracer()
    x = t.load(t.operand(Operand(f32, UNIT)))
    t.store(t.operand(Operand(f32, BROADCAST, kept=True)), t.reduce("sum", exp(x)))
    return t.finish((False, True), split=True)


KERNELS = {
    "pointwise": pointwise_kernel(),
    "row": row_kernel(),
    "row of doubles": row_kernel("max", types.float64),
    "column": column_kernel(),
    "place": place_kernel(),
    "split": split_kernel(),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("sm", ["sm_75", "sm_80", "sm_90"])
def test_ptx(name, sm, tmp_path):
    target = Target.nvptx(sm)
    ptx = emit_assembly(schedule_gpu.source(KERNELS[name], target), target)
    assert ".visible .entry kernel(" in ptx
    assert "%tid.x" in ptx and "ld.global" in ptx
    assert (".shared" in ptx) == (name in ("row", "row of doubles", "place", "split"))
    if shutil.which("ptxas") is None:
        return
    file = tmp_path / "kernel.ptx"
    file.write_text(ptx)
    command = ["ptxas", f"-arch={sm}", "-v", "-o", str(tmp_path / "kernel.cubin"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 bytes spill stores" in done.stderr


@pytest.mark.parametrize("blocks", [1, 3])
def test_pointwise(blocks):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((5, 7)).astype(np.float32)
    b = rng.standard_normal((7, 5)).astype(np.float32)
    out = np.zeros((5, 7), np.float32)
    strides = [(7, 1), (1, 5), (7, 1)]
    emulated_gpu.run(KERNELS["pointwise"], [a, b, out], (5, 7), strides, [0.5], blocks=blocks)
    np.testing.assert_allclose(out, np.tanh(a * b.T) + 0.5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 3, 50), (1, 1, 3), (2, 7, 1), (3, 0, 5), (5, 2, 16)])
def test_rows(shape):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    squares, total = np.zeros(shape, np.float32), np.full(shape[0], 9.0, np.float32)
    whole = (shape[1] * shape[2], shape[2], 1)
    emulated_gpu.run(
        KERNELS["row"], [x, squares, total], shape, [whole, whole, (1, 0, 0)], blocks=2
    )
    np.testing.assert_array_equal(squares, x * x)
    np.testing.assert_allclose(total, (x.astype(np.float64) ** 2).sum((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 100, 5), (1, 1, 1), (3, 65, 40), (2, 0, 3)])
def test_columns(shape):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    out = np.full((shape[0], shape[2]), 9.0, np.float32)
    strides = [(shape[1] * shape[2], shape[2], 1), (shape[2], 0, 1)]
    emulated_gpu.run(KERNELS["column"], [x, out], shape, strides)
    np.testing.assert_allclose(out, np.sqrt((x.astype(np.float64) ** 2).sum(1)), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 15, 16, 100])
def test_places(n):
    x = np.random.default_rng(3).integers(0, 5, n).astype(np.float32)
    out = np.full(1, -1, np.int64)
    emulated_gpu.run(KERNELS["place"], [x, None, out], (n,), [(1,), (1,), (0,)])
    assert out[0] == x.argmax()


def test_chunks():
    x = np.random.default_rng(4).standard_normal(100).astype(np.float32)
    out = np.zeros(4, np.float32)
    strides = [(32, 1), (1, 0)]
    emulated_gpu.run(KERNELS["split"], [x, out], (4, 32), strides, total_extent=100)
    expected = [np.exp(x[k : k + 32].astype(np.float64)).sum() for k in range(0, 100, 32)]
    np.testing.assert_allclose(out, expected, rtol=1e-6)
