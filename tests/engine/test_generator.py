"""The generator against PyTorch's recorded draws, and what must hold of any generator."""

import copy
import hashlib
import importlib.util
import json
import pickle
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from flambeau.core import dtype as types
from flambeau.engine import generator as engine
from flambeau.engine.generator import Generator
from flambeau.engine.random_bounds import random_bounds

_HERE = Path(__file__).parent
_specification = importlib.util.spec_from_file_location("random_cases", _HERE / "random_cases.py")
cases = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(cases)

RECORDED = json.loads((_HERE.parent / "references" / "random" / "draws.json").read_text())


def buffer(size, dtype):
    return np.zeros(size, types.BY_NAME[dtype].numpy)


def address(array):
    return array.ctypes.data


def draw(case, generator):
    """The elements of one case, as the numpy array that holds their bits."""
    operation, name, size, arguments = case
    dtype = types.BY_NAME[name]
    if operation == "choices":
        weights = np.array(cases.weights(*arguments), dtype.numpy)
        result = buffer(size, "int64")
        where = (address(result), size, address(weights), dtype, *arguments)
        engine.fill_choices(generator, *where)
        return result
    result = buffer(size, name)
    where = (generator, address(result), size, dtype)
    if operation == "bernoulli_each":
        source = types.BY_NAME[arguments[0]]
        chances = np.array(cases.weights(size), source.numpy)
        engine.fill_bernoulli_each(*where, address(chances), source)
    elif operation == "randint":
        engine.fill_randint(*where, *random_bounds(dtype, *arguments))
    else:
        getattr(engine, f"fill_{operation}")(*where, *arguments)
    return result


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def as_numbers(data, name):
    if name == "bfloat16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, types.BY_NAME[name].numpy)


def check(case, generator, head, elements, state):
    operation, name, _, _ = case
    drawn = draw(case, generator)
    assert digest(generator.state_bytes()) == state, "another number of draws"
    if operation in cases.BY_LIBRARY or (operation, name) == ("normal", "float64"):
        shown = as_numbers(drawn[: engine_shown(head, drawn)].tobytes(), name)
        expected = as_numbers(bytes.fromhex(head), name)
        tolerance = {"float16": 1e-3, "bfloat16": 1e-2, "float32": 1e-6}.get(name, 1e-14)
        np.testing.assert_allclose(shown.astype("f8"), expected.astype("f8"), tolerance, 1e-300)
        return
    assert drawn.tobytes()[: len(head) // 2].hex() == head
    assert digest(drawn.tobytes()) == elements


def engine_shown(head, drawn):
    return len(head) // 2 // drawn.itemsize


def test_draws_are_pytorchs():
    generator = Generator().manual_seed(cases.SEED)
    failures = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in cases.CASES:
            try:
                check(case, generator, *RECORDED["draws"][cases.title(case)])
            except AssertionError as error:
                failures.append(f"{cases.title(case)}: {error}")
    assert not failures, "\n".join(failures[:10])


@pytest.mark.parametrize("seed", cases.SEEDS)
def test_seeds(seed):
    generator = Generator().manual_seed(seed)
    assert digest(generator.state_bytes()) == RECORDED["seeds"][str(seed)]
    assert generator.initial_seed() == seed % 2**64


def test_goes_on_from_a_state_that_pytorch_wrote():
    state = bytes.fromhex(RECORDED["state"])
    generator = Generator()
    generator.load_state_bytes(state)
    assert generator.state_bytes() == state
    numbers = buffer(20, "float32")
    engine.fill_normal(generator, address(numbers), 20, types.float32)
    assert numbers.tobytes().hex() == RECORDED["following"]


def test_default_seed():
    assert Generator().initial_seed() == 67280421310721
    assert Generator().state_bytes() == Generator("cpu").manual_seed(67280421310721).state_bytes()


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_cut_fills_give_the_same_stream(dtype):
    kind = types.BY_NAME[dtype]
    whole, pieces = buffer(5000, dtype), buffer(5000, dtype)
    engine.fill_uniform(Generator(), address(whole), 5000, kind)
    generator, done = Generator(), 0
    for size in (1, 7, 623, 625, 1000, 2744):
        engine.fill_uniform(generator, address(pieces[done:]), size, kind)
        done += size
    assert done == 5000 and whole.tobytes() == pieces.tobytes()


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_nothing_is_written_outside(dtype):
    kind = types.BY_NAME[dtype]
    for size in (1, 15, 16, 17, 33, 700):
        guarded = np.full(size + 40, 77, kind.numpy)
        inside = address(guarded[20:])
        for fill in (engine.fill_uniform, engine.fill_normal, engine.fill_exponential):
            fill(Generator(), inside, size, kind)
            assert (guarded[:20] == 77).all() and (guarded[20 + size :] == 77).all()


def test_no_elements_no_draws():
    generator = Generator()
    before = generator.state_bytes()
    engine.fill_normal(generator, 0, 0, types.float32)
    engine.fill_randperm(generator, 0, 0, types.int64)
    assert generator.state_bytes() == before


def test_copies_and_pickles():
    generator = Generator().manual_seed(3)
    drawn = generator.random()
    assert drawn == np.random.RandomState(3).randint(0, 2**32, dtype=np.uint32)
    clones = (generator.clone_state(), copy.deepcopy(generator))
    clones += (pickle.loads(pickle.dumps(generator)),)
    following = generator.random()
    assert [clone.random() for clone in clones] == [following] * 3
    assert all(clone.initial_seed() == 3 for clone in clones)


def test_unpredictable_seeds():
    generator = Generator()
    assert generator.seed() != generator.seed()
    seed = generator.seed()
    assert generator.state_bytes() == Generator().manual_seed(seed).state_bytes()


@pytest.mark.parametrize(
    ("seed", "error", "text"),
    [
        (1.5, RuntimeError, "manual_seed expected a long, but got float"),
        (True, RuntimeError, "manual_seed expected a long, but got bool"),
        (2**64, ValueError, "Overflow when unpacking long long"),
        (-(2**63) - 1, ValueError, "Overflow when unpacking long long"),
    ],
)
def test_seeds_that_are_none(seed, error, text):
    with pytest.raises(error, match=text):
        Generator().manual_seed(seed)


def test_states_that_are_none():
    generator = Generator()
    with pytest.raises(RuntimeError, match="size 5056 but found the input RNG state size to be 3"):
        generator.load_state_bytes(bytes(3))
    with pytest.raises(RuntimeError, match="Invalid mt19937 state"):
        generator.load_state_bytes(bytes(5056))
    broken = bytearray(generator.state_bytes())
    broken[8:12] = (624).to_bytes(4, "little")
    broken[16:24] = (600).to_bytes(8, "little")
    with pytest.raises(RuntimeError, match="Invalid mt19937 state"):
        generator.load_state_bytes(bytes(broken))


def test_other_devices():
    with pytest.raises(RuntimeError):
        Generator("cuda")


def test_threads_share_a_generator():
    generator, parts = Generator(), [buffer(5000, "int32") for _ in range(4)]

    def fill(part):
        for start in range(0, 5000, 50):
            engine.fill_random(generator, address(part[start:]), 50, types.int32)

    threads = [threading.Thread(target=fill, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = buffer(20000, "int32")
    engine.fill_random(Generator(), address(alone), 20000, types.int32)
    assert sorted(np.concatenate(parts)) == sorted(alone)


@pytest.mark.parametrize("n", [1, 2, 1000, 70000])
def test_permutations_are_permutations(n):
    numbers = buffer(n, "int64")
    engine.fill_randperm(Generator(), address(numbers), n, types.int64)
    assert (np.sort(numbers) == np.arange(n)).all()


def test_wide_permutations(monkeypatch):
    monkeypatch.setattr(engine, "LONGEST_32_BIT_SHUFFLE", 10)
    numbers = buffer(3000, "int32")
    engine.fill_randperm(Generator(), address(numbers), 3000, types.int32)
    words = np.random.RandomState(67280421310721 % 2**32).randint(0, 2**32, 6000, np.uint64)
    expected = list(range(3000))
    for i, (high, low) in enumerate(words.reshape(-1, 2).tolist()):
        place = ((high << 32) | low) % (i + 1)
        expected[i] = expected[place]
        expected[place] = i
    assert numbers.tolist() == expected


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([1.0, -1.0], "entry < 0"),
        ([1.0, float("nan")], "entry < 0"),
        ([1.0, float("inf")], "infinity or NaN"),
        ([0.0, 0.0], "sum of probabilities <= 0"),
    ],
)
def test_weights_that_are_none(weights, text):
    chosen, weights = buffer(3, "int64"), np.array(weights, np.float32)
    where = (address(chosen), 3, address(weights), types.float32, 2)
    with pytest.raises(RuntimeError, match=text):
        engine.fill_choices(Generator(), *where)


def test_dropout_noise():
    noise = buffer(10000, "float32")
    engine.fill_bernoulli(Generator(), address(noise), 10000, types.float32, 0.75, 1 / 0.75)
    assert set(noise.tolist()) == {0.0, float(np.float32(1 / 0.75))}
    assert abs(noise.mean() - 1) < 0.03


def test_bounds():
    assert random_bounds(types.int8, -5, None) == (-5, 128)
    assert random_bounds(types.bool_, 0, None) == (0, 2)
    assert random_bounds(types.float16, 5, None) == (5, 2049)
    with pytest.raises(RuntimeError, match="expects 'from' to be less than 'to', but got from=5"):
        random_bounds(types.int64, 5, 5)
    with pytest.raises(RuntimeError, match="to - 1 is out of bounds for unsigned char"):
        random_bounds(types.uint8, 0, 257)
    with pytest.raises(RuntimeError, match="from is out of bounds for c10::Half"):
        random_bounds(types.float16, -(2**60), 0)
    with pytest.warns(UserWarning, match=r"bounds \[-\(2\^24\), 2\^24\]"):
        random_bounds(types.float32, 0, 2**25)
