"""Records files that PyTorch writes, for tests/test_serialization.py.

    python tools/record_serialization.py          (with PyTorch 2.13)

Writes small .pth files to tests/references/serialization/; the values in them are simple enough for
the test to state again.
"""

from __future__ import annotations

import collections
from pathlib import Path

import torch
from torch import nn

TARGET = Path(__file__).parents[1] / "tests" / "references" / "serialization"
DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip


def all_dtypes() -> dict[str, torch.Tensor]:
    return {str(dtype)[6:]: torch.arange(5).to(dtype) for dtype in DTYPES}


def views() -> dict[str, torch.Tensor]:
    """Tensors that share one storage, and the odd shapes."""
    base = torch.arange(24.0)
    return {
        "base": base,
        "matrix": base.view(4, 6),
        "transposed": base.view(4, 6).t(),
        "columns": base.view(4, 6)[1:, ::2],
        "expanded": base[3:4].expand(5),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
    }


def plain_data() -> dict[str, object]:
    return {
        "none": None, "flags": [True, False], "numbers": (1, -2, 300, 70000, -(2**40), 2**80, 0.5),
        "text": "naïve", "bytes": b"\x00\xff", "bytearray": bytearray(b"ab"), "set": {1, 2},
        "complex": 1 + 2j, "counter": collections.Counter("aab"), "nested": [[], {}, ()],
        "dtype": torch.float16, "size": torch.Size([2, 3]),
        "devices": [torch.device("cpu"), torch.device("cuda", 1)], "layout": torch.strided,
    }  # fmt: skip


def parameters() -> dict[str, torch.Tensor]:
    marked = nn.Parameter(torch.ones(2))
    marked.group = "slow"
    tagged = torch.zeros(2)
    tagged.tag = [1, 2]
    return {
        "plain": nn.Parameter(torch.arange(3.0)),
        "frozen": nn.Parameter(torch.arange(3), requires_grad=False),
        "marked": marked,
        "tagged": tagged,
        "leaf": torch.ones(2, requires_grad=True),
        "meta": torch.ones(2, 3, device="meta"),
    }


def network() -> nn.Sequential:
    layers = collections.OrderedDict(linear=nn.Linear(3, 2), act=nn.ReLU(), norm=nn.BatchNorm1d(2))
    module = nn.Sequential(layers)
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(torch.arange(float(parameter.numel())).view_as(parameter) + index)
    return module


def training() -> dict[str, object]:
    """A module's state and that of its optimizer, after one step."""
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {"epoch": 3, "model": module.state_dict(), "optimizer": optimizer.state_dict()}


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    torch.save(all_dtypes(), TARGET / "dtypes.pth")
    torch.save(views(), TARGET / "views.pth")
    torch.save(plain_data(), TARGET / "data.pth")
    torch.save(plain_data(), TARGET / "data_protocol_4.pth", pickle_protocol=4)
    torch.save(parameters(), TARGET / "parameters.pth")
    torch.save(training(), TARGET / "training.pth")
    torch.save(network(), TARGET / "module.pth")
    torch.save(views(), TARGET / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    torch.save(all_dtypes(), TARGET / "no_checksums.pth")
    total = sum(path.stat().st_size for path in TARGET.iterdir())
    print(f"{total} bytes in {len(list(TARGET.iterdir()))} files, PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
