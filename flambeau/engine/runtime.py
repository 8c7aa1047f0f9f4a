"""The one CPU backend and target of the process, joined here: the layers below do not know each
other.
"""

from __future__ import annotations

from flambeau.backend.cpu import CpuBackend
from flambeau.compiler.jit import compile_module
from flambeau.compiler.target import host

backend = CpuBackend(compile_module)
target = host()
