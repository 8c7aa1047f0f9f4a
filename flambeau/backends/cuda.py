"""``torch.backends.cuda``: not there; the switches that programs set are remembered."""

from __future__ import annotations


class _MatmulSwitches:
    """``torch.backends.cuda.matmul``."""

    allow_tf32 = False
    allow_fp16_reduced_precision_reduction = True
    allow_bf16_reduced_precision_reduction = True


matmul = _MatmulSwitches()


def is_built() -> bool:
    return False
