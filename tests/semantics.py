"""Describes what small programs over ``torch`` do, alike for PyTorch and for flambeau.

A case is a function of the ``torch`` module (and an expression is a case without a name); its
outcome is recorded from PyTorch by ``tools/record_semantics.py`` and compared here.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REFERENCES = Path(__file__).resolve().parent / "references" / "semantics"

Case = Callable[[Any], Any]


class Cases(dict):
    """Cases by name; ``add`` decorates a function, ``expressions`` takes a table of them."""

    def add(self, function: Case) -> Case:
        assert function.__name__ not in self, function.__name__
        self[function.__name__] = function
        return function

    def expressions(self, setup: Callable[[Any], dict[str, Any]], table: str) -> None:
        """One case per line; names come from ``setup(torch)``, ``torch`` and ``np``."""
        for line in filter(None, map(str.strip, table.splitlines())):
            assert line not in self, line
            self[line] = _expression(setup, line)


def _expression(setup: Callable[[Any], dict[str, Any]], line: str) -> Case:
    def run(torch: Any) -> Any:
        return eval(line, {"torch": torch, "np": np, **setup(torch)})

    return run


def attempt(torch: Any, function: Callable[[], Any]) -> Any:
    """What ``function`` returns or raises."""
    try:
        return describe(torch, function())
    except Exception as error:
        return describe_error(error)


def describe_error(error: BaseException) -> list[str]:
    """Type and first line; what only lists PyTorch's overloads is cut."""
    text = (str(error).splitlines() or [""])[0]
    text = text.split(" - got ")[0].replace("flambeau", "torch")
    return ["error", type(error).__name__, text]


def outcome(torch: Any, case: Case) -> Any:
    """Result (or error) and warnings of a case, as JSON data."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.manual_seed(0)
        result = attempt(torch, lambda: case(torch))
    told = [[w.category.__name__, _told(w.message)] for w in caught]
    told = [entry for entry in told if not entry[1].startswith(TOLD_ONCE)]
    return json.loads(json.dumps({"result": result, "warnings": told}))


# What PyTorch says only once per process, and what is said about its own insides.
TOLD_ONCE = (
    "Using backward() with create_graph=True",
    "TypedStorage is deprecated",
    "The use of `x.T`",
    "Tensor.T is deprecated",
    "Tensor.mT is deprecated",
    "Tensor.H is deprecated",
    "Using a non-tuple sequence",
    "The reduce argument of torch.scatter",
    "Converting a tensor with requires_grad=True to a scalar",
    "Creating a tensor from a list of numpy.ndarrays",
    "The given NumPy array is not writable",
    "__array_wrap__ must accept",
    "__array__ implementation doesn't accept",
)


def _told(message: Any) -> str:
    return str(message).splitlines()[0].split(" (Triggered internally")[0]


def describe(torch: Any, value: Any) -> Any:
    """A value as JSON data; tensors with everything that can be seen of them."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, torch.Tensor):
        return describe_tensor(torch, value)
    if isinstance(value, np.ndarray):
        return ["array", value.dtype.str, list(value.shape), describe(torch, value.tolist())]
    if isinstance(value, dict):
        return {str(k): describe(torch, v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(torch, v) for v in value]
    if hasattr(value, "next_functions"):
        return f"node {value.name()}"
    return str(value).replace("flambeau", "torch")


def describe_tensor(torch: Any, value: Any) -> dict[str, Any]:
    grad_fn = value.grad_fn
    with torch.no_grad():
        plain = value.detach()
        numbers = plain.tolist()
    result = {
        "dtype": str(value.dtype),
        "shape": list(value.shape),
        "values": describe(torch, numbers),
    }
    if value.numel() > 1:
        result["strides"] = [s for s, n in zip(value.stride(), value.shape, strict=True) if n > 1]
    if value.requires_grad:
        result["grad_fn"] = None if grad_fn is None else grad_fn.name()
    return result


def difference(expected: Any, found: Any, where: str = "", tolerance: float = 2e-6) -> str | None:
    """The first place where two outcomes differ; floats may by rounding."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in {**expected, **found}:
            if key not in expected or key not in found:
                return f"{where}.{key}: expected {expected.get(key)!r}, found {found.get(key)!r}"
            inner = difference(expected[key], found[key], f"{where}.{key}", tolerance)
            if inner:
                return inner
        return None
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for k, (a, b) in enumerate(zip(expected, found, strict=True)):
            inner = difference(a, b, f"{where}[{k}]", tolerance)
            if inner:
                return inner
        return None
    if isinstance(expected, float) and isinstance(found, (int, float)):
        if math.isclose(expected, found, rel_tol=tolerance, abs_tol=tolerance):
            return None
    elif type(expected) is type(found) and expected == found:
        return None
    return f"{where}: expected {expected!r}, found {found!r}"


def recorded(title: str) -> dict[str, Any]:
    """PyTorch's outcomes of one table of cases."""
    found: dict[str, Any] = json.loads((REFERENCES / f"{title}.json").read_text())
    return found


def check(title: str, cases: Cases, name: str, torch: Any) -> None:
    """Asserts that a case ends as it did in PyTorch."""
    expected = (
        _tables.setdefault(title, {}) or _tables[title].update(recorded(title)) or _tables[title]
    )
    assert name in expected, f"run tools/record_semantics.py {title}"
    told = difference(expected[name], outcome(torch, cases[name]))
    assert told is None, f"{name}{told}"


_tables: dict[str, dict[str, Any]] = {}
