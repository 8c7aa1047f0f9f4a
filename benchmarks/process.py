"""What a process costs before it does anything useful: import, memory, the first step."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 3
_REPORT = "; print(open('/proc/self/status').read())"
_FIRST_STEP = """
import importlib, workloads, sys
library = importlib.import_module(sys.argv[1])
lab = workloads.Lab(library, False)
workloads.load()["training.mlp_adam"].prepare(lab)().item()
"""

# Name to title, unit and the ratio to reach.
ROWS = {
    "process.import": ("import", "s", 3.0),
    "process.memory": ("memory after import", "MB", 3.0),
    "process.first_step_cold": ("first step of the MLP, no caches", "s", 3.0),
    "process.first_step_warm": ("first step of the MLP, caches filled", "s", 3.0),
}


def measure(
    pythons: dict[str, str], wanted: Callable[[str], Any], folder: Path
) -> dict[str, tuple[str, str, float, dict[str, list[float]]]]:
    """The rows wanted: title, unit, floor, and samples by library."""
    rows = {
        name: (*described, {library: [] for library in pythons})
        for name, described in ROWS.items()
        if wanted(name)
    }
    if not rows:
        return rows
    with tempfile.TemporaryDirectory() as caches:
        # Bytecode as an installed package has it, wherever this checkout may write.
        environment = {
            **os.environ,
            "PYTHONPATH": f"{folder}{os.pathsep}{folder.parent}",
            "PYTHONPYCACHEPREFIX": f"{caches}/bytecode",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for library, python in pythons.items():
            run(python, ["-c", f"import {library}, workloads; workloads.load()"], environment)
        for k in range(ROUNDS):
            for library, python in pythons.items():
                found = _round(python, library, {**environment, "HOME": f"{caches}/{library}{k}"})
                for name, value in found.items():
                    if name in rows:
                        rows[name][3][library].append(value)
    return rows


def _round(python: str, library: str, environment: dict[str, str]) -> dict[str, float]:
    environment["FLAMBEAU_CACHE_DIR"] = environment["HOME"] + "/flambeau"
    empty, _ = run(python, ["-c", "pass"], environment)
    full, output = run(python, ["-c", f"import {library}{_REPORT}"], environment)
    found = re.search(r"VmRSS:\s+(\d+)", output)
    assert found is not None
    cold, _ = run(python, ["-c", _FIRST_STEP, library], environment)
    warm, _ = run(python, ["-c", _FIRST_STEP, library], environment)
    return {
        "process.import": full - empty,
        "process.memory": int(found.group(1)) / 1000,
        "process.first_step_cold": cold,
        "process.first_step_warm": warm,
    }


def run(python: str, arguments: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Seconds and output of a process."""
    start = time.perf_counter()
    done = subprocess.run([python, *arguments], env=environment, check=True, capture_output=True)
    return time.perf_counter() - start, done.stdout.decode()
