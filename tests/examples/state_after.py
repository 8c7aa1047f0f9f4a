"""The bits of an example's parameters after so many steps, for comparing ways to run it.

python -m tests.examples.state_after examples/lenet.py 200 [compiled]

``compiled`` compiles the first module that the program calls, its model.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import runpy
import sys
from typing import Any

import flambeau as torch


class _Enough(Exception):
    """So many steps were taken."""


def compile_first() -> None:
    """Makes the first module that the program calls compile itself."""
    plain_call = torch.nn.Module.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        torch.nn.Module.__call__ = plain_call
        self.compile()
        return self(*args, **kwargs)

    torch.nn.Module.__call__ = call


def state_after(program: str, steps: int, compiled: bool = False) -> str:
    """Runs the program for at most ``steps`` optimiser steps; how many, and a digest of all
    parameters.
    """
    torch.install_as_torch()
    if compiled:
        compile_first()
    taken = 0
    parameters: list[Any] = []

    def counted(step: Any) -> Any:
        @functools.wraps(step)
        def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
            nonlocal taken, parameters
            result = step(self, *arguments, **named)
            taken += 1
            parameters = [p for group in self.param_groups for p in group["params"]]
            if taken == steps:
                raise _Enough
            return result

        return wrapped

    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        kind.step = counted(kind.step)
    sys.argv = [program]
    with contextlib.suppress(_Enough), contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(program, run_name="__main__")
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in parameters))
    return f"{taken} steps {digest.hexdigest()}"


if __name__ == "__main__":
    print(state_after(sys.argv[1], int(sys.argv[2]), "compiled" in sys.argv))
