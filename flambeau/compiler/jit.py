"""From LLVM IR text to addresses of functions, through two caches.

``compile_module`` looks in the process, then on disk, and only then imports LLVM.  What lies on
disk are `Image`s, which load without LLVM: a process whose kernels were built before starts fast.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from flambeau.compiler.image import Functions, Image, ImageError, build_image, load_image
from flambeau.compiler.target import Target, host
from flambeau.core.config import config, usable_processors


class CompileError(RuntimeError):
    """LLVM refused generated code; ``ir_path`` is where the text was kept for a report."""

    def __init__(self, key: str, reason: str, ir_path: str | None) -> None:
        self.ir_path = ir_path
        kept = f"\nThe generated code was kept in {ir_path}" if ir_path else ""
        super().__init__(
            f"flambeau could not compile a kernel. This is a bug in flambeau; please report it "
            f"with the kernel's name and the code.\nkernel: {key[:200]}\nLLVM: {reason}{kept}"
        )


class Module(NamedTuple):
    """What `compile_module` takes, for `compile_many`."""

    key: str
    source: Callable[[], str]
    names: Sequence[str]
    passes: bool = False


@dataclass(slots=True)
class Statistics:
    """How often each source answered since the process started."""

    memory: int = 0
    disk: int = 0
    compiled: int = 0


statistics = Statistics()
# Modules by key and target, oldest first.  Past so many the oldest are dropped; their code stays in
# memory for as long as a plan holds it.
MAX_MODULES = 4096
_loaded: dict[tuple[str, str], Functions] = {}
# What `compile_module` handed out: its callers keep plain addresses.
_kept: dict[tuple[str, str], Functions] = {}
_lock = threading.RLock()


def compile_module(
    key: str, source: Callable[[], str], names: Sequence[str], *, passes: bool = False
) -> dict[str, int]:
    """The addresses of the functions ``names`` of the module that ``key`` identifies, for ever.

    ``source()`` gives the module's LLVM IR; it is called only when neither this process nor the
    cache on disk has the code.  The key must say everything that changes the source, except the
    sources of ``flambeau.compiler`` and the target, which are added here.  ``passes`` runs LLVM's
    light IR optimisations first.
    """
    kept = _kept.get((key, host().name))
    if kept is None:
        (kept,) = compile_many([Module(key, source, names, passes)])
        _kept[key, host().name] = kept
    else:
        statistics.memory += 1
    _check_names(key, kept, names)
    return kept


def compile_many(modules: Iterable[Module]) -> list[Functions]:
    """The functions of each, for as long as the result is held; see `compile_module`.

    LLVM works on those that no cache has in parallel threads.
    """
    modules = list(modules)
    target = host()
    with _lock:
        found = {m.key: _loaded.get((m.key, target.name)) for m in modules}
        statistics.memory += sum(functions is not None for functions in found.values())
        images = {m.key: (m, _read_image(m, target)) for m in modules if found[m.key] is None}
        # The sources are written one by one: only LLVM's part runs without the interpreter.
        texts = [(module, module.source()) for module, image in images.values() if image is None]
        if texts:
            built = _llvm().in_parallel(
                lambda item: _build_image(item[0], item[1], target), texts, usable_processors()
            )
            images |= {m.key: (m, image) for (m, _), image in zip(texts, built, strict=True)}
        for key, (_, image) in images.items():
            assert image is not None
            found[key] = _loaded[key, target.name] = load_image(image)
        for oldest in tuple(_loaded)[: max(0, len(_loaded) - MAX_MODULES)] if images else ():
            del _loaded[oldest]
    results = []
    for module in modules:
        functions = found[module.key]
        assert functions is not None
        _check_names(module.key, functions, module.names)
        results.append(functions)
    return results


def _check_names(key: str, functions: Functions, names: Sequence[str]) -> None:
    for name in names:
        if name not in functions:
            raise CompileError(key, f"the module defines no function {name!r}", None)


def _read_image(module: Module, target: Target) -> Image | None:
    path = _disk.path(module, target)
    image = None if path is None else _disk.read(path)
    statistics.disk += image is not None
    return image


def _build_image(module: Module, text: str, target: Target) -> Image:
    statistics.compiled += 1
    if "jit" in config.debug or "ir" in config.debug:
        print(f"flambeau: compiling {module.key[:100]}", file=sys.stderr)
    if "ir" in config.debug:
        print(text, file=sys.stderr)
    image = emit_image(text, target, key=module.key, passes=module.passes)
    path = _disk.path(module, target)
    if path is not None:
        _disk.write(path, image.to_bytes())
    return image


def _hold_for_fork() -> None:
    """A child must not inherit LLVM in the middle of a compilation by another thread."""
    _lock.acquire()


os.register_at_fork(
    before=_hold_for_fork, after_in_parent=_lock.release, after_in_child=_lock.release
)


# -- LLVM ----------------------------------------------------------------------------------------


def emit_image(text: str, target: Target, *, key: str = "", passes: bool = False) -> Image:
    """Compiles LLVM IR for the target; does not load it."""
    try:
        return build_image(emit_object(text, target, passes=passes))
    except (RuntimeError, ImageError) as error:
        raise CompileError(key, str(error), _llvm().keep_for_report(text)) from error


def emit_object(text: str, target: Target, *, passes: bool = False) -> bytes:
    """LLVM's ELF object for the target (RuntimeError with LLVM's words if it refuses)."""
    object_file: bytes = _llvm().emit(text, target, passes=passes, assembly=False)
    return object_file


def emit_assembly(text: str, target: Target, *, passes: bool = False) -> str:
    """LLVM's assembly for the target: PTX on nvptx, else to be read by a person."""
    text_file: bytes = _llvm().emit(text, target, passes=passes, assembly=True)
    return text_file.decode()


@functools.cache
def _llvm() -> ModuleType:
    # The one late import of the compiler: processes whose kernels are cached never pay for LLVM.
    from flambeau.compiler import llvm

    return llvm


# -- the cache on disk ---------------------------------------------------------------------------


@functools.cache
def code_version() -> str:
    """A digest of what turns a key into machine code: these sources and LLVM's version."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    digest.update(_llvm_stamp().encode())
    return digest.hexdigest()


def _llvm_stamp() -> str:
    """Changes whenever another llvmlite is installed; does not import it."""
    spec = importlib.util.find_spec("llvmlite")
    if spec is None or spec.origin is None:
        return "none"
    folder = Path(spec.origin).parent
    try:
        version = (folder / "_version.py").read_text()
        return f"{version} {(folder / 'binding' / 'libllvmlite.so').stat().st_size}"
    except OSError:
        return str(folder.stat().st_mtime_ns)


class _DiskCache:
    """Images in files named by the digest of everything that made them.

    Files appear whole (written beside, then renamed), so processes may share the folder.  Any
    failure to write makes the cache a memory-only one, with one warning.
    """

    _WRITES_BETWEEN_CHECKS = 64

    def __init__(self) -> None:
        self._writes = 0
        self._disabled: set[Path] = set()

    def path(self, module: Module, target: Target) -> Path | None:
        folder = config.cache_dir
        if folder is None:
            return None
        identity = f"{module.passes}\0{target.identity}\0{code_version()}\0{module.key}"
        name = hashlib.sha256(identity.encode()).hexdigest()
        return folder / "kernels" / name[:2] / f"{name[2:]}.image"

    def read(self, path: Path) -> Image | None:
        try:
            file = path.read_bytes()
        except OSError:
            return None
        try:
            return Image.from_bytes(file)
        except ImageError:
            self._delete(path)
            return None

    def write(self, path: Path, file: bytes) -> None:
        folder = path.parent.parent
        if folder in self._disabled:
            return
        temporary = path.with_name(f".{path.stem[:16]}.{os.getpid()}.{threading.get_ident()}")
        try:
            # Whoever can write here can make this user run code.
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_bytes(file)
            os.replace(temporary, path)
        except OSError as error:
            self._delete(temporary)
            self._disabled.add(folder)
            warnings.warn(
                f"flambeau: compiled kernels cannot be kept in {folder} ({error.strerror or error})"
                "; they stay in memory and will be compiled again by the next process. "
                "Set FLAMBEAU_CACHE_DIR to a writable folder, or to 'off'.",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        if self._writes % self._WRITES_BETWEEN_CHECKS == self._WRITES_BETWEEN_CHECKS - 1:
            self.trim(folder, config.cache_limit)
        self._writes += 1

    def trim(self, folder: Path, limit: int) -> None:
        """Deletes the oldest files until three quarters of ``limit`` bytes are left."""
        entries = []
        for path in folder.glob("*/*"):
            try:
                status = path.stat()
            except OSError:
                continue
            entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        if total <= limit:
            return
        for _, size, path in sorted(entries):
            if total <= limit * 3 // 4:
                break
            self._delete(path)
            total -= size

    @staticmethod
    def _delete(path: Path) -> None:
        try:
            path.unlink()
        except OSError:
            pass


_disk = _DiskCache()
