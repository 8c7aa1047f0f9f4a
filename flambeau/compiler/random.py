"""The kernels of the random generator, compiled one by one when they are first needed.

`kernel` gives the address of a function ``void (args, begin, end)`` that fills ``out[begin:end]``.
The argument block is ``state, out`` and up to four parameters (`random_draw` lays it out; each body
names its parameters).  Draws are taken in order, so a range must not be cut among threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from flambeau.compiler import random_normal, random_serial, random_uniform
from flambeau.compiler.jit import compile_module
from flambeau.compiler.random_draw import random_module
from flambeau.compiler.random_uniform import Body
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype


def _bernoulli(target: dtype) -> Body:
    return random_uniform.bernoulli_body(target.itemsize)


def _bernoulli_each(source: dtype) -> Callable[[dtype], Body]:
    return lambda target: random_uniform.bernoulli_each_body(target.itemsize, source)


_BODIES: dict[str, Callable[[dtype], Body]] = {
    "uniform": random_uniform.uniform_body,
    "bernoulli": _bernoulli,
    "bernoulli_float32": _bernoulli_each(types.float32),
    "bernoulli_float64": _bernoulli_each(types.float64),
    "remainder_32": lambda target: random_uniform.remainder_body(target, 1),
    "remainder_64": lambda target: random_uniform.remainder_body(target, 2),
    "bits_32": lambda target: random_uniform.bits_body(target, 1),
    "bits_64": lambda target: random_uniform.bits_body(target, 2),
    "normal": random_normal.normal_body,
    "normal_each": lambda target: random_serial.normal_each_body(target, exponentiate=False),
    "log_normal": lambda target: random_serial.normal_each_body(target, exponentiate=True),
    "exponential": lambda target: random_serial.transform_body(target, random_serial.exponential),
    "geometric": lambda target: random_serial.transform_body(target, random_serial.geometric),
    "cauchy": lambda target: random_serial.transform_body(target, random_serial.cauchy),
    "permutation": lambda target: random_serial.permutation_body(target, wide=False),
    "permutation_wide": lambda target: random_serial.permutation_body(target, wide=True),
    "seed": random_serial.seed_body,
    "choice": random_serial.choice_body,
    "cumulative": random_serial.cumulative_body,
}


@functools.cache
def kernel(kind: str, target: dtype) -> int:
    """The address of the kernel ``kind`` for elements of type ``target``."""
    name = f"random_{kind}"

    def source() -> str:
        return random_module(name, _BODIES[kind](target))

    return compile_module(f"random.{kind}.{target.name}", source, [name])[name]
