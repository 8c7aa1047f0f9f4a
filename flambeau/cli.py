"""The command line: ``flambeau …`` and ``python -m flambeau …`` are the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from flambeau.launch import run_command, run_module, run_script, run_standard_input
from flambeau.version import flambeau as flambeau_version

USAGE = """\
usage: flambeau script.py [args…]      run a PyTorch program, unchanged, on flambeau
       flambeau -m module [args…]      run a module the same way
       flambeau -c code [args…]        run a line of Python the same way
       flambeau run PROGRAM [args…]    the same, when PROGRAM has the name of a command
       flambeau demo [options]         train LeNet-5 on handwritten digits (flambeau demo --help)
       flambeau doctor                 what flambeau found on this machine
       flambeau --version

`python -m flambeau` is the same command. Options of Python itself go before it:
`python -W error -m flambeau script.py`.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status; a program's own exit passes through."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    first, *rest = arguments
    if first in ("-V", "--version"):
        print(f"flambeau {flambeau_version}")
        return 0
    if first in commands:
        return commands[first](rest)
    return run_program(arguments)


def run_program(arguments: list[str]) -> int:
    """``-m module``, ``-c code``, ``-`` or a script, each with the arguments that follow it."""
    match arguments:
        case ["-m", name, *rest]:
            run_module(name, rest)
        case ["-c", code, *rest]:
            run_command(code, rest)
        case ["-m" | "-c" as option]:
            return fail(f"argument expected for the {option} option")
        case ["-", *rest]:
            run_standard_input(rest)
        case [path, *rest] if not path.startswith("-"):
            if os.path.exists(path) or os.sep in path or path.endswith(".py"):
                run_script(path, rest)
            else:
                return fail(f"{path!r} is neither a command nor a file")
        case [option, *_]:
            return fail(f"unknown option {option}")
        case _:
            return fail("run what? Name a script, or -m and a module")
    return 0


def fail(message: str) -> int:
    print(f"flambeau: {message}\n\n{USAGE}", end="", file=sys.stderr)
    return 2


def run_demo(arguments: list[str]) -> int:
    # Only this command needs the demo; a program that is run must not pay for its imports.
    from flambeau.demo.command import main as demo_main

    return demo_main(arguments)


def run_doctor(arguments: list[str]) -> int:
    # As above.
    from flambeau.doctor import main as doctor_main

    return doctor_main(arguments)


commands: dict[str, Callable[[list[str]], int]] = {
    "demo": run_demo,
    "doctor": run_doctor,
    "run": run_program,
}
