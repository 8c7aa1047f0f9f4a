"""Record what PyTorch's data sets, samplers and loaders do, for tests/utils/data."""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "utils" / "data"))

import cases  # noqa: E402 - found through the path above


def main() -> None:
    torch.set_num_threads(1)
    tables = {
        "cases": (cases.CASES, cases.describe_case),
        "collated": (cases.COLLATED, cases.describe_collated),
        "errors": (cases.ERRORS, cases.describe_error),
    }
    folder = ROOT / "tests" / "references" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for title, (names, describe) in tables.items():
        recorded = {name: describe(torch, name) for name in names}
        text = json.dumps(recorded, indent=0, default=repr)
        (folder / f"{title}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
