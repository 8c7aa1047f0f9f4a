"""Running a program as it is and compiled, and comparing bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flambeau as torch

Compile = Callable[[Callable[..., Any]], Any]


def _bytes_of(tensor: torch.Tensor) -> bytes:
    tensor = tensor.detach().contiguous()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy().tobytes()


def same(a: Any, b: Any) -> bool:
    """Whether two results are equal in kind, layout and every bit."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or a.shape != b.shape or a.dtype is not b.dtype:
            return False
        if a.stride() != b.stride() or a.requires_grad != b.requires_grad:
            return False
        return _bytes_of(a) == _bytes_of(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (a != a and b != b)


def agree(program: Callable[[Compile], list[Any]]) -> list[Any]:
    """Runs the program plain and compiled; returns the compiled functions that it made."""
    torch.manual_seed(0)
    expected = program(lambda function: function)
    after = torch.get_rng_state()
    made: list[Any] = []

    def compile(function: Callable[..., Any]) -> Any:
        result = torch.compile(function)
        made.append(result)
        return result

    torch.manual_seed(0)
    found = program(compile)
    assert len(expected) == len(found)
    for k, (a, b) in enumerate(zip(expected, found, strict=True)):
        assert same(a, b), f"result {k}: {a} became {b}"
    assert bool((after == torch.get_rng_state()).all()), "random numbers were drawn otherwise"
    return [f.__dict__["forward"] if isinstance(f, torch.nn.Module) else f for f in made]


def replayed(program: Callable[[Compile], list[Any]], least: int = 1) -> None:
    """The program agrees, and its compiled functions were replayed."""
    for function in agree(program):
        assert function.reason is None, function.reason
        assert function.replays >= least, f"{function.replays} replays, {function.last_failure}"


def recorded(program: Callable[[Compile], list[Any]], reason: str) -> None:
    """The program agrees, and its compiled function fell back for that reason."""
    [function] = agree(program)
    assert function.reason is not None, f"{function.replays} replays"
    assert reason in function.reason, function.reason
