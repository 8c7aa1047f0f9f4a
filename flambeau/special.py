"""``torch.special``: the special functions under their own names."""

from __future__ import annotations

from typing import Any

from flambeau.ops.exponential import exp2, expm1, log1p, logit, xlogy
from flambeau.ops.exponential import sigmoid as expit
from flambeau.ops.normalization import log_softmax as _log_softmax
from flambeau.ops.normalization import softmax as _softmax
from flambeau.ops.reduction import logsumexp
from flambeau.ops.rounding import round
from flambeau.ops.special import (
    digamma,
    entr,
    erf,
    erfc,
    erfcx,
    erfinv,
    i0,
    i0e,
    i1,
    i1e,
    log_ndtr,
    ndtr,
    ndtri,
    polygamma,
    sinc,
    xlog1py,
)
from flambeau.ops.special import lgamma as gammaln
from flambeau.ops.special import mvlgamma as multigammaln
from flambeau.tensor import Tensor

psi = digamma


def softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """``exp(input)`` divided by its sum along ``dim``."""
    return _softmax(input, dim, dtype=dtype)


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The logarithm of `softmax`."""
    return _log_softmax(input, dim, dtype=dtype)


__all__ = [
    "digamma",
    "entr",
    "erf",
    "erfc",
    "erfcx",
    "erfinv",
    "exp2",
    "expit",
    "expm1",
    "gammaln",
    "i0",
    "i0e",
    "i1",
    "i1e",
    "log1p",
    "log_ndtr",
    "log_softmax",
    "logit",
    "logsumexp",
    "multigammaln",
    "ndtr",
    "ndtri",
    "polygamma",
    "psi",
    "round",
    "sinc",
    "softmax",
    "xlog1py",
    "xlogy",
]
