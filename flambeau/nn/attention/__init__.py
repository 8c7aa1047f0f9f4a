"""``torch.nn.attention``: which of the ways to attend may be used, and masks by their rule."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator

from flambeau.nn.attention import bias
from flambeau.ops.attention import allowed

__all__ = ["SDPBackend", "bias", "sdpa_kernel"]


class SDPBackend(enum.Enum):
    """PyTorch's ways to compute scaled dot product attention.

    Here ``FLASH_ATTENTION`` means the generated kernels and ``MATH`` the composite; the others
    compute nothing on the CPU, as in PyTorch.
    """

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4

    def __int__(self) -> int:
        return self.value


_SWITCHES = {
    SDPBackend.CUDNN_ATTENTION: "cudnn",
    SDPBackend.FLASH_ATTENTION: "flash",
    SDPBackend.EFFICIENT_ATTENTION: "mem_efficient",
    SDPBackend.MATH: "math",
    SDPBackend.OVERRIDEABLE: "overrideable",
}


def _cur_sdpa_kernel_backends() -> list[SDPBackend]:
    """What is switched on."""
    return [backend for backend, switch in _SWITCHES.items() if getattr(allowed, switch)]


@contextlib.contextmanager
def sdpa_kernel(
    backends: list[SDPBackend] | SDPBackend, set_priority: bool = False
) -> Iterator[dict]:
    """Within it, attention uses only the given ways.

    ``set_priority`` is accepted: on the CPU there is one order, the kernels before the composite.
    """
    if not isinstance(backends, (list, SDPBackend)):
        raise AssertionError(
            "Backend must be an instance of SDPBackend or a list of SDPBackend instances, got "
            f"{type(backends).__name__}"
        )
    wanted = [backends] if isinstance(backends, SDPBackend) else backends
    before = _cur_sdpa_kernel_backends()
    _switch_on(wanted)
    try:
        yield {}
    finally:
        _switch_on(before)


def _switch_on(backends: list[SDPBackend]) -> None:
    for backend, switch in _SWITCHES.items():
        setattr(allowed, switch, backend in backends)
