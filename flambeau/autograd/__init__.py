"""``torch.autograd``: automatic differentiation."""

from flambeau.autograd.graph import (
    enable_grad,
    inference_mode,
    no_grad,
    set_grad_enabled,
)
