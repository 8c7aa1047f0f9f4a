"""The generator's fills against PyTorch itself, bit for bit; needs an interpreter with torch."""

import pytest

torch = pytest.importorskip("torch")

from flambeau.core import dtype as types  # noqa: E402 - only where torch is
from flambeau.engine import generator as engine  # noqa: E402
from flambeau.engine.random_bounds import random_bounds  # noqa: E402

SIZES = (0, 1, 2, 15, 16, 17, 31, 33, 623, 624, 625, 2047, 2048, 2049, 100003)
FLOATS = ("float16", "bfloat16", "float32", "float64")
ALL = (*FLOATS, "bool", "uint8", "int8", "int16", "int32", "int64")
LARGEST = {"uint8": 255, "int8": 127, "float16": 2048, "bfloat16": 256, "int16": 32767}


def compare(dtype, theirs, ours, sizes=SIZES):
    """``theirs(tensor, generator)`` against ``ours(generator, address, size, dtype)``."""
    reference = torch.Generator().manual_seed(77)
    generator = engine.Generator().manual_seed(77)
    for size in sizes:
        expected = torch.zeros(size, dtype=getattr(torch, dtype))
        drawn = torch.zeros_like(expected)
        theirs(expected, reference)
        ours(generator, drawn.data_ptr(), size, types.BY_NAME[dtype])
        assert torch.equal(expected.view(torch.uint8), drawn.view(torch.uint8)), size
        assert reference.get_state().numpy().tobytes() == generator.state_bytes(), size


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("uniform", (0.0, 1.0)),
        ("uniform", (-1.3, 2.7)),
        ("uniform", (1.0, 1.001)),
        ("normal", (0.0, 1.0)),
        ("normal", (-3.0, 0.02)),
        ("log_normal", (1.0, 2.0)),
        ("exponential", (0.37,)),
        ("cauchy", (0.3, 1.7)),
    ],
)
def test_real_numbers(dtype, name, arguments):
    compare(
        dtype,
        lambda tensor, g: getattr(tensor, f"{name}_")(*arguments, generator=g),
        lambda *where: getattr(engine, f"fill_{name}")(*where, *arguments),
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal_numbers_in_strided_tensors(dtype):
    def theirs(tensor, g):
        strided = torch.empty(2 * tensor.numel(), dtype=tensor.dtype)[::2]
        tensor.copy_(strided.normal_(0.5, 2.0, generator=g))

    def ours(*where):
        engine.fill_normal(*where, 0.5, 2.0, contiguous=False)

    compare(dtype, theirs, ours, (1, 2, 15, 16, 17, 1001))


@pytest.mark.parametrize("dtype", ALL)
def test_bernoulli(dtype):
    for p in (0.0, 1.0, 0.5, 0.3, 1e-3):
        compare(
            dtype,
            lambda tensor, g, p=p: tensor.bernoulli_(p, generator=g),
            lambda *where, p=p: engine.fill_bernoulli(*where, p),
        )
    for kind in ("float32", "float64"):
        chances = torch.rand(max(SIZES), dtype=getattr(torch, kind))
        compare(
            dtype,
            lambda tensor, g, c=chances: tensor.bernoulli_(c[: tensor.numel()], generator=g),
            lambda *where, c=chances, k=kind: engine.fill_bernoulli_each(
                *where, c.data_ptr(), types.BY_NAME[k]
            ),
        )


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.75])
@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout(dtype, rate):
    values = torch.randn(5000, dtype=getattr(torch, dtype))
    torch.manual_seed(3)
    expected = torch.nn.functional.dropout(values, rate)
    noise = torch.zeros_like(values)
    where = (noise.data_ptr(), 5000, types.BY_NAME[dtype])
    engine.fill_bernoulli(engine.Generator().manual_seed(3), *where, 1 - rate, 1 / (1 - rate))
    assert torch.equal(values * noise, expected)


@pytest.mark.filterwarnings("ignore:.*out of bounds")
@pytest.mark.parametrize("dtype", ALL)
def test_integers(dtype):
    compare(dtype, lambda tensor, g: tensor.random_(generator=g), engine.fill_random)
    bounds = [
        (0, 1), (0, 2), (-5, 100), (0, 10000), (0, 2**28 - 1), (0, 2**28), (-(2**31), 2**31),
        (-(2**40), 2**50 + 7), (-(2**63), 2**63 - 1), (5, None), (-100, None), (3, 3),
        (2**24 + 1, 2**25 + 3), (-(2**25) - 3, -3), (257, 2**11 + 1),
    ]  # fmt: skip
    kind = types.BY_NAME[dtype]
    for low, high in bounds:
        try:
            torch.empty(1, dtype=getattr(torch, dtype)).random_(low, high)
        except RuntimeError as error:
            with pytest.raises(RuntimeError) as raised:
                random_bounds(kind, low, high)
            assert str(raised.value) == str(error)
            continue
        compare(
            dtype,
            lambda tensor, g, b=(low, high): tensor.random_(*b, generator=g),
            lambda *where, b=(low, high): engine.fill_randint(*where, *random_bounds(kind, *b)),
        )


@pytest.mark.parametrize("dtype", ["int64", "float64", "float32", "bfloat16"])
def test_all_64_bits(dtype):
    compare(
        dtype,
        lambda tensor, g: tensor.random_(-(2**63), None, generator=g),
        engine.fill_random_full,
    )


@pytest.mark.parametrize("dtype", [name for name in ALL if name != "bool"])
def test_permutations(dtype):
    compare(
        dtype,
        lambda tensor, g: torch.randperm(tensor.numel(), generator=g, out=tensor),
        engine.fill_randperm,
        [size for size in SIZES if size <= LARGEST.get(dtype, max(SIZES))],
    )


@pytest.mark.parametrize("dtype", [name for name in ALL if name != "bool"])
def test_geometric(dtype):
    compare(
        dtype,
        lambda tensor, g: tensor.geometric_(0.3, generator=g),
        lambda *where: engine.fill_geometric(*where, 0.3),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("categories", [1, 2, 3, 8, 1000])
def test_choices(dtype, categories):
    weights = torch.rand(categories, dtype=getattr(torch, dtype))
    compare(
        "int64",
        lambda tensor, g: torch.multinomial(weights, tensor.numel(), True, generator=g, out=tensor),
        lambda g, address, size, _: engine.fill_choices(
            g, address, size, weights.data_ptr(), types.BY_NAME[dtype], categories
        ),
        [size for size in SIZES if size > 1],
    )


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, torch.nan], [1.0, torch.inf], [0.0, 0.0]])
def test_weights_that_are_none(weights):
    weights = torch.tensor(weights)
    chosen = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(RuntimeError) as expected:
        torch.multinomial(weights, 3, True)
    with pytest.raises(RuntimeError) as raised:
        engine.fill_choices(None, chosen.data_ptr(), 3, weights.data_ptr(), types.float32, 2)
    assert str(raised.value) == str(expected.value)


def test_strided_tensors_are_filled_in_the_order_of_memory():
    def ours(*shape):
        numbers = torch.zeros(shape)
        generator = engine.Generator().manual_seed(7)
        engine.fill_uniform(generator, numbers.data_ptr(), numbers.numel(), types.float32)
        return numbers

    def theirs(tensor):
        torch.manual_seed(7)
        return tensor.uniform_()

    assert torch.equal(theirs(torch.empty(4, 6).t()), ours(4, 6).t())
    assert torch.equal(theirs(torch.empty(4, 12)[:, ::2]), ours(4, 6))
    permuted = torch.empty(4, 12, 5)[:, ::2].permute(2, 0, 1)
    assert torch.equal(theirs(permuted), ours(4, 6, 5).permute(2, 0, 1))


def test_states_are_interchangeable():
    torch.manual_seed(5)
    torch.randn(3)
    generator = engine.Generator()
    generator.load_state_bytes(torch.get_rng_state().numpy().tobytes())
    generator.random()
    state = torch.frombuffer(bytearray(generator.state_bytes()), dtype=torch.uint8)
    torch.set_rng_state(state)
    drawn = torch.zeros(9)
    engine.fill_normal(generator, drawn.data_ptr(), 9, types.float32)
    assert torch.equal(drawn, torch.randn(9))
    assert torch.initial_seed() == generator.initial_seed() == 5
