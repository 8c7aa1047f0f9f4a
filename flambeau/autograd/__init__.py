"""``torch.autograd``: automatic differentiation."""

from flambeau.autograd import function, functional, graph
from flambeau.autograd.anomaly import detect_anomaly, is_anomaly_enabled, set_detect_anomaly
from flambeau.autograd.engine import backward, grad
from flambeau.autograd.function import Function
from flambeau.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from flambeau.autograd.variable import Variable
from flambeau.graph import (
    enable_grad,
    inference_mode,
    no_grad,
    set_grad_enabled,
)

__all__ = [
    "Function",
    "GradcheckError",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "is_anomaly_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]
