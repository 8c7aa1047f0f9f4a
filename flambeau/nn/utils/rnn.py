"""Sequences of different lengths: padded to a common one, or packed step by step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from flambeau.core import dtype as types
from flambeau.ops.creation import arange, empty_like, full
from flambeau.ops.joining import cat
from flambeau.tensor import Tensor
from flambeau.tensor_creation import tensor

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class PackedSequence_(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(PackedSequence_):
    """Sequences without padding, the steps below each other, longest sequence first.

    ``data`` is ``(sum of lengths, *)``; ``batch_sizes`` (int64, on the CPU) counts the sequences
    that reach each step; ``sorted_indices`` tells which sequence of the caller stands at each
    place, ``unsorted_indices`` undoes that.  Made by `pack_padded_sequence` and `pack_sequence`.
    """

    def __new__(
        cls,
        data: Any,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if batch_sizes is None:
            data, batch_sizes = data
        assert batch_sizes is not None
        if batch_sizes.device.type != "cpu":
            raise ValueError(
                "batch_sizes should always be on CPU. "
                "Instances of PackedSequence should never be created manually. "
                "They should be instantiated by functions like pack_sequence "
                "and pack_padded_sequences in nn.utils.rnn. "
                "https://pytorch.org/docs/stable/nn.html#torch.nn.utils.rnn.pack_sequence"
            )
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def _with_data(self, data: Tensor) -> PackedSequence:
        if data is self.data:
            return self
        order, back = (
            None if t is None else t.to(data.device)
            for t in (self.sorted_indices, self.unsorted_indices)
        )
        return type(self)(data, self.batch_sizes, order, back)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same sequences with ``data.to(*args, **kwargs)``."""
        return self._with_data(self.data.to(*args, **kwargs))

    def cpu(self, *args: Any, **kwargs: Any) -> PackedSequence:
        return self.to(*args, device="cpu", **kwargs)

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        return self._with_data(self.data.cuda(*args, **kwargs))

    def pin_memory(self) -> PackedSequence:
        return self._with_data(self.data.pin_memory())

    def double(self) -> PackedSequence:
        return self.to(types.float64)

    def float(self) -> PackedSequence:
        return self.to(types.float32)

    def half(self) -> PackedSequence:
        return self.to(types.float16)

    def long(self) -> PackedSequence:
        return self.to(types.int64)

    def int(self) -> PackedSequence:
        return self.to(types.int32)

    def short(self) -> PackedSequence:
        return self.to(types.int16)

    def char(self) -> PackedSequence:
        return self.to(types.int8)

    def byte(self) -> PackedSequence:
        return self.to(types.uint8)

    @property
    def is_cuda(self) -> bool:
        return self.data.is_cuda

    def is_pinned(self) -> bool:
        return self.data.is_pinned()


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """``inverse[permutation[k]] = k``; None for None."""
    if permutation is None:
        return None
    inverse = empty_like(permutation)
    places = arange(0, permutation.numel(), device=permutation.device)
    return inverse.scatter_(0, permutation, places.to(permutation.dtype))


def pack_padded_sequence(
    input: Tensor,
    lengths: Tensor | Sequence[int],
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> PackedSequence:
    """Packs ``(T, B, *)``, or ``(B, T, *)`` with ``batch_first``, of which ``lengths[b]`` count.

    Raises RuntimeError for lengths that are not positive, not as many as sequences, or, with
    ``enforce_sorted``, not in decreasing order.
    """
    counts = lengths if isinstance(lengths, Tensor) else tensor(list(lengths), dtype=types.int64)
    if counts.device.type != "cpu":
        raise RuntimeError(
            "'lengths' argument should be a 1D CPU int64 tensor, but got "
            f"{counts.ndim}D {counts.device} {counts.dtype.title} tensor"
        )
    order: Tensor | None = None
    if not enforce_sorted:
        counts, order = counts.sort(0, True)
        order = order.to(input.device)
        input = input.index_select(0 if batch_first else 1, order)
    if batch_first:
        input = input.transpose(0, 1)
    numbers = [int(n) for n in counts.tolist()]
    if input.numel() == 0:
        raise RuntimeError("Cannot pack empty tensors.")
    if len(numbers) != input.shape[1]:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(numbers)} "
            f"(batch_size={input.shape[1]})"
        )
    if any(n <= 0 for n in numbers):
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' "
            "that is <= 0"
        )
    if any(a < b for a, b in zip(numbers, numbers[1:], strict=False)):
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You "
            "can pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to "
            "sidestep this requirement if you do not need ONNX exportability."
        )
    # As PyTorch, lengths beyond the padded one are taken on trust for the sizes.
    sizes = [sum(n > t for n in numbers) for t in range(numbers[0])]
    parts = [input[t, :size] for t, size in enumerate(sizes[: input.shape[0]])]
    return PackedSequence(cat(parts, 0), tensor(sizes, dtype=types.int64), order, None)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The padded ``(T, B, *)`` tensor, or ``(B, T, *)``, and the lengths, in the caller's order.

    ``total_length`` pads to more than the longest.
    """
    sizes = [int(n) for n in sequence.batch_sizes.tolist()]
    longest = len(sizes)
    if total_length is not None and total_length < longest:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, "
            f"but got total_length={total_length} and max sequence length being {longest}"
        )
    data = sequence.data
    steps = longest if total_length is None else total_length
    batch, features = sizes[0], data.shape[1:]
    starts = list(accumulate(sizes, initial=0))
    rows = [data[starts[t] : starts[t + 1]] for t in range(longest)]
    parts: list[Tensor] = []
    for t in range(steps):
        have = sizes[t] if t < longest else 0
        if have:
            parts.append(rows[t])
        if have < batch:
            blank = full((batch - have, *features), padding_value, dtype=data.dtype)
            parts.append(blank.to(data.device))
    padded = cat(parts, 0).reshape(steps, batch, *features)
    lengths = tensor([sum(size > b for size in sizes) for b in range(batch)], dtype=types.int64)
    if batch_first:
        padded = padded.transpose(0, 1)
    back = sequence.unsorted_indices
    if back is not None:
        padded = padded.index_select(0 if batch_first else 1, back)
        lengths = lengths[back.cpu()]
    return padded, lengths


def pad_sequence(
    sequences: Tensor | Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Tensors of shapes ``(length, *)`` as one ``(T, B, *)``, or ``(B, T, *)``."""
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            "pad_sequence: Expected iterable for input sequences, but got arg of type: "
            f"{type(sequences)}"
        )
    items = list(sequences.unbind(0)) if isinstance(sequences, Tensor) else list(sequences)
    if not items:
        raise RuntimeError("received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise RuntimeError(
            f"Expected padding_side to be one of left or right, but got {padding_side}."
        )
    longest = max(item.shape[0] for item in items)
    features = items[0].shape[1:]
    rows = []
    for item in items:
        missing = longest - item.shape[0]
        if missing:
            blank = full((missing, *features), padding_value, dtype=item.dtype, device=item.device)
            item = cat((item, blank) if padding_side == "right" else (blank, item), 0)
        rows.append(item.unsqueeze(0 if batch_first else 1))
    return cat(rows, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """The first ``lengths[b]`` steps of each sequence of ``(T, B, *)``, or ``(B, T, *)``."""
    batch = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[: int(n)] for row, n in zip(batch.unbind(0), lengths.tolist(), strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs tensors of shapes ``(length, *)``; see `pack_padded_sequence`."""
    lengths = tensor([item.shape[0] for item in sequences], dtype=types.int64)
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences that `pack_sequence` was given."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
