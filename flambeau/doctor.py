"""``flambeau doctor``: what flambeau found on this machine, for a look and for bug reports."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from flambeau.compiler.target import host
from flambeau.core.config import config
from flambeau.version import __version__
from flambeau.version import flambeau as flambeau_version

REQUIRED = ("numpy", "llvmlite")
OPTIONAL = {"matplotlib": "flambeau[plot]", "rich": "flambeau[demo]"}


def main(arguments: list[str]) -> int:
    """Prints the report; 1 when something that is required is missing."""
    if arguments:
        print("usage: flambeau doctor", file=sys.stderr)
        return 2
    rows = [
        ("flambeau", f"{flambeau_version} (follows PyTorch {__version__})"),
        ("Python", f"{platform.python_version()} at {sys.executable}"),
        ("system", f"{platform.system()} {platform.release()} on {platform.machine()}"),
        ("processor", describe_target()),
        ("threads", f"{config.num_threads} of {os.cpu_count()} processors"),
        ("kernel cache", describe_cache(config.cache_dir)),
        ("window", str(config.window)),
    ]
    rows += [(name, version_of(name) or "MISSING") for name in REQUIRED]
    rows += [
        (name, version_of(name) or f"not installed (optional: pip install '{extra}')")
        for name, extra in OPTIONAL.items()
    ]
    for name, value in rows:
        print(f"{name:13} {value}")
    return 0 if all(version_of(name) for name in REQUIRED) else 1


def version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_target() -> str:
    target = host()
    return f"{target.name}, {target.vector_bits}-bit vectors"


def describe_cache(folder: Path | None) -> str:
    """Where compiled kernels are kept, how many, and whether new ones can be."""
    if folder is None:
        return "off (kernels are compiled again in every process)"
    if not folder.exists():
        return f"{folder} (empty)"
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    state = f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB"
    if not os.access(folder, os.W_OK):
        state += ", NOT WRITABLE"
    return f"{folder} ({state})"
