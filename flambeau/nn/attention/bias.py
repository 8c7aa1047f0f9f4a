"""Causal masks by the corner in which their diagonal begins (``torch.nn.attention.bias``)."""

from __future__ import annotations

import enum
import warnings

from flambeau.core.dtype import bool_
from flambeau.ops.creation import ones
from flambeau.ops.joining import tril
from flambeau.tensor import Tensor

__all__ = ["CausalBias", "CausalVariant", "causal_lower_right", "causal_upper_left"]


class CausalVariant(enum.IntEnum):
    """Whether the diagonal begins at the upper left or ends at the lower right."""

    UPPER_LEFT = 1
    LOWER_RIGHT = 2


class CausalBias(Tensor):
    """A causal mask, true where a query sees a key, that remembers its rule.

    PyTorch's holds no elements; this one does, so any operator takes it as the mask it is.
    """

    variant: CausalVariant
    seq_len_q: int
    seq_len_kv: int

    def __new__(cls, variant: CausalVariant, seq_len_q: int, seq_len_kv: int) -> CausalBias:
        if not isinstance(variant, CausalVariant):
            raise AssertionError(f"variant must be CausalVariant, got {type(variant).__name__}")
        later = variant is CausalVariant.LOWER_RIGHT
        if later and seq_len_q > seq_len_kv:
            warnings.warn(
                "Lower right causal bias will produce NaNs in the output when seq_len_q > "
                "seq_len_kv!",
                stacklevel=2,
            )
        diagonal = seq_len_kv - seq_len_q if later else 0
        mask = tril(ones((seq_len_q, seq_len_kv), dtype=bool_), diagonal)
        self = Tensor._make_subclass(cls, mask)
        assert isinstance(self, CausalBias)
        self.variant, self.seq_len_q, self.seq_len_kv = variant, seq_len_q, seq_len_kv
        return self

    def _materialize(self, device=None) -> Tensor:
        """The mask as an ordinary tensor."""
        return Tensor._from_storage(self._storage, self._layout)


def causal_upper_left(*size: int) -> CausalBias:
    """The mask of ``is_causal``: query i sees the keys up to i."""
    if len(size) != 2:
        raise AssertionError("causal_upper_left only supports 2D tensors")
    return CausalBias(CausalVariant.UPPER_LEFT, *size)


def causal_lower_right(*size: int) -> CausalBias:
    """The last query sees all keys, the one before it all but the last, and so on."""
    if len(size) != 2:
        raise AssertionError("causal_lower_right only supports 2D tensors")
    return CausalBias(CausalVariant.LOWER_RIGHT, *size)
