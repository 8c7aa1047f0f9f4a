"""Every switch of the library, typed, with its default; the environment is read here only.

``flambeau.config.window = 1`` runs every operator at once (the debug mode); the environment
variables named below set the starting values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

TARGETS = ("avx512", "avx2", "neon", "scalar")
DEFAULT_WINDOW = 1024


@dataclass(slots=True)
class Config:
    """The switches.  Changing one takes effect at the next use."""

    window: int
    """Calls recorded before the tape is flushed by itself; 1 is eager.  ``FLAMBEAU_WINDOW``"""

    cache_dir: Path | None
    """Where compiled kernels are kept; None keeps them in memory only.  ``FLAMBEAU_CACHE_DIR``
    (``off`` for None), else ``$XDG_CACHE_HOME/flambeau``, else ``~/.cache/flambeau``"""

    cache_limit: int
    """Bytes that the kernels on disk may take.  ``FLAMBEAU_CACHE_LIMIT``"""

    num_threads: int
    """Threads of the CPU backend when the process starts (``flambeau.set_num_threads`` changes
    them later).  ``FLAMBEAU_NUM_THREADS``, ``OMP_NUM_THREADS``, else the usable processors"""

    target: str | None
    """Forces a lesser instruction set than the processor's: one of `TARGETS`.
    ``FLAMBEAU_TARGET``"""

    default_dtype: str
    """The type of tensors made from Python floats; ``flambeau.set_default_dtype`` changes it"""

    debug: frozenset[str]
    """What to print on standard error: any of ``tape``, ``kernel``, ``plan``, ``ir``, ``jit``.
    ``FLAMBEAU_DEBUG`` (separated by commas; ``1`` or ``all`` for everything)"""

    debug_alloc: bool
    """Guard pages, red zones and poison around all memory, checked after every kernel; read when
    the process starts.  ``FLAMBEAU_DEBUG_ALLOC``"""

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        for listener in listeners.get(name, ()):
            listener()


# Called after a switch of that name was set.
listeners: dict[str, list[Callable[[], None]]] = {}

DEBUG_TOPICS = frozenset({"tape", "kernel", "plan", "ir", "jit"})


def from_environment(environment: Mapping[str, str]) -> Config:
    """The configuration that these environment variables ask for."""
    return Config(
        window=_positive(environment, "FLAMBEAU_WINDOW") or DEFAULT_WINDOW,
        cache_dir=_cache_dir(environment),
        cache_limit=_positive(environment, "FLAMBEAU_CACHE_LIMIT") or 512 << 20,
        num_threads=_num_threads(environment),
        target=_target(environment),
        default_dtype="float32",
        debug=_debug(environment),
        debug_alloc=environment.get("FLAMBEAU_DEBUG_ALLOC", "").strip() not in ("", "0"),
    )


def _positive(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ValueError(f"{name} must be a positive integer, got {text!r}")
    return value


def _cache_dir(environment: Mapping[str, str]) -> Path | None:
    text = environment.get("FLAMBEAU_CACHE_DIR", "").strip()
    if text.lower() == "off":
        return None
    if text:
        return Path(text).expanduser()
    shared = environment.get("XDG_CACHE_HOME", "").strip()
    if shared:
        return Path(shared) / "flambeau"
    home = environment.get("HOME", "").strip()
    return Path(home) / ".cache" / "flambeau" if home else None


def _num_threads(environment: Mapping[str, str]) -> int:
    own = _positive(environment, "FLAMBEAU_NUM_THREADS")
    if own is not None:
        return own
    # OpenMP's form is a list with one count per nesting level; anything odd is ignored, as there.
    first = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdigit() and int(first) > 0:
        return int(first)
    return usable_processors()


def usable_processors() -> int:
    """Processors that this process may use: its affinity mask, cut by a container's quota."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return count


def _target(environment: Mapping[str, str]) -> str | None:
    text = environment.get("FLAMBEAU_TARGET", "").strip().lower()
    if not text:
        return None
    if text not in TARGETS:
        raise ValueError(f"FLAMBEAU_TARGET must be one of {', '.join(TARGETS)}, got {text!r}")
    return text


def _debug(environment: Mapping[str, str]) -> frozenset[str]:
    words = {word.strip().lower() for word in environment.get("FLAMBEAU_DEBUG", "").split(",")}
    words -= {"", "0", "none"}
    if words & {"1", "all"}:
        return DEBUG_TOPICS
    unknown = words - DEBUG_TOPICS
    if unknown:
        raise ValueError(
            f"FLAMBEAU_DEBUG knows {', '.join(sorted(DEBUG_TOPICS))}; got {sorted(unknown)[0]!r}"
        )
    return frozenset(words)


config = from_environment(os.environ)
