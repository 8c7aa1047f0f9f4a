"""Records how PyTorch prints tensors, for tests/test_printing.py.

    python tools/record_printing.py          (with PyTorch 2.13)

Writes tests/references/printing.json: a list of cases, each with the tensor's bits and attributes,
the print options, the default dtype, and the text.
"""

from __future__ import annotations

import base64
import json
import math
import random
import zlib
from pathlib import Path

import torch

TARGET = Path(__file__).parents[1] / "tests" / "references" / "printing.json"
CASES = 300
DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip
SMALL_SIZES = [0, 1, 2, 3, 5, 7, 8, 12]
LARGE_SIZES = [1, 4, 6, 7, 11, 40, 1001]
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-5, 1e9]
CHOICES = {
    "precision": [0, 1, 2, 6, 8],
    "threshold": [0, 5, 100],
    "edgeitems": [0, 1, 2, 3, 5],
    "linewidth": [10, 40, 80, 120],
    "sci_mode": [None, True, False],
}


def draw_shape(source: random.Random) -> list[int]:
    sizes = LARGE_SIZES if source.random() < 0.2 else SMALL_SIZES
    while True:
        shape = [source.choice(sizes) for _ in range(source.choice([0, 1, 1, 2, 2, 3, 4]))]
        if math.prod(shape) <= 2002:
            return shape


def draw_floating(source: random.Random, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    values = torch.randn(shape, dtype=wide)
    whole = torch.round(torch.randn(shape, dtype=torch.float64) * 5).to(wide)
    spread = torch.exp(torch.randn(shape, dtype=torch.float64) * 5)
    kinds = [values, whole, values * 10 ** source.uniform(-9, 12), values * spread, whole * 1e6,
             torch.zeros_like(values), -values.abs().to(wide)]  # fmt: skip
    values = source.choice(kinds).to(dtype)
    if values.numel() and source.random() < 0.3:
        flat = values.view(-1)
        for _ in range(3):
            flat[source.randrange(flat.numel())] = source.choice(SPECIAL)
    return values


def draw_tensor(source: random.Random) -> torch.Tensor:
    shape = draw_shape(source)
    dtype = source.choice(DTYPES)
    if dtype.is_floating_point or dtype.is_complex:
        return draw_floating(source, shape, dtype)
    if dtype is torch.bool:
        return torch.rand(shape) > 0.5
    info = torch.iinfo(dtype)
    largest = min(info.max, source.choice([info.max, 9, 120]))
    lowest = source.choice([0, max(info.min, -largest)])
    return torch.randint(lowest, largest, shape, dtype=dtype)


def bits(tensor: torch.Tensor) -> str:
    if tensor.numel() == 0:
        return ""
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return base64.b64encode(zlib.compress(flat.numpy().tobytes(), 9)).decode()


def draw_case(source: random.Random) -> dict:
    tensor = draw_tensor(source)
    profiles = ["default"] * 5 + ["short"]
    if tensor.numel() < 200:
        profiles.append("full")
    options = {"profile": source.choice(profiles)}
    if source.random() < 0.4:
        drawn = {name: source.choice(values) for name, values in CHOICES.items()}
        options |= {name: value for name, value in drawn.items() if source.random() < 0.5}
    default = source.choice([torch.float32] * 5 + [torch.float64])
    case = {"shape": list(tensor.shape), "dtype": str(tensor.dtype)[6:], "bits": bits(tensor),
            "options": options, "default_dtype": str(default)[6:]}  # fmt: skip
    if source.random() < 0.2 and tensor.dtype.is_floating_point:
        tensor.requires_grad_()
        case["requires_grad"] = True
        if source.random() < 0.6:
            tensor = tensor.view_as(tensor)
            case["grad_fn"] = "ViewBackward0"
    if source.random() < 0.05:
        tensor = tensor.detach().to("meta")
        case |= {"device": "meta", "bits": "", "requires_grad": False, "grad_fn": None}
    torch.set_default_dtype(default)
    torch.set_printoptions(**options)
    case["text"] = repr(tensor)
    torch.set_default_dtype(torch.float32)
    return case


def main() -> None:
    source = random.Random(2)
    torch.manual_seed(2)
    cases = [draw_case(source) for _ in range(CASES)]
    lines = ",\n".join(json.dumps(case) for case in cases)
    TARGET.write_text(f"[\n{lines}\n]\n")
    print(f"{len(cases)} cases, {TARGET.stat().st_size} bytes, PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
