"""Records what PyTorch answers to the operators' samples: run with an interpreter that has torch.

    python tools/record_ops.py [NAME …]

Writes tests/references/ops/NAME.json: per sample the results (or the error), and the gradients of
the floating inputs for a fixed cotangent.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "ops"))
import sample_tensors as table  # noqa: E402

FOLDER = ROOT / "tests" / "references" / "ops"


def build(made: table.Made) -> torch.Tensor:
    tensor = torch.tensor(made.values)
    if made.dtype == "bfloat16":
        tensor = tensor.bfloat16()
    return tensor.t() if made.transposed else tensor


def function(name: str) -> Any:
    """PyTorch's callable of that name, wherever it lives."""
    for home in (torch, torch._C._nn, torch.Tensor, torch.ops.aten, torch.nn.functional):
        found = getattr(home, name, None)
        if found is not None:
            return found
    return None


def encode(tensor: torch.Tensor) -> dict[str, Any]:
    tensor = tensor.detach()
    flat = tensor.contiguous()
    raw = flat.view(torch.int16) if tensor.dtype is torch.bfloat16 else flat
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "strides": list(tensor.stride()),
        "data": base64.b64encode(raw.numpy().tobytes()).decode(),
    }


def share(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def torch_types(value: Any) -> Any:
    """flambeau's types in keywords as PyTorch's."""
    if type(value).__name__ == "dtype":
        return getattr(torch, value.name)
    if isinstance(value, dict):
        return {k: torch_types(v) for k, v in value.items()}
    if isinstance(value, list):
        return [torch_types(v) for v in value]
    return value


def record(call: Any, values: list[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    arguments = torch_types(table.convert(values, build))
    keywords = torch_types(table.convert(keywords, build))
    tensors = table.leaves((arguments, keywords), torch.Tensor)
    try:
        result = call(*arguments, **keywords)
    except Exception as error:
        return {"error": [type(error).__name__, str(error).split("\n")[0]]}
    outputs = table.leaves(result, torch.Tensor)
    entry: dict[str, Any] = {"results": [encode(t) for t in outputs]}
    entry["aliases"] = [
        [k for k, t in enumerate(tensors) if t.numel() and t.data_ptr() and share(t, o)]
        for o in outputs
    ]
    if not outputs:
        entry["value"] = result if isinstance(result, (bool, int, float)) else repr(result)
    floating = [t for t in tensors if t.is_floating_point()]
    if not floating or not any(t.is_floating_point() for t in outputs):
        return entry
    try:
        grads = gradients(call, arguments, keywords, floating)
    except (RuntimeError, NotImplementedError):
        return entry  # PyTorch has no derivative for this sample
    if grads is not None:
        entry["grads"] = grads
    return entry


def gradients(
    call: Any, arguments: list[Any], keywords: dict[str, Any], floating: list[torch.Tensor]
) -> list[Any] | None:
    for t in floating:
        t.requires_grad_()
    outputs = table.leaves(call(*arguments, **keywords), torch.Tensor)
    total = sum(
        (t * torch.tensor(table.cotangent(t.shape, k)).to(t.dtype)).sum()
        for k, t in enumerate(outputs)
        if t.requires_grad
    )
    if not isinstance(total, torch.Tensor):
        return None
    found = torch.autograd.grad(total, floating, allow_unused=True)
    return [None if g is None else encode(g) for g in found]


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for op in table.with_samples():
        if names and op.name not in names:
            continue
        call = function(op.name.lstrip("_")) if function(op.name) is None else function(op.name)
        if call is None:
            print(f"{op.name}: PyTorch has no function of that name")
            continue
        torch.manual_seed(0)
        np.random.seed(0)
        entries = [record(call, values, keywords) for values, keywords in table.samples(op)]
        (FOLDER / f"{op.name}.json").write_text(json.dumps(entries, separators=(",", ":")) + "\n")
        errors = sum("error" in e for e in entries)
        print(f"{op.name}: {len(entries)} samples, {errors} errors")


if __name__ == "__main__":
    main(sys.argv[1:])
