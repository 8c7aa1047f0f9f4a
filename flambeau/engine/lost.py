"""What takes the place of memory whose computation failed."""

from __future__ import annotations

from flambeau.backend.allocator import Block


class LostBlock(Block):
    """Stands for memory whose computation failed; asking for its address says why."""

    __slots__ = ("_reason",)

    def __init__(self, nbytes: int, reason: str) -> None:
        self.nbytes = nbytes
        self._reason = reason

    def __del__(self) -> None:
        pass

    @property
    def address(self) -> int:  # type: ignore[override]
        raise RuntimeError(f"this tensor was never computed: {self._reason}")
