"""The only module that imports llvmlite: IR text to objects and assembly.

Loaded on the first cache miss.  llvmlite guards every call with one lock; emitting, which is
nearly all of the time, is called past that lock with a context and a target machine per thread,
which LLVM allows, so `compile_many` really runs in parallel.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import llvmlite.binding as binding
from llvmlite.binding import ffi

from flambeau.compiler.target import Target

_CODEGEN_LEVEL = 2

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

binding.initialize_all_targets()
binding.initialize_all_asmprinters()
binding.initialize_native_asmparser()  # for inline assembly


class _PerThread(threading.local):
    """Target machines may not be shared between threads that emit at the same time."""

    def __init__(self) -> None:
        self.machines: dict[Target, binding.TargetMachine] = {}


_per_thread = _PerThread()


def _machine(target: Target) -> binding.TargetMachine:
    machine = _per_thread.machines.get(target)
    if machine is None:
        machine = binding.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu,
            features=target.attributes,
            opt=_CODEGEN_LEVEL,
            reloc="pic",
            codemodel="default" if target.name == "nvptx" else "small",
        )
        _per_thread.machines[target] = machine
    return machine


def emit(text: str, target: Target, *, passes: bool, assembly: bool) -> bytes:
    """The module's object file, or its assembly; RuntimeError if the text is not valid IR."""
    machine = _machine(target)
    context = binding.create_context()
    module = binding.parse_assembly(text, context)
    try:
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        module.verify()
        if passes:
            _optimise(module, machine)
        return _emit_unlocked(module, machine, assembly)
    finally:
        module.close()


def _optimise(module: binding.ModuleRef, machine: binding.TargetMachine) -> None:
    options = binding.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


# A second handle on the library that llvmlite loaded: calls through it release the interpreter
# lock and do not take llvmlite's.
_library = ctypes.CDLL(ffi.lib._name)
_emit_to_memory = _library.LLVMPY_TargetMachineEmitToMemory
_emit_to_memory.restype = ctypes.c_void_p
_emit_to_memory.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
_buffer_start = _library.LLVMPY_GetBufferStart
_buffer_start.restype = ctypes.c_void_p
_buffer_start.argtypes = [ctypes.c_void_p]
_buffer_size = _library.LLVMPY_GetBufferSize
_buffer_size.restype = ctypes.c_size_t
_buffer_size.argtypes = [ctypes.c_void_p]
_dispose_buffer = _library.LLVMPY_DisposeMemoryBuffer
_dispose_buffer.restype = None
_dispose_buffer.argtypes = [ctypes.c_void_p]


def _emit_unlocked(
    module: binding.ModuleRef, machine: binding.TargetMachine, assembly: bool
) -> bytes:
    message = ctypes.c_void_p()
    buffer = _emit_to_memory(
        ctypes.cast(machine._ptr, ctypes.c_void_p),
        ctypes.cast(module._ptr, ctypes.c_void_p),
        int(not assembly),
        ctypes.byref(message),
    )
    if not buffer:
        text = ctypes.string_at(message.value).decode() if message.value else "no code emitted"
        raise RuntimeError(text)
    try:
        return ctypes.string_at(_buffer_start(buffer), _buffer_size(buffer))
    finally:
        _dispose_buffer(buffer)


def in_parallel(
    function: Callable[[_Item], _Result], items: Sequence[_Item], threads: int
) -> list[_Result]:
    """``[function(item) for item in items]`` on several threads."""
    if len(items) < 2 or threads < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(len(items), threads)) as pool:
        return list(pool.map(function, items))


def keep_for_report(text: str) -> str | None:
    """Writes the text to a new temporary file; its path, or None if that fails."""
    try:
        handle, path = tempfile.mkstemp(prefix="flambeau-", suffix=".ll")
        with os.fdopen(handle, "w") as file:
            file.write(text)
    except OSError:
        return None
    return path
