"""Records what the programs in examples/ print under PyTorch, for tests/examples.

    REFERENCE_PYTHON tools/record_examples.py      (an interpreter with PyTorch 2.13 and numpy)

Each program is run with --losses; its first 50 losses go to tests/references/examples/NAME.json.
Beside them stands how far two runs of PyTorch itself differ (one thread and two), which is the
least that can be asked of another implementation.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests" / "references" / "examples"
COUNT = 50


def losses(program: Path, threads: int) -> list[float]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, str(program), "--losses"]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    values = [float(line) for line in run.stdout.split()]
    if len(values) != COUNT:
        raise SystemExit(f"{program.name} printed {len(values)} losses, not {COUNT}")
    return values


def main() -> None:
    import torch

    TARGET.mkdir(parents=True, exist_ok=True)
    for program in sorted((ROOT / "examples").glob("*.py")):
        one = losses(program, 1)
        two = losses(program, 2)
        spread = max(abs(a - b) for a, b in zip(one, two))
        record = {"torch": torch.__version__, "spread_over_threads": spread, "losses": one}
        path = TARGET / f"{program.stem}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{program.stem}: {one[0]:.4f} … {one[-1]:.4f}, spread {spread:.1e}")


if __name__ == "__main__":
    main()
