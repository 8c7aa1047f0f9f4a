"""Records how PyTorch behaves in the cases of the semantics tests.

    python tools/record_semantics.py [TABLE …]          (with PyTorch 2.13)

Writes tests/references/semantics/TABLE.json.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import semantics  # noqa: E402 - found through the path above

TABLES = {
    "graph": "tests.autograd.graph_cases",
    "hooks": "tests.autograd.hook_cases",
    "modes": "tests.autograd.mode_cases",
    "functions": "tests.autograd.function_cases",
    "inplace": "tests.inplace_cases",
    "tensor": "tests.tensor_cases",
    "views": "tests.view_cases",
    "interchange": "tests.interchange_cases",
    "indexing": "tests.ops.indexing_cases",
    "creation": "tests.ops.creation_cases",
    "random": "tests.ops.random_cases",
}


def main() -> None:
    torch.set_num_threads(1)
    semantics.REFERENCES.mkdir(parents=True, exist_ok=True)
    for title in sys.argv[1:] or TABLES:
        cases = importlib.import_module(TABLES[title]).CASES
        found = {name: semantics.outcome(torch, case) for name, case in cases.items()}
        text = ",\n".join(f"{json.dumps(n)}: {json.dumps(o)}" for n, o in found.items())
        (semantics.REFERENCES / f"{title}.json").write_text("{\n" + text + "\n}\n")


if __name__ == "__main__":
    main()
