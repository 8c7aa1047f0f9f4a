"""PyTorch's exceptions around ``torch.compile``."""

from __future__ import annotations


class TorchDynamoException(RuntimeError):
    """The base of what compiling raises."""


class InvalidBackend(TorchDynamoException):
    """``torch.compile(backend=…)`` with a name that nobody knows."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Invalid backend: {name!r}, see `torch._dynamo.list_backends()` for available "
            "backends."
        )


class Unsupported(TorchDynamoException):
    """``fullgraph=True`` met a function that cannot be captured."""
