"""Sort kernels against numpy: every type, short and long rows, NaN, ties, and the greatest few."""

import numpy as np
import pytest

import flambeau as torch

TYPES = ["float32", "float64", "float16", "int64", "int32", "int16", "uint8", "int8"]
SHAPES = [((5, 1000), 1), ((1000, 3), 0), ((2, 257, 3), 1), ((3, 20), 1), ((1,), 0), ((70000,), 0)]


def values(shape, kind, seed=0):
    array = (np.random.default_rng(seed).normal(size=shape) * 40).astype(kind)
    if kind.startswith("float"):
        array.reshape(-1)[::37] = np.nan
        array.reshape(-1)[1::53] = -np.inf
        array.reshape(-1)[2::41] = -0.0
    return array


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape, dim", SHAPES)
def test_sort_is_stable_and_puts_nan_last(kind, shape, dim):
    array = values(shape, kind)
    found, places = torch.sort(torch.tensor(array), dim)
    expected = np.argsort(array, axis=dim, kind="stable")
    np.testing.assert_array_equal(places.numpy(), expected)
    np.testing.assert_array_equal(found.numpy(), np.take_along_axis(array, expected, dim))


@pytest.mark.parametrize("kind", TYPES)
def test_descending_keeps_the_order_of_equals(kind):
    array = np.random.default_rng(1).integers(0, 9, 500).astype(kind)
    places = torch.argsort(torch.tensor(array), descending=True).numpy()
    np.testing.assert_array_equal(places, np.argsort(-array.astype(np.int64), kind="stable"))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape, dim", SHAPES)
@pytest.mark.parametrize("k", [1, 7])
def test_topk_is_the_start_of_the_sorted_row(kind, shape, dim, k):
    k = min(k, shape[dim])
    tensor = torch.tensor(values(shape, kind, seed=2))
    for largest in (True, False):
        found, places = torch.topk(tensor, k, dim, largest)
        expected, expected_places = torch.sort(tensor, dim, largest)
        np.testing.assert_array_equal(found.numpy(), expected.narrow(dim, 0, k).numpy())
        np.testing.assert_array_equal(places.numpy(), expected_places.narrow(dim, 0, k).numpy())


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape, dim", SHAPES)
def test_kthvalue_is_an_element_of_the_sorted_row(kind, shape, dim):
    tensor = torch.tensor(values(shape, kind, seed=3))
    expected, places = torch.sort(tensor, dim)
    for k in {1, shape[dim] // 2 + 1, shape[dim]}:
        found, place = torch.kthvalue(tensor, k, dim)
        np.testing.assert_array_equal(found.numpy(), expected.select(dim, k - 1).numpy())
        np.testing.assert_array_equal(place.numpy(), places.select(dim, k - 1).numpy())


def test_sorting_a_transposed_tensor_keeps_its_strides():
    tensor = torch.tensor(values((4, 50), "float32")).t()
    found, places = tensor.sort(0)
    assert found.stride() == places.stride() == tensor.stride()
    np.testing.assert_array_equal(found.numpy(), np.sort(tensor.numpy(), 0))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", ["rising", "falling", "equal", "random", "few values"])
def test_topk_of_long_rows_in_any_order(kind, order):
    count = 20_011
    numbers = {
        "rising": np.arange(count) // 90,
        "falling": np.arange(count)[::-1] // 90,
        "equal": np.full(count, 7),
        "random": np.random.default_rng(4).integers(0, 120, count),
        "few values": np.random.default_rng(5).integers(0, 2, count),
    }[order]
    array = np.stack([numbers, np.roll(numbers, 77)]).clip(0, 120).astype(kind)
    tensor = torch.tensor(array)
    for k in (1, 5, 300, 2500):
        for largest in (True, False):
            found, places = torch.topk(tensor, k, 1, largest)
            key = -array.astype(np.int64) if largest else array
            expected = np.argsort(key, axis=1, kind="stable")[:, :k]
            np.testing.assert_array_equal(places.numpy(), expected)
            np.testing.assert_array_equal(found.numpy(), np.take_along_axis(array, expected, 1))
