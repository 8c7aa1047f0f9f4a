"""Records what PyTorch's nn does, for tests/nn (run where torch is): all tables, or those named."""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "nn"))

import attention_scripts  # noqa: E402 - found through the path above
import cases  # noqa: E402
import computations  # noqa: E402
import embedding_bag_scripts  # noqa: E402
import recurrent_scripts  # noqa: E402
import scripts  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    tables = {
        "modules": (cases.MODULES, cases.describe_module),
        "starts": (cases.STARTS, cases.describe_start),
        "values": (cases.VALUES, cases.describe_value),
        "errors": (cases.ERRORS, cases.describe_error),
        "warnings": (cases.WARNINGS, cases.describe_warning),
        "computations": (computations.ALL, computations.describe),
        "scripts": (scripts.ALL, scripts.describe),
        "attention": (attention_scripts.ALL, attention_scripts.describe),
        "attention_errors": (attention_scripts.ERRORS, cases.describe_error),
        "attention_warnings": (attention_scripts.WARNINGS, cases.describe_warning),
        "bags": (embedding_bag_scripts.ALL, embedding_bag_scripts.describe),
        "bag_errors": (embedding_bag_scripts.ERRORS, cases.describe_error),
        "bag_modules": (embedding_bag_scripts.MODULES, cases.describe_module),
        "recurrent": (recurrent_scripts.ALL, recurrent_scripts.describe),
    }
    folder = ROOT / "tests" / "references" / "nn"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[1:] or tables
    for title in wanted:
        names, describe = tables[title]
        recorded = {name: describe(torch, name) for name in names}
        (folder / f"{title}.json").write_text(json.dumps(recorded, indent=0) + "\n")


if __name__ == "__main__":
    main()
