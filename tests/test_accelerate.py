"""The compiled recording path: it builds in a copy, and the tests of recording pass on it.

It takes a minute, so it runs where ``FLAMBEAU_TEST_ACCELERATE=1`` asks for it, as `.ci/run` does.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WANTED = os.environ.get("FLAMBEAU_TEST_ACCELERATE", "0") not in ("", "0")
TESTS = ("tests/ops/test_call.py", "tests/engine/test_tape.py", "tests/autograd/test_autograd.py")


def missing() -> str | None:
    for module in ("mypyc", "setuptools"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "there is no C compiler"
    return None


def test_sources_get_decorators_and_are_else_unchanged(monkeypatch):
    pytest.importorskip("setuptools")
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    made = runpy.run_path(str(ROOT / "setup.py"))
    for name in made["MODULES"]:
        text = (ROOT / "flambeau" / f"{name}.py").read_text()
        compiled = made["decorated"](text).replace(made["IMPORT"], "", 1)
        kept = [line for line in compiled.splitlines() if not line.startswith("@mypyc_attr")]
        assert kept == text.splitlines()


@pytest.mark.skipif(not WANTED, reason="FLAMBEAU_TEST_ACCELERATE is not set (it takes a minute)")
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_compiled_path_passes_the_tests_of_recording(tmp_path):
    for name in ("flambeau", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(source, tmp_path / name, ignore=unwanted)
        else:
            shutil.copy(source, tmp_path / name)
    environment = {
        **os.environ,
        "FLAMBEAU_ACCELERATE": "1",
        "FLAMBEAU_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(tmp_path),
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    run("setup.py", "build_ext", "--inplace")
    where = run("-c", "import flambeau.ops.call as path; print(path.__file__)")
    assert not where.strip().endswith(".py")
    run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS)
