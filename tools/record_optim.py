"""Record what PyTorch's optimizers and schedulers do, for tests/optim (run where torch is)."""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "optim"))

import cases  # noqa: E402 - found through the path above


def main() -> None:
    torch.set_num_threads(1)
    tables = {
        "optimizers": (cases.OPTIMIZERS, cases.describe_optimizer),
        "schedulers": (cases.SCHEDULERS, cases.describe_scheduler),
        "errors": (cases.ERRORS, cases.describe_error),
    }
    folder = ROOT / "tests" / "references" / "optim"
    folder.mkdir(parents=True, exist_ok=True)
    for title, (names, describe) in tables.items():
        recorded = {name: describe(torch, name) for name in names}
        (folder / f"{title}.json").write_text(json.dumps(recorded, indent=0) + "\n")


if __name__ == "__main__":
    main()
