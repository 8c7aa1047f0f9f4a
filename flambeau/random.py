"""``torch.random``: seeds and states of the CPU generator."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

from flambeau.core import dtype as types
from flambeau.engine.generator import Generator, default_generator, tensor_bridge
from flambeau.interchange import tensor_from_array
from flambeau.tensor import Tensor


def _to_tensor(state: bytes) -> Tensor:
    return tensor_from_array(np.frombuffer(state, np.uint8), types.uint8)


def _from_tensor(state: Any) -> bytes:
    if not isinstance(state, Tensor):
        raise TypeError(f"expected a torch.ByteTensor, but got {type(state).__name__}")
    if state.dtype is not types.uint8:
        raise TypeError("RNG state must be a torch.ByteTensor")
    return ctypes.string_at(state.contiguous().data_ptr(), state.numel())  # type: ignore[attr-defined]


tensor_bridge.to_tensor = _to_tensor
tensor_bridge.from_tensor = _from_tensor


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator.  Returns it."""
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Seeds the default generator with an unpredictable number.  Returns that."""
    return default_generator.seed()


def initial_seed() -> int:
    """The number that the default generator was seeded with."""
    return default_generator.initial_seed()


def get_rng_state() -> Any:
    """The default generator's state as a byte tensor."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Sets the default generator's state."""
    default_generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(
    devices: Any = None, enabled: bool = True, *args: Any, **kwargs: Any
) -> Iterator[None]:
    """Puts the generator's state back at the end of the block."""
    state = get_rng_state() if enabled else None
    try:
        yield
    finally:
        if state is not None:
            set_rng_state(state)
