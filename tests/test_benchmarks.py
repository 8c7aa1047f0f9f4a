"""The benchmarks run: one row in a process of its own, and every row's name is listed."""

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).resolve().parent.parent / "benchmarks" / "run.py"


def run(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(RUN), *options], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_row_alone():
    text = run("--alone", "--rounds", "1", "--threads", "1", "--only", "overhead.add$")
    assert "a + b, 16 elements, last of 64 read" in text
    assert "µs" in text or "ms" in text


def test_names_are_grouped():
    names = run("--list").split()
    assert len(names) == len(set(names)) > 50
    groups = {name.partition(".")[0] for name in names}
    assert {"overhead", "memory", "compute", "training", "process", "files"} <= groups
