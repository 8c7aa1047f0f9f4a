"""Containers under PyTorch's path."""

from flambeau.nn.containers import (
    Container,
    ModuleDict,
    ModuleList,
    Sequential,
)
from flambeau.nn.parameter_containers import (
    ParameterDict,
    ParameterList,
)

__all__ = [
    "Container",
    "ModuleDict",
    "ModuleList",
    "ParameterDict",
    "ParameterList",
    "Sequential",
]
