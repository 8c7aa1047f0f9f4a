"""Compiles the recording path with mypyc where ``FLAMBEAU_ACCELERATE=1`` asks for it.

Without that, or without mypy or a C compiler, the package is plain Python; see
docs/accelerator.md.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

WANTED = os.environ.get("FLAMBEAU_ACCELERATE", "0") not in ("", "0")
# One path, in the order of layers: what an operator goes through from its call to the flush.
MODULES = (
    "core/layout",
    "engine/call",
    "engine/storage_fields",
    "engine/tape",
    "fields",
    "ops/call",
    "ops/derivative",
)
# What plain Python needs no word for: classes that Python code may extend.
DECORATED = {
    "StorageFields": "allow_interpreted_subclasses=True",
    "TensorFields": "allow_interpreted_subclasses=True",
    "NodeFields": "allow_interpreted_subclasses=True",
}
# Read by mypyc only: what it compiles needs no mypy_extensions when it runs.
IMPORT = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
"""
STAGE = Path("build/accelerated")


def compiler_is_missing() -> str | None:
    """Why the recording path cannot be compiled here; None if it can."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(os.environ.get("CC", compiler)) is None:
        return f"there is no C compiler ({compiler})"
    try:
        import mypyc.build  # noqa: F401
    except ImportError:
        return "mypy is not installed"
    return None


def staged_sources() -> list[str]:
    """A copy of the package with mypyc's decorators written in; the files to compile in it."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree("flambeau", STAGE / "flambeau", ignore=shutil.ignore_patterns("__pycache__"))
    # The stub describes the methods that are attached at run time; compiled code needs the fields.
    for stub in STAGE.rglob("*.pyi"):
        stub.unlink()
    sources = []
    for module in MODULES:
        path = STAGE / "flambeau" / f"{module}.py"
        path.write_text(decorated(path.read_text()))
        sources.append(str(path.relative_to(STAGE)))
    return sources


def decorated(text: str) -> str:
    for name, options in DECORATED.items():
        text = re.sub(
            rf"^class {name}\b", f"@mypyc_attr({options})\nclass {name}", text, flags=re.M
        )
    if "@mypyc_attr" not in text:
        return text
    first = "from __future__ import annotations\n"
    return text.replace(first, first + IMPORT, 1)


def extensions() -> list[object]:
    if not WANTED:
        return []
    reason = compiler_is_missing()
    if reason is not None:
        print(f"flambeau stays plain Python: {reason}", file=sys.stderr)
        return []
    from mypyc.build import mypycify

    sources = staged_sources()
    options = ["--follow-imports=silent", "--ignore-missing-imports"]
    here = Path.cwd()
    os.chdir(STAGE)
    try:
        target = str(here / STAGE / "c")
        found = mypycify([*options, *sources], opt_level="3", debug_level="0", target_dir=target)
    finally:
        os.chdir(here)
    return found


# pip's isolated build installs what setup_requires names before it builds.
setup(ext_modules=extensions(), setup_requires=["mypy>=1.13"] if WANTED else [])
