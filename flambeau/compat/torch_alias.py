"""Makes ``import torch`` mean flambeau, in this process and in the Python processes it starts.

Three pieces, all put in place by :func:`install_as_torch`:

* a finder at the head of ``sys.meta_path`` answers ``torch`` and ``torch.anything`` with the very
  module objects of ``flambeau`` and ``flambeau.anything``;
* the folder ``stand_in`` on ``sys.path`` and in ``PYTHONPATH`` holds a package ``torch`` that does
  the same in a child process, when (and only when) the child imports torch;
* beside it a ``torch-*.dist-info`` answers ``importlib.metadata.version("torch")``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = __name__.partition(".")[0]
STAND_IN_FOLDER = str(Path(__file__).resolve().parent / "stand_in")
# Names the interpreter whose child processes shall see flambeau as torch; read by the stand-in.
CHILD_VARIABLE = "FLAMBEAU_AS_TORCH"

# Modules of flambeau that are not PyTorch's: `import torch.engine` must fail as it does there.
INTERNAL = frozenset(
    {
        "__main__",
        "backend",
        "bindings",
        "capture",
        "cli",
        "compat",
        "core",
        "demo",
        "doctor",
        "engine",
        "graph",
        "interchange",
        "launch",
        "models",
        "printing",
        "settings",
        "tensor",
        "tensor_creation",
        "tensor_types",
    }
)

# PyTorch's names of modules that have another name here.
OTHER_NAMES = {"compiler": "capture.public"}


class TorchFinder(MetaPathFinder):
    """Answers every name below ``torch`` from the package flambeau."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        if package != "torch":
            return None
        if rest.partition(".")[0] in INTERNAL:
            # Returning None would let Python find the file and load a second copy of the module.
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        rest = OTHER_NAMES.get(rest, rest)
        if rest.startswith("compiler."):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        name = f"{ROOT}.{rest}" if rest else ROOT
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            return None
        return ModuleSpec(fullname, SameModuleLoader(name), origin=name)


class SameModuleLoader(Loader):
    """Loads nothing: hands out the module that is known under another name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.name)
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the alias's spec into the module.
        module.__spec__ = self.own_spec


def install_as_torch() -> None:
    """Makes ``import torch`` and everything below it give flambeau's modules from now on.

    Call it before the first ``import torch``. When the real PyTorch is already imported it warns
    and changes nothing. Calling it again does nothing. Processes started later by this one
    (``multiprocessing`` with any start method, ``subprocess`` with ``sys.executable``) see it too.
    """
    imported = sys.modules.get("torch")
    if imported is not None and imported is not sys.modules[ROOT]:
        warnings.warn(
            f"PyTorch {getattr(imported, '__version__', '')} is already imported as 'torch'; "
            "flambeau leaves it in place. Call flambeau.install_as_torch() before the first "
            "'import torch'.",
            UserWarning,
            stacklevel=2,
        )
        return
    sys.modules["torch"] = sys.modules[ROOT]
    if not any(isinstance(finder, TorchFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchFinder())
    if STAND_IN_FOLDER not in sys.path:
        # After the program's own folder, where PYTHONPATH would put it.
        sys.path.insert(0 if sys.flags.safe_path else 1, STAND_IN_FOLDER)
    pass_on_to_children()


def pass_on_to_children() -> None:
    """Lets Python processes that inherit our environment find the stand-in first."""
    os.environ[CHILD_VARIABLE] = sys.prefix
    inherited = os.environ.get("PYTHONPATH")
    folders = inherited.split(os.pathsep) if inherited else []
    if STAND_IN_FOLDER not in folders:
        os.environ["PYTHONPATH"] = os.pathsep.join([STAND_IN_FOLDER, *folders])
