"""Activation functions. Each is one operator, in place where asked."""

from __future__ import annotations

import warnings
from typing import Any

from flambeau.ops import activation as operators
from flambeau.ops.creation import empty_like, zeros_like
from flambeau.tensor import Tensor


def _in_place(operator: Any, name: str) -> Any:
    """The function that writes the result of ``operator`` into its first argument."""

    def function(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return operator.call_inplace((input, *args), kwargs)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"In-place version of :func:`{name[:-1]}`."
    return function


relu_ = _in_place(operators.relu, "relu_")
threshold_ = _in_place(operators.threshold, "threshold_")
hardtanh_ = _in_place(operators.hardtanh, "hardtanh_")
elu_ = _in_place(operators.elu, "elu_")
selu_ = _in_place(operators.selu, "selu_")
celu_ = _in_place(operators.celu, "celu_")
leaky_relu_ = _in_place(operators.leaky_relu, "leaky_relu_")
rrelu_ = _in_place(operators.rrelu, "rrelu_")
_relu6_ = _in_place(operators.relu6, "relu6_")
_hardsigmoid_ = _in_place(operators.hardsigmoid, "hardsigmoid_")
_hardswish_ = _in_place(operators.hardswish, "hardswish_")
_silu_ = _in_place(operators.silu, "silu_")
_mish_ = _in_place(operators.mish, "mish_")


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(x, 0)``."""
    return relu_(input) if inplace else operators.relu(input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """``min(max(x, 0), 6)``."""
    return _relu6_(input) if inplace else operators.relu6(input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """``x`` where it is greater than ``threshold``, ``value`` elsewhere."""
    if inplace:
        return threshold_(input, threshold, value)
    return operators.threshold(input, threshold, value)


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """``x`` kept within ``[min_val, max_val]``."""
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    if inplace:
        return hardtanh_(input, min_val, max_val)
    return operators.hardtanh(input, min_val, max_val)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` above zero, ``alpha * (exp(x) - 1)`` below (https://arxiv.org/abs/1511.07289)."""
    return elu_(input, alpha) if inplace else operators.elu(input, alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """The self-normalizing scaled ELU (https://arxiv.org/abs/1706.02515)."""
    return selu_(input) if inplace else operators.selu(input)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """ELU, smooth at zero for every ``alpha`` (https://arxiv.org/abs/1704.07483)."""
    return celu_(input, alpha) if inplace else operators.celu(input, alpha)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``x`` above zero, ``negative_slope * x`` below."""
    if inplace:
        return leaky_relu_(input, negative_slope)
    return operators.leaky_relu(input, negative_slope)


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Leaky ReLU whose slope is drawn per element in training, their mean otherwise."""
    if inplace:
        return rrelu_(input, lower, upper, training)
    return operators.rrelu(input, lower, upper, training)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``relu6(x + 3) / 6``."""
    return _hardsigmoid_(input) if inplace else operators.hardsigmoid(input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * relu6(x + 3) / 6`` (https://arxiv.org/abs/1905.02244)."""
    return _hardswish_(input) if inplace else operators.hardswish(input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * sigmoid(x)`` (https://arxiv.org/abs/1606.08415, also called swish)."""
    return _silu_(input) if inplace else operators.silu(input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * tanh(softplus(x))`` (https://arxiv.org/abs/1908.08681)."""
    return _mish_(input) if inplace else operators.mish(input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """``a * sigmoid(b)`` of the halves of ``input`` along ``dim``."""
    if input.dim() == 0:
        raise RuntimeError("glu does not support scalars because halving size must be even")
    return operators.glu(input, dim)


def tanh(input):
    """Hyperbolic tangent."""
    return input.tanh()


def sigmoid(input):
    """``1 / (1 + exp(-x))``."""
    return input.sigmoid()


def tanhshrink(input):
    """``x - tanh(x)``."""
    return input - input.tanh()


def softsign(input):
    """``x / (1 + |x|)``."""
    return input / (input.abs() + 1)


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """``exp(x)`` divided by its sum along ``dim``; cast to ``dtype`` first where given."""
    if dim is None:
        dim = _implicit_dim("softmax", input.dim(), _stacklevel)
    return input.softmax(dim) if dtype is None else input.softmax(dim, dtype=dtype)


def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """``softmax(-x)``."""
    if dim is None:
        dim = _implicit_dim("softmin", input.dim(), _stacklevel)
    negated = -input
    return negated.softmax(dim) if dtype is None else negated.softmax(dim, dtype=dtype)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """``log(softmax(x))`` without its loss of digits."""
    if dim is None:
        dim = _implicit_dim("log_softmax", input.dim(), _stacklevel)
    return input.log_softmax(dim) if dtype is None else input.log_softmax(dim, dtype=dtype)


def _implicit_dim(name: str, ndim: int, stacklevel: int) -> int:
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. "
        "Change the call to include dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if ndim in (0, 1, 3) else 1


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """A differentiable draw from the categories ``logits`` describe (arXiv 1611.01144).

    ``hard`` returns one-hot vectors whose gradient is that of the soft sample.
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    gumbels = -empty_like(logits).exponential_().log()
    soft = ((logits + gumbels) / tau).softmax(dim)
    if not hard:
        return soft
    index = soft.max(dim, keepdim=True)[1]
    one_hot = zeros_like(logits).scatter_(dim, index, 1.0)
    return one_hot - soft.detach() + soft
