"""Every operator against what PyTorch recorded for its samples, under window 1 and the full one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_tensors as table

import flambeau as torch
from flambeau.core import dtype as types
from flambeau.core.config import config
from flambeau.engine.tape import thread
from flambeau.ops.operator import Operator

FOLDER = Path(__file__).resolve().parent.parent / "references" / "ops"
OPERATORS = table.with_samples()
TOLERANCE = {
    "float16": (2e-3, 2e-3),
    "bfloat16": (2e-2, 2e-2),
    "float32": (2e-5, 2e-5),
    "float64": (1e-9, 1e-9),
}
WINDOWS = [1, 1024]


@pytest.fixture(params=WINDOWS)
def window(request: pytest.FixtureRequest) -> Iterator[int]:
    before = config.window
    config.window = request.param
    thread.tape.flush()
    thread.tape.remaining = request.param
    yield request.param
    thread.tape.flush()
    config.window = before
    thread.tape.remaining = before


def build(made: table.Made) -> torch.Tensor:
    tensor = torch.tensor(made.values)
    if made.dtype == "bfloat16":
        tensor = tensor.bfloat16()
    return tensor.t() if made.transposed else tensor


def decode(entry: dict[str, Any]) -> np.ndarray:
    kind = types.BY_NAME[entry["dtype"]]
    raw = np.frombuffer(base64.b64decode(entry["data"]), kind.numpy).reshape(entry["shape"])
    if kind is types.bfloat16:
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw


def values_of(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def check(found: torch.Tensor, expected: dict[str, Any], what: str, strides: bool = True) -> None:
    assert str(found.dtype).removeprefix("torch.") == expected["dtype"], what
    assert list(found.shape) == expected["shape"], what
    if strides and found.numel() > 1:
        sizes = expected["shape"]
        mine = [s for s, n in zip(found.stride(), sizes, strict=True) if n > 1]
        theirs = [s for s, n in zip(expected["strides"], sizes, strict=True) if n > 1]
        assert mine == theirs, f"{what}: strides"
    rtol, atol = TOLERANCE.get(expected["dtype"], (0, 0))
    np.testing.assert_allclose(
        values_of(found), decode(expected), rtol=rtol, atol=atol, equal_nan=True, err_msg=what
    )


def references(op: Operator) -> list[dict[str, Any]]:
    path = FOLDER / f"{op.name}.json"
    assert path.exists(), f"no reference for {op.name}: run tools/record_ops.py {op.name}"
    entries: list[dict[str, Any]] = json.loads(path.read_text())
    return entries


def cases(op: Operator) -> Iterator[tuple[str, list[Any], dict[str, Any], dict[str, Any]]]:
    recorded = references(op)
    listed = list(table.samples(op))
    assert len(recorded) == len(listed), f"{op.name}: samples changed; record them again"
    for k, ((values, keywords), expected) in enumerate(zip(listed, recorded, strict=True)):
        yield f"{op.name} sample {k}", values, keywords, expected


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_values(op: Operator, window: int) -> None:
    for what, values, keywords, expected in cases(op):
        arguments, named = table.convert(values, build), table.convert(keywords, build)
        if "error" in expected:
            with pytest.raises(Exception) as caught:
                op(*arguments, **named)
            assert type(caught.value).__name__ == expected["error"][0], what
            continue
        tensors = table.leaves((arguments, named), torch.Tensor)
        outputs = table.leaves(op(*arguments, **named), torch.Tensor)
        assert len(outputs) == len(expected["results"]), what
        for found, reference, shared in zip(
            outputs, expected["results"], expected["aliases"], strict=True
        ):
            check(found, reference, what)
            mine = [k for k, t in enumerate(tensors) if t.numel() and t._storage is found._storage]
            assert mine == shared, f"{what}: aliasing"


def gradients(
    op: Operator, what: str, values: list[Any], keywords: dict[str, Any]
) -> tuple[torch.Tensor | None, ...]:
    """Of the sum of all outputs, each times its cotangent, by every floating tensor."""
    arguments, named = table.convert(values, build), table.convert(keywords, build)
    tensors = table.leaves((arguments, named), torch.Tensor)
    floating = [t for t in tensors if t.is_floating_point()]
    for t in floating:
        t.requires_grad_()
    outputs = table.leaves(op(*arguments, **named), torch.Tensor)
    total = sum(
        (t * torch.tensor(table.cotangent(t.shape, k)).to(t.dtype)).sum()
        for k, t in enumerate(outputs)
        if t.requires_grad
    )
    assert isinstance(total, torch.Tensor), f"{what}: no output requires grad"
    found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(total, floating, allow_unused=True)
    return found


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_gradients(op: Operator, window: int) -> None:
    for what, values, keywords, expected in cases(op):
        if "grads" not in expected:
            continue
        found = gradients(op, what, values, keywords)
        for gradient, reference in zip(found, expected["grads"], strict=True):
            if reference is None:
                assert gradient is None, f"{what}: PyTorch gives no gradient here"
            else:
                assert gradient is not None, f"{what}: gradient missing"
                check(gradient, reference, f"{what}: gradient", strides=False)


@pytest.mark.parametrize(
    "op", [op for op in OPERATORS if "inplace" in op.variants], ids=lambda op: op.name
)
def test_inplace_form_equals_function(op: Operator, window: int) -> None:
    for what, values, keywords, expected in cases(op):
        if "error" in expected or not isinstance(values[0], table.Made):
            continue
        arguments, named = table.convert(values, build), table.convert(keywords, build)
        plain = op(*arguments, **named)
        target = arguments[0].clone()
        if plain.shape != target.shape or plain.dtype is not target.dtype:
            continue
        before = target._version
        returned = getattr(target, f"{op.name}_")(*arguments[1:], **named)
        assert returned is target, what
        assert target._version > before, f"{what}: version"
        np.testing.assert_array_equal(values_of(target), values_of(plain), err_msg=what)


@pytest.mark.parametrize(
    "op", [op for op in OPERATORS if "out" in op.variants], ids=lambda op: op.name
)
def test_out_form_equals_function(op: Operator, window: int) -> None:
    for what, values, keywords, expected in cases(op):
        if "error" in expected:
            continue
        arguments, named = table.convert(values, build), table.convert(keywords, build)
        plain = op(*arguments, **named)
        if not isinstance(plain, torch.Tensor):
            continue
        out = torch.empty(0, dtype=plain.dtype)
        assert op(*arguments, out=out, **named) is out, what
        assert out.shape == plain.shape, what
        np.testing.assert_array_equal(values_of(out), values_of(plain), err_msg=what)


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_windows_agree_bit_for_bit(op: Operator) -> None:
    def run(size: int) -> list[bytes]:
        before, config.window = config.window, size
        thread.tape.flush()
        thread.tape.remaining = size
        try:
            return compute()
        finally:
            thread.tape.flush()
            config.window = before
            thread.tape.remaining = before

    def compute() -> list[bytes]:
        found = []
        for what, values, keywords, expected in cases(op):
            if "error" in expected:
                continue
            if "grads" in expected:
                slopes = gradients(op, what, values, keywords)
                found += [values_of(g).tobytes() for g in slopes if g is not None]
            arguments, named = table.convert(values, build), table.convert(keywords, build)
            floats = [t for t in table.leaves(arguments, torch.Tensor) if t.is_floating_point()]
            scaled = [t * 1.5 for t in floats]
            outputs = table.leaves(op(*arguments, **named), torch.Tensor)
            doubled = [t * 2 if t.is_floating_point() else t for t in outputs]
            found += [values_of(t).tobytes() for t in (*scaled, *doubled)]
        return found

    assert run(1) == run(1024)
