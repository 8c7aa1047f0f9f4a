"""The programs in examples/, run unmodified, give PyTorch's losses over the first 50 steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))
# Of a loss near 1, after 50 steps that each feed the rounding of the one before.
TOLERANCE = 1e-4
# `tests.examples.state_after` does the same for any number of steps.
STEPS = 40


def run(program, *arguments, **environment):
    command = [sys.executable, "-m", "flambeau", str(program), *arguments]
    environment = {**os.environ, **environment}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_first_50_losses_are_pytorchs(program):
    path = ROOT / "tests" / "references" / "examples" / f"{program.stem}.json"
    expected = json.loads(path.read_text())["losses"]
    found = [float(line) for line in run(program, "--losses").split()]
    assert found == pytest.approx(expected, rel=0, abs=TOLERANCE)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_neither_window_nor_threads_change_a_bit(program):
    def state(**environment):
        command = [sys.executable, "-W", "ignore", "-m", "tests.examples.state_after"]
        command += [str(program), str(STEPS)]
        environment = {**os.environ, **environment}
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    alone = state(FLAMBEAU_WINDOW="1", FLAMBEAU_NUM_THREADS="1")
    assert alone.startswith(f"{STEPS} steps")
    for threads in ("1", "3"):
        assert state(FLAMBEAU_NUM_THREADS=threads) == alone


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_compiled_modules_change_no_bit(program):
    command = [sys.executable, "-W", "ignore", "-m", "tests.examples.state_after"]
    command += [str(program), str(STEPS)]
    plain, compiled = (
        subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
        for more in ((), ("compiled",))
    )
    assert compiled.returncode == 0, compiled.stderr
    assert "falls back" not in compiled.stderr
    assert compiled.stdout == plain.stdout


def test_eager_and_deferred_losses_are_the_same_digits():
    program = ROOT / "examples" / "text_classifier.py"
    deferred = run(program, "--losses")
    eager = run(program, "--losses", FLAMBEAU_WINDOW="1")
    assert eager == deferred


def test_the_text_classifier_understands_its_argument():
    program = ROOT / "examples" / "text_classifier.py"
    output = run(program, "a lovely clever film", "a dull and stupid film").splitlines()
    friendly, unfriendly = (float(line.split("%")[0]) for line in output[-2:])
    assert friendly > 90
    assert unfriendly < 10
