"""DataParallel, as far as one device needs it."""

from __future__ import annotations

from typing import Any

from flambeau.nn.module import Module


class DataParallel(Module):
    """Wraps ``module`` so that programs written for several GPUs run; state keys begin with
    ``module.``.

    Without a GPU it calls ``module`` on the whole batch, as PyTorch does there.
    """

    def __init__(self, module: Any, device_ids=None, output_device=None, dim: int = 0) -> None:
        super().__init__()
        self.module = module
        self.device_ids = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)
