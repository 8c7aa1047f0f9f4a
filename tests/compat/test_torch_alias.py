"""``import torch`` gives flambeau's own modules, here and in child processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
INSTALL = "from flambeau.compat.torch_alias import install_as_torch; install_as_torch()\n"


def run(source, folder, *options, prefix=INSTALL, **environment):
    """Runs a program after the alias is installed; returns its lines of output."""
    program = folder / "program.py"
    program.write_text(prefix + source)
    result = subprocess.run(
        [sys.executable, *options, str(program)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


MODULES = [
    "autograd",
    "nn",
    "nn.functional",
    "nn.init",
    "nn.parameter",
    "nn.utils",
    "optim",
    "optim.lr_scheduler",
    "utils.data",
    "version",
]


def test_modules_are_the_same_objects(tmp_path):
    lines = [f"import torch.{name}, flambeau.{name}" for name in MODULES]
    lines += [f"assert torch.{name} is flambeau.{name}, '{name}'" for name in MODULES]
    lines += [f"assert sys.modules['torch.{name}'] is flambeau.{name}" for name in MODULES]
    lines += [f"assert torch.{name}.__spec__.name == 'flambeau.{name}'" for name in MODULES]
    run("import sys\n" + "\n".join(lines), tmp_path)


def test_spellings_of_programs(tmp_path):
    source = """
import torch as t
from torch import nn, optim
import torch.nn.functional as F
from torch.autograd import Variable
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch.optim.lr_scheduler import StepLR
from torch.nn import Module
import flambeau
assert t is flambeau and Module is flambeau.nn.Module and nn.functional is F
print(t.__version__)
"""
    (version,) = run(source, tmp_path)
    assert version.startswith("2.13.0")


def test_metadata_answers(tmp_path):
    source = """
import importlib.metadata, importlib.util
print(importlib.metadata.version("torch"))
print(importlib.util.find_spec("torch") is not None)
print(importlib.util.find_spec("torch.nn") is not None)
print(importlib.util.find_spec("torch.nowhere"))
"""
    assert run(source, tmp_path) == ["2.13.0", "True", "True", "None"]


@pytest.mark.parametrize(
    "name", ["torch.nowhere", "torch.nn.nowhere", "torch.engine", "torch.core"]
)
def test_unknown_modules_are_named(tmp_path, name):
    source = f"""
try:
    import {name}
except ModuleNotFoundError as error:
    print(error, error.name)
"""
    assert run(source, tmp_path) == [f"No module named '{name}' {name}"]


def test_installing_twice_changes_nothing(tmp_path):
    source = """
import sys, os
before = list(sys.meta_path), list(sys.path), os.environ["PYTHONPATH"]
install_as_torch()
print(before == (sys.meta_path, sys.path, os.environ["PYTHONPATH"]))
"""
    assert run(source, tmp_path) == ["True"]


def test_a_torch_that_is_already_there_stays(tmp_path):
    (tmp_path / "torch.py").write_text("__version__ = '1.2.3'")
    source = """
import os, sys, warnings
import torch
from flambeau.compat.torch_alias import install_as_torch
before = list(sys.meta_path), list(sys.path), dict(os.environ)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    install_as_torch()
print(caught[0].category.__name__, caught[0].filename == __file__)
print(caught[0].message)
import torch
print(torch.__version__, before == (sys.meta_path, sys.path, dict(os.environ)))
"""
    kind, message, after = run(source, tmp_path, prefix="")
    assert kind == "UserWarning True"
    assert message.startswith("PyTorch 1.2.3 is already imported as 'torch'")
    assert after == "1.2.3 True"


def test_a_torch_on_the_path_that_nobody_imported_is_passed_over(tmp_path):
    (tmp_path / "torch.py").write_text("raise RuntimeError('must not run')")
    source = "import torch, torch.nn, flambeau; print(torch is flambeau)"
    assert run(source, tmp_path) == ["True"]


WORKER = """
import multiprocessing, sys

def work(number):
    import torch, torch.nn, flambeau
    return number, torch is flambeau, torch.nn is flambeau.nn

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with context.Pool(1) as pool:
        print(*pool.map(work, range(2)))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_see_it(tmp_path, method):
    source = "import torch\n" + WORKER.format(method=method)
    program = tmp_path / "program.py"
    program.write_text(source)
    result = subprocess.run(
        [sys.executable, "-m", "flambeau", str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.stdout.split("\n")[0] == "(0, True, True) (1, True, True)", result.stderr


CHILD = """
import torch.nn, torch, flambeau, importlib.metadata
print(torch is flambeau, importlib.metadata.version("torch"))
"""


def test_subprocesses_see_it(tmp_path):
    source = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True, cwd="/")
"""
    assert run(source, tmp_path) == ["True 2.13.0"]


def test_another_interpreters_processes_keep_their_own_torch(tmp_path):
    """Another environment is told apart by its prefix; a changed record of ours stands for it."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "torch.py").write_text("__version__ = 'their own'")
    source = f"""
import os, subprocess, sys
os.environ["FLAMBEAU_AS_TORCH"] = "/another/environment"
os.environ["PYTHONPATH"] += os.pathsep + {str(folder)!r}
subprocess.run([sys.executable, "-c", "import torch; print(torch.__version__)"], check=True)
"""
    assert run(source, tmp_path) == ["their own"]
