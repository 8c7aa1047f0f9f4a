"""The command line's own answers (programs that it runs are in test_launch.py)."""

import subprocess
import sys
import tomllib
from pathlib import Path

import flambeau.version

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments):
    command = [sys.executable, "-m", "flambeau", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == flambeau.version.flambeau
    assert run("--version").stdout == f"flambeau {project['version']}\n"
    metadata = f"flambeau/compat/stand_in/torch-{flambeau.version.__version__}.dist-info/METADATA"
    assert f"Version: {flambeau.version.__version__}\n" in (ROOT / metadata).read_text()


def test_help():
    for arguments in ([], ["--help"], ["-h"]):
        result = run(*arguments)
        assert result.returncode == 0
        assert result.stdout.startswith("usage: flambeau script.py")


def test_mistakes_are_named():
    cases = {
        ("demmo",): "'demmo' is neither a command nor a file",
        ("--fast",): "unknown option --fast",
        ("-m",): "argument expected for the -m option",
        ("run",): "run what? Name a script, or -m and a module",
    }
    for arguments, message in cases.items():
        result = run(*arguments)
        assert result.returncode == 2
        assert result.stderr.splitlines()[0] == f"flambeau: {message}"
        assert result.stdout == ""


def test_run_takes_a_program_named_like_a_command(tmp_path):
    program = tmp_path / "demo"
    program.write_text("import sys; print('mine', sys.argv[1:])")
    assert run("run", str(program), "x").stdout == "mine ['x']\n"


def test_doctor():
    result = run("doctor")
    assert result.returncode == 0
    found = {line.split()[0] for line in result.stdout.splitlines()}
    assert {"flambeau", "Python", "processor", "threads", "numpy", "llvmlite"} <= found
