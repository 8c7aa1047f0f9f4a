"""Matrix products of every shape, stride and path, against numpy in double precision."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import struct
from dataclasses import replace

import numpy as np
import pytest

from flambeau.compiler import gemm
from flambeau.compiler.gemm import GemmPlan, GemmProblem, plan_gemm
from flambeau.compiler.image import load_image
from flambeau.compiler.jit import compile_module, emit_image, emit_object
from flambeau.compiler.kernel_step import KernelStep, Pointer
from flambeau.compiler.target import (
    _ARM_FEATURES,
    _X86_FEATURES,
    Target,
    describe_host,
    host,
    processor_flags,
)

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_functions: dict[tuple[str, str], dict[str, int]] = {}


def functions_of(step: KernelStep, target: Target) -> dict[str, int]:
    if target.identity == host().identity:
        return compile_module(step.module_key, step.source, step.functions)
    key = (step.module_key, target.identity)
    if key not in _functions:
        _functions[key] = load_image(emit_image(step.source(), target))
    return _functions[key]


def run_plan(plan: GemmPlan, operands: dict[str, int], target: Target, cuts: int) -> None:
    """Runs every step in ``cuts`` ranges, the last range first."""
    workspace = np.full(plan.workspace + 64, 0xA5, np.uint8)
    start = (workspace.ctypes.data + 63) & ~63
    addresses = operands | {"workspace": start, "epilogue": 0, "epilogue_arguments": 0}
    for step in plan.steps:
        block = b""
        for word in step.words:
            if isinstance(word, Pointer):
                word = addresses[word.operand] + word.byte_offset
            block += struct.pack("<d" if isinstance(word, float) else "<q", word)
        arguments = ctypes.create_string_buffer(block, len(block))
        kernel = KERNEL(functions_of(step, target)[step.function])
        bounds = sorted({step.tasks * i // cuts for i in range(cuts + 1)})
        for begin, end in reversed(list(itertools.pairwise(bounds))):
            kernel(ctypes.addressof(arguments), begin, end)


def strides_of(array: np.ndarray) -> tuple[int, ...]:
    return tuple(stride // array.itemsize for stride in array.strides)


def problem_of(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, bias: np.ndarray | None = None, **options: object
) -> GemmProblem:
    """The problem of three arrays of three dimensions."""
    dtype = options.pop("dtype", a.dtype.name)
    return GemmProblem(
        dtype, c.shape[0], c.shape[1], c.shape[2], a.shape[2],
        *strides_of(a), *strides_of(b), *strides_of(c),
        bias=bias is not None, **options,
    )  # fmt: skip


def multiply(
    a: np.ndarray,
    b: np.ndarray,
    *,
    c: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    target: Target | None = None,
    cuts: int = 1,
    **options: object,
) -> np.ndarray:
    target = target or host()
    if c is None:
        c = np.full((a.shape[0], a.shape[1], b.shape[2]), 77, a.dtype)
    plan = plan_gemm(problem_of(a, b, c, bias, **options), target)
    operands = {"a": a.ctypes.data, "b": b.ctypes.data, "c": c.ctypes.data}
    if bias is not None:
        operands["bias"] = bias.ctypes.data
    run_plan(plan, operands, target, cuts)
    return c


def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind in "iu":
        return a @ b
    return a.astype(np.float64) @ b.astype(np.float64)


def assert_close(result: np.ndarray, expected: np.ndarray, k: int) -> None:
    tolerance = np.finfo(result.dtype).eps * (4 + k**0.5) * (2 + k**0.5)
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def random(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed + sum(shape))
    if np.dtype(dtype).kind in "iu":
        return generator.integers(-100 if dtype[0] == "i" else 0, 100, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def arranged(array: np.ndarray, way: str) -> np.ndarray:
    """The same values with other strides in the last two dimensions."""
    if way == "transposed":
        return np.ascontiguousarray(array.swapaxes(1, 2)).swapaxes(1, 2)
    if way == "spaced":
        batch, rows, columns = array.shape
        wide = np.zeros((batch, 2 * rows, 3 * columns), array.dtype)
        wide[:, ::2, ::3] = array
        return wide[:, ::2, ::3]
    if way == "padded":
        batch, rows, columns = array.shape
        wide = np.zeros((batch, rows, columns + 5), array.dtype)
        wide[:, :, :columns] = array
        return wide[:, :, :columns]
    if way == "reversed":
        return np.ascontiguousarray(array[:, ::-1, ::-1])[:, ::-1, ::-1]
    return array


WAYS = ("plain", "transposed", "spaced", "padded", "reversed")

# Every path: one row, one column, inner product, small, packed and raw panels, several k blocks,
# sizes around the tiles' edges.
SHAPES = [
    (1, 1, 1), (1, 1, 300), (1, 1100, 6), (1, 7, 5),
    (1, 300, 70), (1, 131, 33), (5, 1, 9), (300, 1, 77),
    (2, 3, 4), (14, 32, 8), (15, 33, 17), (13, 31, 16), (64, 10, 128), (10, 128, 64), (29, 65, 3),
    (6, 16, 400), (64, 128, 100), (70, 130, 90), (120, 75, 500), (33, 300, 450), (128, 272, 784),
    (300, 48, 5), (3, 700, 2), (7, 1000, 129), (650, 70, 20),
]  # fmt: skip


# Odd rows, columns and depths of tiles too; several parts of k, and rows a page apart.
HALF_SHAPES = [*SHAPES, (1000, 40, 32), (31, 70, 64), (90, 96, 1100), (66, 200, 2048)]


def other_targets() -> list[Target]:
    """What this processor can also run."""
    names = ("avx2", "scalar") if host().architecture == "x86_64" else ("scalar",)
    machine = "x86_64" if host().architecture == "x86_64" else "aarch64"
    found = []
    for name in names:
        try:
            found.append(describe_host(machine, processor_flags(), name))
        except RuntimeError:
            continue
    return [target for target in found if target.name != host().name]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way_b", WAYS)
@pytest.mark.parametrize("way_a", WAYS)
def test_every_shape_and_arrangement(way_a: str, way_b: str, dtype: str) -> None:
    for m, n, k in SHAPES:
        a, b = random((1, m, k), dtype), random((1, k, n), dtype, 1)
        result = multiply(arranged(a, way_a), arranged(b, way_b))
        assert_close(result, exact(a, b), k)


@pytest.mark.parametrize("target", other_targets(), ids=lambda target: target.name)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_other_targets(target: Target, dtype: str) -> None:
    for (m, n, k), way_a, way_b in itertools.product(SHAPES, WAYS[:3], WAYS[:3]):
        a, b = random((1, m, k), dtype), random((1, k, n), dtype, 1)
        result = multiply(arranged(a, way_a), arranged(b, way_b), target=target)
        if dtype == "int32":
            assert np.array_equal(result, exact(a, b))
        else:
            assert_close(result, exact(a, b), k)


def half_precision_targets() -> list[Target]:
    """The host with and without tile registers, and the lesser ones."""
    flags = frozenset(flag for flag in processor_flags() if not flag.startswith("amx"))
    without_tiles = describe_host(host().architecture, flags, None)
    targets = [host(), without_tiles, *other_targets()]
    return list({target.identity: target for target in targets}.values())


def target_name(target: object) -> str | None:
    if not isinstance(target, Target):
        return None
    return f"{target.name}{'+amx' if 'amx-bf16' in target.features else ''}"


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """The upper half of float32, rounded to even, as numpy keeps bfloat16."""
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(array: np.ndarray) -> np.ndarray:
    return (array.astype(np.uint32) << 16).view(np.float32)


HALF_CASES = [("bfloat16", target) for target in half_precision_targets()]
HALF_CASES += [("float16", target) for target in (host(), *other_targets())]


@pytest.mark.parametrize("dtype, target", HALF_CASES, ids=target_name)
def test_half_precision_is_summed_in_single_and_rounded_once(dtype: str, target: Target) -> None:
    if dtype == "bfloat16":
        narrow, widen, digits = to_bfloat16, from_bfloat16, 8
    else:
        narrow, widen, digits = lambda x: x.astype(np.float16), np.float32, 11
    ways = [*itertools.product(WAYS[:2], WAYS[:2]), ("spaced", "spaced")]
    for (m, n, k), (way_a, way_b) in itertools.product(HALF_SHAPES, ways):
        a = arranged(narrow(random((2, m, k))), way_a)
        b = arranged(narrow(random((2, k, n), seed=1)), way_b)
        bias, c = narrow(random((n,))), narrow(random((2, m, n)))
        expected = exact(widen(a), widen(b)) + widen(bias) + widen(c)
        result = multiply(a, b, c=c, bias=bias, dtype=dtype, accumulate=True, target=target)
        allowed = np.abs(expected) * 2.0**-digits + 1e-6 * (k + 4)
        assert (np.abs(widen(result) - expected) <= allowed).all(), (m, n, k, way_a, way_b)
        plain = exact(widen(a), widen(b))
        result = multiply(a, b, dtype=dtype, target=target)
        allowed = np.abs(plain) * 2.0**-digits + 1e-6 * (k + 4)
        assert (np.abs(widen(result) - plain) <= allowed).all(), (m, n, k, way_a, way_b)
        cut = multiply(a, b, dtype=dtype, target=target, cuts=3)
        assert np.array_equal(cut, result)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_is_read_past_the_last_page(dtype: str) -> None:
    """Operands that end where memory ends, and results that begin and end so."""
    for (m, n, k), way in itertools.product(HALF_SHAPES, WAYS[:2]):
        a, b, c = (at_the_end(shape, dtype) for shape in ((1, m, k), (1, k, n), (1, m, n)))
        if way == "transposed":
            a, b = (x.reshape(1, x.shape[2], x.shape[1]).swapaxes(1, 2) for x in (a, b))
        multiply(a, b, c=c, dtype=dtype)


def at_the_end(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Zeros, followed by a page that must not be touched."""
    element = np.dtype("uint16" if dtype == "bfloat16" else dtype)
    nbytes = int(np.prod(shape)) * element.itemsize
    pages = -(-nbytes // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    array = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(array.ctypes.data + pages * mmap.PAGESIZE)
    assert libc.mprotect(address, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    end = pages * mmap.PAGESIZE
    return array[end - nbytes : end].view(element).reshape(shape)


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint8"])
def test_integers_wrap_around(dtype: str) -> None:
    for (m, n, k), way_a, way_b in itertools.product(SHAPES, WAYS[:3], WAYS[:3]):
        a, b = random((1, m, k), dtype), random((1, k, n), dtype, 1)
        result = multiply(arranged(a, way_a), arranged(b, way_b))
        assert np.array_equal(result, exact(a, b)), (m, n, k, way_a, way_b)


BATCHED = [
    (9, 4, 4, 4), (3, 1, 40, 30), (20, 64, 70, 64), (3, 130, 150, 140), (4, 9, 1, 20), (4, 1, 1, 50)
]  # fmt: skip


@pytest.mark.parametrize("shape", BATCHED)
def test_batches(shape: tuple[int, int, int, int]) -> None:
    batch, m, n, k = shape
    for way_a, way_b in itertools.product(WAYS, WAYS):
        a, b = random((batch, m, k)), random((batch, k, n))
        result = multiply(arranged(a, way_a), arranged(b, way_b))
        assert_close(result, exact(a, b), k)
        one = a[:1]
        result = multiply(np.broadcast_to(arranged(one, way_a), a.shape), arranged(b, way_b))
        assert_close(result, exact(np.broadcast_to(one, a.shape), b), k)
        one = b[:1]
        result = multiply(arranged(a, way_a), np.broadcast_to(arranged(one, way_b), b.shape))
        assert_close(result, exact(a, np.broadcast_to(one, b.shape)), k)


def test_broadcast_rows_and_columns() -> None:
    for m, n, k in SHAPES:
        a = np.broadcast_to(random((1, 1, k)), (1, m, k))
        b = np.broadcast_to(random((1, k, 1)), (1, k, n))
        assert_close(multiply(a, b), exact(a, b), k)
        a = np.broadcast_to(random((1, m, 1)), (1, m, k))
        b = np.broadcast_to(random((1, 1, n)), (1, k, n))
        assert_close(multiply(a, b), exact(a, b), k)


@pytest.mark.parametrize("target", [host(), *other_targets()], ids=lambda target: target.name)
def test_bias_and_accumulation(target: Target) -> None:
    for (m, n, k), way_b in itertools.product(SHAPES, WAYS[:2]):
        a, b = random((1, m, k)), arranged(random((1, k, n)), way_b)
        bias, c = random((n,)), random((1, m, n), seed=5)
        expected = exact(a, b) + c + bias
        options = {"accumulate": True, "target": target}
        assert_close(multiply(a, b, c=c.copy(), bias=bias, **options), expected, k)


@pytest.mark.parametrize("way", WAYS)
def test_result_with_strides(way: str) -> None:
    for m, n, k in SHAPES:
        a, b = random((1, m, k)), random((1, k, n))
        c = arranged(np.zeros((1, m, n), np.float32), way)
        outside = c.base if way in ("spaced", "padded") else None
        untouched = None if outside is None else outside.copy()
        assert_close(multiply(a, b, c=c), exact(a, b), k)
        if outside is not None:
            c[...] = 0
            assert np.array_equal(outside, untouched)


def test_empty_sizes() -> None:
    for m, n, k in [(0, 3, 4), (3, 0, 4), (0, 0, 0)]:
        plan = plan_gemm(GemmProblem("float32", 1, m, n, k, 0, k, 1, 0, n, 1, 0, n), host())
        assert plan == GemmPlan(0, ())
    for m, n in [(1, 1), (1, 40), (40, 1), (3, 5), (200, 300)]:
        a, b = random((2, m, 0)), random((2, 0, n))
        assert not multiply(a, b).any()
        bias = random((n,))
        assert np.array_equal(multiply(a, b, bias=bias), np.broadcast_to(bias, (2, m, n)))
        c = random((2, m, n))
        assert np.array_equal(multiply(a, b, c=c.copy(), accumulate=True), c)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_cut_of_the_tasks_gives_the_same_bits(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    for batch, way in itertools.product((1, 3), WAYS[:3]):
        a, b = random((batch, m, k)), arranged(random((batch, k, n)), way)
        whole = multiply(a, b)
        for cuts in (2, 3, 7, 1000):
            assert np.array_equal(multiply(a, b, cuts=cuts), whole)


def test_sizes_and_strides_are_no_part_of_the_module() -> None:
    problems = [
        GemmProblem("float32", 2, m, n, k, m * k, k, 1, k * n, n, 1, m * n, n, bias=bias)
        for (m, n, k), bias in itertools.product(SHAPES, (False, True))
    ]
    problems += [replace(problem, b_row=1, b_col=problem.k) for problem in problems]
    steps = [step for problem in problems for step in plan_gemm(problem, host()).steps]
    assert len({step.module_key for step in steps}) == 1
    assert {step.function for step in steps} == set(gemm.FUNCTIONS)


@pytest.mark.parametrize("stored", sorted(set(gemm.STORED_AS.values())))
@pytest.mark.parametrize("machine", ["neon", "avx512", "avx2", "scalar"])
def test_every_module_assembles(machine: str, stored: str) -> None:
    if machine == "neon":
        target = describe_host("aarch64", frozenset(_ARM_FEATURES), None)
    else:
        target = describe_host("x86_64", frozenset(_X86_FEATURES), machine)
    text = gemm.gemm_module(stored, target)
    assert emit_object(text, target)[:4] == b"\x7fELF"
