"""Texts of random tensors, views and results, here and by the PyTorch that is installed."""

from __future__ import annotations

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not hasattr(torch, "_C"):
    pytest.skip("needs PyTorch itself", allow_module_level=True)

import flambeau  # noqa: E402

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
          "complex64", "complex128"]  # fmt: skip


def draw_array(source, generator):
    large = source.random() < 0.3
    sizes = [1, 6, 7, 40, 1001] if large else [0, 1, 2, 3, 5, 8]
    shape = [source.choice(sizes) for _ in range(source.choice([0, 1, 1, 2, 2, 3]))]
    while np.prod(shape) > 60_000:
        shape.pop()
    values = generator.standard_normal(shape) * 10.0 ** source.randrange(-6, 9)
    if source.random() < 0.5:
        values = np.round(values)
    dtype = np.dtype(source.choice(DTYPES))
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        values = np.clip(values, info.min // 2, info.max // 2)
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(dtype)


def draw_index(source, ndim):
    choices = [slice(None), slice(1, None), slice(None, None, 2), slice(0, 2)]
    return tuple(source.choice(choices) for _ in range(ndim))


@pytest.fixture(autouse=True)
def _default_options():
    yield
    torch.set_printoptions(profile="default")
    flambeau.set_printoptions(profile="default")


@pytest.mark.parametrize("seed", range(8))
def test_random_tensors_and_views(seed):
    source = random.Random(seed)
    generator = np.random.default_rng(seed)
    for _ in range(40):
        array = draw_array(source, generator)
        theirs, ours = torch.from_numpy(array.copy()), flambeau.from_numpy(array.copy())
        options = {"profile": source.choice(["default", "short"])}
        if source.random() < 0.3:
            options["edgeitems"] = source.choice([1, 2, 5])
            options["linewidth"] = source.choice([40, 120])
        torch.set_printoptions(**options)
        flambeau.set_printoptions(**options)
        assert repr(ours) == repr(theirs)
        index = draw_index(source, array.ndim)
        assert repr(ours[index]) == repr(theirs[index])
        if array.ndim >= 2:
            assert repr(ours.transpose(0, 1)) == repr(theirs.transpose(0, 1))


def test_gradients_and_dtypes():
    for library in (torch, flambeau):
        x = library.ones(3, requires_grad=True)
        y = library.zeros(2, 2, dtype=library.bfloat16)
        texts = [repr(x), repr(x + 1), repr(x * x), repr((x * 2).sum()), repr(y), str(y[0, 0])]
        if library is torch:
            expected = texts
    assert texts == expected


def test_default_dtype():
    texts = []
    for library in (torch, flambeau):
        library.set_default_dtype(library.float64)
        try:
            texts.append([repr(library.ones(2)), repr(library.ones(2, dtype=library.float32))])
        finally:
            library.set_default_dtype(library.float32)
    assert texts[0] == texts[1]
