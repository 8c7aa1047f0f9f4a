"""Runs a Python program as ``python`` itself would, with flambeau under the name ``torch``.

What the program can see is python's: ``sys.argv``, ``sys.path[0]``, ``__main__`` with its
``__file__``, the traceback of an error (no frame of this file in it) and the exit status.
"""

from __future__ import annotations

import builtins
import os
import runpy
import sys
import zipimport
from importlib.machinery import BuiltinImporter, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from flambeau.compat.torch_alias import install_as_torch

# What every frame of the standard library's module runner calls its file.
RUNPY_FILE = runpy.run_module.__code__.co_filename
# What tracebacks call a program given on the command line.
COMMAND = "<string>"


class ProgramLoader(SourceFileLoader):
    """The loader of ``__main__``: python never keeps compiled code of the program it runs."""

    def __init__(self, path: str, source: bytes) -> None:
        super().__init__("__main__", path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.source, self.path)


def run_script(path: str, arguments: list[str]) -> None:
    """``python path arguments…``; ``path`` may be a folder or zip file with a ``__main__``."""
    absolute = os.path.join(os.getcwd(), path)
    if os.path.isdir(absolute) or is_zip_program(absolute):
        sys.argv = [path, *arguments]
        set_first_path(path)
        run_as_main("__main__", alter_argv=False)
        return
    try:
        with open(absolute, "rb") as file:
            source = file.read()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        print(f"{sys.executable}: can't open file {absolute!r}: {reason}", file=sys.stderr)
        raise SystemExit(2) from None
    run_source(absolute, source, [path, *arguments], os.path.dirname(os.path.realpath(absolute)))


def run_command(command: str, arguments: list[str]) -> None:
    """``python -c command arguments…``"""
    run_source(COMMAND, command.encode(), ["-c", *arguments], "")


def run_standard_input(arguments: list[str]) -> None:
    """``python - arguments…``"""
    run_source("<stdin>", sys.stdin.buffer.read(), ["-", *arguments], "")


def run_module(name: str, arguments: list[str]) -> None:
    """``python -m name arguments…``"""
    sys.argv = ["-m", *arguments]
    set_first_path(os.getcwd())
    run_as_main(name, alter_argv=True)


def is_zip_program(path: str) -> bool:
    try:
        zipimport.zipimporter(path)
    except zipimport.ZipImportError:
        return False
    return True


def set_first_path(folder: str) -> None:
    """Puts ``folder`` where python puts the program's; it holds our own folder until now."""
    if not sys.flags.safe_path:
        sys.path[0] = folder


def new_main_module() -> ModuleType:
    """A fresh ``__main__`` in place of the one that holds flambeau's command line."""
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    module.__dict__["__annotations__"] = {}
    sys.modules["__main__"] = module
    return module


def run_source(path: str, source: bytes, argv: list[str], folder: str) -> None:
    """Runs the text of a program as ``__main__``; ``path`` is what tracebacks call it."""
    sys.argv = argv
    set_first_path(folder)
    install_as_torch()
    module = new_main_module()
    loader = ProgramLoader(path, source)
    module.__loader__ = loader if os.path.isabs(path) else BuiltinImporter
    if path != COMMAND:
        module.__file__ = path
        module.__dict__["__cached__"] = None
    try:
        loader.exec_module(module)
    except SystemExit:
        raise
    except BaseException as error:
        report(error, lambda frame: frame.f_globals is module.__dict__)


def run_as_main(name: str, alter_argv: bool) -> None:
    """What python does for ``-m``, by the very function that python calls to do it."""
    install_as_torch()
    new_main_module()
    try:
        runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]
    except SystemExit:
        raise
    except BaseException as error:
        report(error, lambda frame: frame.f_code.co_filename == RUNPY_FILE)


def report(error: BaseException, belongs_to_program: Any) -> NoReturn:
    """Shows the error as python would, then ends the process with python's exit status.

    The hook that is installed now may be the program's own. The error goes on to python, which
    picks the exit status (that of an interrupt is special), with nothing left to print.
    """
    trace = error.__traceback__
    while trace is not None and not belongs_to_program(trace.tb_frame):
        trace = trace.tb_next
    error.__traceback__ = trace
    explain_missing_module(error)
    sys.excepthook(type(error), error, trace)
    sys.excepthook = print_nothing
    raise error


def explain_missing_module(error: BaseException) -> None:
    if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("torch."):
        error.add_note(f"(flambeau runs this program as torch and does not have {error.name} yet)")


def print_nothing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """The hook after the error has been shown."""
