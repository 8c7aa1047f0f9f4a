"""``torch.backends.mha``: PyTorch's shortcut for attention modules in evaluation.

Here modules are computed one way; the switch is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class _Switch:
    fastpath: bool = True


_switch = _Switch()


def get_fastpath_enabled() -> bool:
    """Whether the shortcut is allowed."""
    return _switch.fastpath


def set_fastpath_enabled(value: bool) -> None:
    """Allows or forbids it."""
    _switch.fastpath = value
