"""``torch.backends.cuda``: not there; the switches that programs set are remembered.

Those of attention hold on the CPU too: see `flambeau.ops.attention.allowed`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from flambeau.nn.attention import SDPBackend, sdpa_kernel
from flambeau.ops.attention import allowed
from flambeau.tensor import Tensor


class _MatmulSwitches:
    """``torch.backends.cuda.matmul``."""

    allow_tf32 = False
    allow_fp16_reduced_precision_reduction = True
    allow_bf16_reduced_precision_reduction = True


matmul = _MatmulSwitches()


def is_built() -> bool:
    return False


# -- scaled dot product attention ------------------------------------------------------------------


@dataclass
class SDPAParams:
    """The arguments of one attention, for the questions below."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None
    dropout: float
    is_causal: bool
    enable_gqa: bool


def flash_sdp_enabled() -> bool:
    """Whether attention may use the kernels that keep no scores."""
    return allowed.flash


def enable_flash_sdp(enabled: bool) -> None:
    """Allows or forbids them."""
    allowed.flash = bool(enabled)


def math_sdp_enabled() -> bool:
    """Whether attention may be made of products and a softmax."""
    return allowed.math


def enable_math_sdp(enabled: bool) -> None:
    """Allows or forbids that."""
    allowed.math = bool(enabled)


def mem_efficient_sdp_enabled() -> bool:
    return allowed.mem_efficient


def enable_mem_efficient_sdp(enabled: bool) -> None:
    allowed.mem_efficient = bool(enabled)


def cudnn_sdp_enabled() -> bool:
    return allowed.cudnn


def enable_cudnn_sdp(enabled: bool) -> None:
    allowed.cudnn = bool(enabled)


def fp16_bf16_reduction_math_sdp_allowed() -> bool:
    """Whether the composite may sum in half precision; it never does."""
    return allowed.half_reduction


def allow_fp16_bf16_reduction_math_sdp(enabled: bool) -> None:
    allowed.half_reduction = bool(enabled)


def is_flash_attention_available() -> bool:
    """Whether FlashAttention was built for the GPU."""
    return False


def can_use_flash_attention(params: SDPAParams, debug: bool = False) -> bool:
    """Whether the GPU's kernel takes the arguments."""
    return False


def can_use_efficient_attention(params: SDPAParams, debug: bool = False) -> bool:
    """As `can_use_flash_attention`."""
    return False


def can_use_cudnn_attention(params: SDPAParams, debug: bool = False) -> bool:
    """As `can_use_flash_attention`."""
    return False


@contextlib.contextmanager
def sdp_kernel(
    enable_flash: bool = True,
    enable_math: bool = True,
    enable_mem_efficient: bool = True,
    enable_cudnn: bool = True,
) -> Iterator[dict]:
    """The older spelling of :func:`torch.nn.attention.sdpa_kernel`."""
    warnings.warn(
        "`torch.backends.cuda.sdp_kernel()` is deprecated. In the future, this context manager "
        "will be removed. Please see `torch.nn.attention.sdpa_kernel()` for the new context "
        "manager, with updated signature.",
        FutureWarning,
        stacklevel=3,
    )
    chosen = {
        SDPBackend.FLASH_ATTENTION: enable_flash,
        SDPBackend.MATH: enable_math,
        SDPBackend.EFFICIENT_ATTENTION: enable_mem_efficient,
        SDPBackend.CUDNN_ATTENTION: enable_cudnn,
    }
    with sdpa_kernel([backend for backend, enabled in chosen.items() if enabled]) as context:
        yield context
