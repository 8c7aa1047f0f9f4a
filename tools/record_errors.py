"""Records how PyTorch answers users' mistakes: run with an interpreter that has torch.

    python tools/record_errors.py

Writes tests/references/errors/errors.json: by case the exception's type and its first line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "ops"))
import error_cases  # noqa: E402

TARGET = ROOT / "tests" / "references" / "errors" / "errors.json"


def main() -> None:
    torch.manual_seed(0)
    found = {name: error_cases.outcome(call, torch) for name, call in error_cases.CASES.items()}
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(found, indent=1) + "\n")
    for name, (kind, _) in found.items():
        if not kind:
            print(f"{name}: PyTorch does not raise")


if __name__ == "__main__":
    main()
