"""Random numbers on the CPU: the generator, and what fills memory with its draws.

`Generator` is PyTorch's CPU generator: the same seed gives the same numbers, in the same order of
draws, and its state is interchangeable with ``torch.get_rng_state()``.  The ``fill_*`` functions
write ``numel`` contiguous elements at an address; they draw at once, so calling them in program
order keeps the order of draws.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import struct
import threading
from array import array
from collections.abc import Callable
from typing import Any

from flambeau.compiler.random import kernel
from flambeau.compiler.random_draw import (
    BLOCK_WORDS,
    LEFT,
    NEXT,
    NORMAL,
    NORMAL_IS_VALID,
    SCRATCH,
    STATE_LENGTH,
)
from flambeau.compiler.random_normal import GROUP
from flambeau.compiler.random_serial import LONGEST_32_BIT_SHUFFLE
from flambeau.core import dtype as types
from flambeau.core.device import CPU, device
from flambeau.core.dtype import dtype
from flambeau.engine.random_bounds import INT64_MAX, SIGNIFICAND, element_bits

DEFAULT_SEED = 67280421310721
STATE_BYTES = 5056

# The initial seed; left, seeded; next; the state in 64-bit words; normal_x, normal_y, normal_rho
# and whether normal_y is valid; the cached float and whether it is valid.
_STATE = struct.Struct(f"<QiiQ{STATE_LENGTH}Qdddi4xf?3x")
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_ALIGNMENT = 64


class TensorBridge:
    """How states become tensors and back; the tensor layer installs its own pair of functions."""

    to_tensor: Callable[[bytes], Any] = staticmethod(bytes)
    from_tensor: Callable[[Any], bytes] = staticmethod(bytes)


tensor_bridge = TensorBridge()


class Generator:
    """A stream of random numbers (mt19937).

    ``Generator(device="cpu")`` starts with PyTorch's default seed.

    >>> generator = Generator().manual_seed(0)
    >>> generator.initial_seed()
    0
    """

    __slots__ = (
        "__weakref__",
        "_arguments",
        "_expanded",
        "_memory",
        "_seed",
        "_words",
        "address",
        "lock",
    )

    def __init__(self, device: str | device = "cpu") -> None:
        _check_device(device)
        self._memory = ctypes.create_string_buffer(4 * BLOCK_WORDS + _ALIGNMENT)
        start = -ctypes.addressof(self._memory) % _ALIGNMENT
        self.address = ctypes.addressof(self._memory) + start
        self._words = memoryview(self._memory).cast("B")[start : start + 4 * BLOCK_WORDS].cast("I")
        self._arguments = ctypes.create_string_buffer(8 * 6)
        self.lock = threading.Lock()
        self._seed = DEFAULT_SEED
        self._start(DEFAULT_SEED)

    @property
    def device(self) -> device:
        """Where the numbers are made: always the CPU."""
        return CPU

    # -- seeds -----------------------------------------------------------------------------------

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream of ``seed`` (negative ones wrap around); returns itself."""
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            name = type(seed).__name__
            raise RuntimeError(f"manual_seed expected a long, but got {name}")
        seed = seed.__index__()
        if not -(1 << 63) <= seed < 1 << 64:
            raise ValueError("Overflow when unpacking long long")
        with self.lock:
            self._start(seed % (1 << 64))
        return self

    def seed(self) -> int:
        """Starts an unpredictable stream; returns its seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """The seed that the stream started with."""
        return self._seed

    def _start(self, seed: int) -> None:
        self._seed = seed
        self._expanded = False

    def _expand(self) -> None:
        """Fills in the state of a new seed, before its first use; called with the lock held."""
        self._expanded = True
        self._set_position(1, 0, None)
        first = self._seed & 0xFFFFFFFF
        _INTEGER.pack_into(self._arguments, 0, self.address, self.address, first)
        _function("seed", types.int32)(self._arguments, 0, STATE_LENGTH)

    def _set_words(self, words: list[int], left: int, position: int, normal: float | None) -> None:
        self._words[:STATE_LENGTH] = array("I", words)
        self._expanded = True
        self._set_position(left, position, normal)

    def _set_position(self, left: int, position: int, normal: float | None) -> None:
        block = self._words
        block[LEFT], block[NEXT] = left, position
        block[NORMAL_IS_VALID] = normal is not None
        low, high = struct.unpack("<II", struct.pack("<d", normal or 0.0))
        block[NORMAL], block[NORMAL + 1] = low, high

    # -- state -----------------------------------------------------------------------------------

    def state_bytes(self) -> bytes:
        """The state, byte for byte as PyTorch writes it."""
        with self.lock:
            if not self._expanded:
                self._expand()
            words = self._words[:SCRATCH].tolist()
        valid = words[NORMAL_IS_VALID]
        normal = 0.0
        if valid:
            [normal] = struct.unpack("<d", struct.pack("<II", *words[NORMAL : NORMAL + 2]))
        position = (words[LEFT], 1, words[NEXT])
        state = words[:STATE_LENGTH]
        return _STATE.pack(self._seed, *position, *state, 0.0, normal, 0.0, valid, 0.0, False)

    def load_state_bytes(self, state: bytes) -> None:
        """Goes on from a state that `state_bytes`, or PyTorch, wrote."""
        if len(state) != STATE_BYTES:
            raise RuntimeError(
                f"Expected a CPUGeneratorImplState of size {STATE_BYTES} but found the input RNG "
                f"state size to be {len(state)}"
            )
        seed, left, seeded, position, *rest = _STATE.unpack(state)
        words = [word & 0xFFFFFFFF for word in rest[:STATE_LENGTH]]
        _, normal, _, normal_is_valid, _, _ = rest[STATE_LENGTH:]
        position &= 0xFFFFFFFF
        if not seeded or not 0 < left <= STATE_LENGTH or position + left - 1 > STATE_LENGTH:
            raise RuntimeError("Invalid mt19937 state")
        with self.lock:
            self._seed = seed
            self._set_words(words, left, position, normal if normal_is_valid else None)

    def get_state(self) -> Any:
        """The state as a ``uint8`` tensor of 5056 elements."""
        return tensor_bridge.to_tensor(self.state_bytes())

    def set_state(self, new_state: Any) -> None:
        """Goes on from a state that `get_state` gave."""
        self.load_state_bytes(tensor_bridge.from_tensor(new_state))

    def clone_state(self) -> Generator:
        """A generator that will draw the same numbers."""
        clone = Generator()
        clone.load_state_bytes(self.state_bytes())
        return clone

    def get_offset(self) -> int:
        raise RuntimeError("CPU Generator does not use offset")

    def set_offset(self, offset: int) -> None:
        raise RuntimeError("CPU Generator does not use offset")

    def __reduce__(self) -> tuple[Any, ...]:
        return Generator, (self.device,), self.state_bytes()

    def __setstate__(self, state: bytes) -> None:
        self.load_state_bytes(state)

    # -- draws -----------------------------------------------------------------------------------

    def random(self) -> int:
        """The next 32 bits."""
        value = ctypes.c_uint32()
        _fill(self, "bits_32", types.int32, _INTEGERS, ctypes.addressof(value), 1, -1, 0)
        return value.value

    def run(
        self, function: Any, arguments: struct.Struct, *values: Any, begin: int, end: int
    ) -> None:
        """Calls a kernel of `flambeau.compiler.random` on this generator, one call at a time."""
        with self.lock:
            if not self._expanded:
                self._expand()
            arguments.pack_into(self._arguments, 0, self.address, *values)
            function(self._arguments, begin, end)


def _check_device(where: str | device) -> None:
    kind = device(where).type
    if kind != "cpu":
        raise RuntimeError(
            f"Device type {kind.upper()} is not supported for torch.Generator() api."
        )


default_generator = Generator()
default_generator.seed()


# -- calling kernels ---------------------------------------------------------------------------

_POINTER = struct.Struct("QQ")
_REALS = struct.Struct("QQdd")
_REAL = struct.Struct("QQd")
_INTEGER = struct.Struct("QQq")
_INTEGERS = struct.Struct("QQqq")
_POINTER_AND_INTEGER = struct.Struct("QQQq")
_TWO_POINTERS = struct.Struct("QQQQ")

# Kernels that only move bits are shared by all types of a size.
_BITS = {1: types.int8, 2: types.int16, 4: types.int32, 8: types.int64}


@functools.cache
def _function(kind: str, target: dtype) -> Any:
    return _KERNEL(kernel(kind, target))


def _fill(
    generator: Generator | None,
    kind: str,
    target: dtype,
    arguments: struct.Struct,
    address: int,
    numel: int,
    *values: Any,
) -> None:
    if numel > 0:
        source = default_generator if generator is None else generator
        source.run(_function(kind, target), arguments, address, *values, begin=0, end=numel)


# -- real numbers ------------------------------------------------------------------------------


def fill_uniform(
    generator: Generator | None,
    address: int,
    numel: int,
    dtype: dtype,
    low: float = 0.0,
    high: float = 1.0,
) -> None:
    """Uniform numbers in [low, high)."""
    _fill(generator, "uniform", dtype, _REALS, address, numel, low, high)


def fill_normal(
    generator: Generator | None,
    address: int,
    numel: int,
    dtype: dtype,
    mean: float = 0.0,
    std: float = 1.0,
    *,
    contiguous: bool = True,
) -> None:
    """Normal numbers.

    PyTorch draws otherwise for tensors of less than 16 elements or that are not contiguous: for the
    latter, fill a contiguous buffer with ``contiguous=False`` and copy it.
    """
    kind = "normal" if contiguous and numel >= GROUP else "normal_each"
    _fill(generator, kind, dtype, _REALS, address, numel, mean, std)


def fill_log_normal(
    generator: Generator | None,
    address: int,
    numel: int,
    dtype: dtype,
    mean: float = 1.0,
    std: float = 2.0,
) -> None:
    """Exponentials of normal numbers."""
    _fill(generator, "log_normal", dtype, _REALS, address, numel, mean, std)


def fill_exponential(
    generator: Generator | None, address: int, numel: int, dtype: dtype, rate: float = 1.0
) -> None:
    """Exponentially distributed numbers of mean ``1 / rate``."""
    _fill(generator, "exponential", dtype, _REAL, address, numel, rate)


def fill_cauchy(
    generator: Generator | None,
    address: int,
    numel: int,
    dtype: dtype,
    median: float = 0.0,
    sigma: float = 1.0,
) -> None:
    """Cauchy distributed numbers."""
    _fill(generator, "cauchy", dtype, _REALS, address, numel, median, sigma)


def fill_geometric(
    generator: Generator | None, address: int, numel: int, dtype: dtype, p: float
) -> None:
    """The number of the first success among trials that succeed with probability ``p``."""
    _fill(generator, "geometric", dtype, _REAL, address, numel, p)


# -- Bernoulli ---------------------------------------------------------------------------------


def fill_bernoulli(
    generator: Generator | None,
    address: int,
    numel: int,
    dtype: dtype,
    p: float,
    one: float = 1.0,
) -> None:
    """``one`` with probability ``p``, else 0.

    Dropout's noise is ``p = 1 - rate`` and ``one = 1 / (1 - rate)``.
    """
    threshold = math.ceil(math.ldexp(p, 53))
    bits = element_bits(one, dtype)
    target = _BITS[dtype.itemsize]
    _fill(generator, "bernoulli", target, _INTEGERS, address, numel, threshold, bits)


def fill_bernoulli_each(
    generator: Generator | None,
    address: int,
    numel: int,
    dtype: dtype,
    probabilities: int,
    probability_dtype: dtype,
) -> None:
    """1 with the probability of each element, read from the address ``probabilities``.

    They are contiguous, float32 or float64 (widen float16 and bfloat16 to float32), and in [0, 1].
    """
    kind = f"bernoulli_{probability_dtype.name}"
    bits = element_bits(1.0, dtype)
    target = _BITS[dtype.itemsize]
    _fill(generator, kind, target, _POINTER_AND_INTEGER, address, numel, probabilities, bits)


# -- integers ----------------------------------------------------------------------------------

# From this size of range on, PyTorch draws 64 bits.
_WIDE_RANGE = 1 << 28


def fill_random(generator: Generator | None, address: int, numel: int, dtype: dtype) -> None:
    """``random_()`` without bounds: 0 up to the type's maximum, or to 2**significand for floats."""
    if dtype.is_floating_point:
        count = (1 << SIGNIFICAND[dtype]) + 1
        draws = 2 if dtype is types.float64 else 1
        fill_randint(generator, address, numel, dtype, 0, count, draws=draws)
        return
    mask = 1 if dtype is types.bool_ else types.iinfo(dtype).max
    kind = "bits_64" if dtype is types.int64 else "bits_32"
    _fill(generator, kind, dtype, _INTEGERS, address, numel, mask, 0)


def fill_random_full(generator: Generator | None, address: int, numel: int, dtype: dtype) -> None:
    """``random_(-2**63, None)``: any 64-bit number, for int64, float64, float32 and bfloat16."""
    _fill(generator, "bits_64", dtype, _INTEGERS, address, numel, -1, 0)


def fill_randint(
    generator: Generator | None,
    address: int,
    numel: int,
    dtype: dtype,
    low: int,
    high: int,
    *,
    draws: int | None = None,
) -> None:
    """Integers in [low, high), after `random_bounds.random_bounds` had a look at the bounds.

    ``draws`` is how many 32-bit numbers make one element; PyTorch takes 2 for wide ranges.
    """
    count = high - low
    if draws is None:
        draws = 2 if count >= _WIDE_RANGE else 1
    kind = "remainder_64" if draws == 2 else "remainder_32"
    wrapped = count - (1 << 64) if count > INT64_MAX else count
    _fill(generator, kind, dtype, _INTEGERS, address, numel, wrapped, low)


# -- permutations and choices ------------------------------------------------------------------


def fill_randperm(generator: Generator | None, address: int, n: int, dtype: dtype) -> None:
    """A permutation of 0 … n - 1."""
    kind = "permutation" if n <= LONGEST_32_BIT_SHUFFLE else "permutation_wide"
    _fill(generator, kind, dtype, _POINTER, address, n)


def fill_choices(
    generator: Generator | None,
    address: int,
    numel: int,
    weights: int,
    weight_dtype: dtype,
    categories: int,
) -> None:
    """Int64 indices drawn with replacement: one row of ``multinomial(…, replacement=True)``.

    For a single index PyTorch draws otherwise: the largest of ``weights / exponential_()``.

    ``weights`` is the address of ``categories`` contiguous float32 or float64 numbers that need not
    sum to 1.  RuntimeError in PyTorch's words for weights that are no distribution.
    """
    sums = ctypes.create_string_buffer(categories * weight_dtype.itemsize)
    status = ctypes.c_int64()
    where = (ctypes.addressof(sums), weights, ctypes.addressof(status))
    source = default_generator if generator is None else generator
    _fill(source, "cumulative", weight_dtype, _TWO_POINTERS, where[0], categories, *where[1:])
    if status.value:
        raise RuntimeError(f"invalid multinomial distribution ({_WEIGHT_FAULTS[status.value]})")
    _fill(
        source, "choice", weight_dtype, _POINTER_AND_INTEGER, address, numel, where[0], categories
    )


_WEIGHT_FAULTS = {
    1: "encountering probability entry < 0",
    2: "encountering probability entry = infinity or NaN",
    3: "sum of probabilities <= 0",
}
