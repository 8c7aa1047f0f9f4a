"""``torch.autograd.Variable``: what tensors in a graph were called before they were one with
tensors.
"""

from __future__ import annotations

import warnings
from typing import Any

from flambeau.ops.view import detach
from flambeau.tensor import Tensor, TensorMeta


class _VariableMeta(TensorMeta):
    """``isinstance(x, Variable)`` holds for every tensor."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(Tensor, metaclass=_VariableMeta):
    """``Variable(tensor, requires_grad=False)`` gives a tensor over the same memory."""

    def __new__(
        cls, data: Any = None, requires_grad: bool = False, volatile: bool | None = None
    ) -> Any:
        if volatile is not None:
            warnings.warn(
                "volatile was removed and now has no effect. Use `with torch.no_grad():` instead.",
                UserWarning,
                stacklevel=2,
            )
        result = detach(data) if isinstance(data, Tensor) else Tensor._construct(Tensor)
        return result.requires_grad_() if requires_grad else result
