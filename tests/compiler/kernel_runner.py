"""Runs a function of kernel values over numpy arrays: traced, compiled and called directly."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from flambeau.compiler import schedule
from flambeau.compiler.jit import compile_module
from flambeau.compiler.kernel import UNIT, Operand, Tracer, Value
from flambeau.compiler.target import host
from flambeau.core import dtype as types


def run(function: Callable[..., Value], *arrays: np.ndarray) -> np.ndarray:
    """``function`` of every element, in one loop over the whole arrays."""
    tracer = Tracer()
    arrays = tuple(np.ascontiguousarray(a) for a in arrays)
    values = []
    for array in arrays:
        operand = tracer.operand(Operand(types.FROM_NUMPY[array.dtype], UNIT))
        values.append(tracer.load(operand))
    result = function(*values)
    out = np.empty(arrays[0].shape, result.dtype.numpy)
    tracer.store(tracer.operand(Operand(result.dtype, UNIT)), result)
    kernel = tracer.finish((False,))
    addresses = compile_module(
        "kernel\n" + kernel.key, lambda: schedule.source(kernel, host()), [schedule.FUNCTION]
    )
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
        addresses[schedule.FUNCTION]
    )
    operands = [*arrays, out]
    words = [a.ctypes.data for a in operands] + [out.size] + [1] * len(operands)
    block = (ctypes.c_int64 * len(words))(*words)
    call(ctypes.addressof(block), 0, out.size)
    return out
