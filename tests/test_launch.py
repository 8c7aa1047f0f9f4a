"""A program run by flambeau sees, prints and returns what it does under python itself."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The package is found without being installed, and without being the working directory.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(command, folder, stdin=None):
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=ENVIRONMENT,
        input=stdin,
        capture_output=True,
        text=True,
    )


def same(command, folder, stdin=None):
    """Runs ``command`` under python and under flambeau; returns the latter's result."""
    expected = run(command, folder, stdin)
    found = run(["-m", "flambeau", *command], folder, stdin)
    assert found.stdout == expected.stdout
    assert found.stderr == expected.stderr
    assert found.returncode == expected.returncode
    return found


@pytest.fixture
def script(tmp_path):
    def write(text, name="program.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


WHO = """\
import sys
import __main__
print(sys.argv, sys.path[0])
print(__name__, __file__, __spec__ and __spec__.name, __package__, __annotations__)
print(type(__loader__).__mro__[-2].__name__, __builtins__, __doc__)
print(__main__.__dict__ is globals(), sorted(name for name in globals() if name[0] == "_"))
"""


def test_script_sees_itself_as_main(script):
    path = script(WHO)
    same([path.name, "one", "--two", "-m"], path.parent)
    same([str(path)], ROOT)


def test_script_in_another_folder_imports_its_neighbour(script):
    script("value = 42", "deep/neighbour.py")
    path = script("import neighbour; print(neighbour.value)", "deep/program.py")
    assert same(["deep/program.py"], path.parent.parent).stdout == "42\n"


def test_link_to_a_script(script, tmp_path):
    script("value = 42", "deep/neighbour.py")
    path = script("import neighbour, sys; print(sys.path[0], __file__)", "deep/program.py")
    link = tmp_path / "link.py"
    link.symlink_to(path)
    same(["link.py"], tmp_path)


def test_command_and_standard_input(script, tmp_path):
    source = "import sys; print(sys.argv, sys.path[0] == '', __loader__, sorted(globals()))"
    same(["-c", source, "x"], tmp_path)
    same(["-", "x"], tmp_path, source)


def test_module(script):
    script("", "tool/__init__.py")
    path = script(WHO + "from . import other\n", "tool/__main__.py")
    script("print(__name__, __spec__.name)\nimport sys; print(sys.argv)", "tool/other.py")
    same(["-m", "tool", "--flag"], path.parent.parent)
    same(["-m", "tool.other", "-c"], path.parent.parent)


def test_folder_and_zip_file(script, tmp_path):
    script("import sys, part; print(sys.argv, part.name)", "app/__main__.py")
    script("name = __name__", "app/part.py")
    same(["app", "x"], tmp_path)
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.write(tmp_path / "app" / "__main__.py", "__main__.py")
        archive.write(tmp_path / "app" / "part.py", "part.py")
    same(["app.zip", "x"], tmp_path)


ENDINGS = {
    "error": "def f():\n    return 1 / 0\n\nf()\n",
    "chained": "try:\n    {}['x']\nexcept KeyError as error:\n    raise ValueError from error\n",
    "context": "try:\n    {}['x']\nexcept KeyError:\n    1 / 0\n",
    "group": "raise ExceptionGroup('two', [ValueError(1), TypeError(2)])",
    "error in a neighbour": "import json; json.loads('{')",
    "syntax": "x = (1,\ny = 2\n",
    "exit status": "import sys; sys.exit(3)",
    "exit message": "raise SystemExit('stopped')",
    "exit silently": "import sys; sys.exit()",
    "interrupt": "raise KeyboardInterrupt",
    "own hook": "import sys\nsys.excepthook = lambda *e: print(e[0], e[2].tb_lineno)\n1 / 0",
    "at exit": "import atexit, sys\natexit.register(lambda: print('bye', file=sys.stderr))\n1 / 0",
    "thread": "import threading\nthreading.Thread(target=lambda: print(__name__)).start()\n",
    "printed": "import traceback\ntry:\n    1 / 0\nexcept Exception:\n    traceback.print_exc()",
    "not utf-8": "# coding: latin-1\nprint('\u00e9')",
    "missing module": "import nowhere.at_all",
    "warning": "import warnings\nwarnings.warn('careful')\n",
}


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_is_pythons(script, name):
    path = script(ENDINGS[name])
    same([path.name], path.parent)


def test_errors_in_modules_look_like_pythons(script):
    path = script(ENDINGS["error"], "broken.py")
    same(["-m", "broken"], path.parent)
    same(["-m", "not_there"], path.parent)


def test_a_script_that_is_not_there(tmp_path):
    assert same(["not_there.py"], tmp_path).returncode == 2


def test_missing_part_of_torch_is_named(script):
    path = script("import torch.nowhere")
    result = run(["-m", "flambeau", path.name], path.parent)
    assert result.returncode == 1
    last_lines = result.stderr.splitlines()[-2:]
    assert last_lines == [
        "ModuleNotFoundError: No module named 'torch.nowhere'",
        "(flambeau runs this program as torch and does not have torch.nowhere yet)",
    ]


def test_no_compiled_copy_of_the_program_is_left(script):
    path = script("x = 1")
    run(["-m", "flambeau", path.name], path.parent)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
