"""Progress on the terminal: a bar where rich is installed and somebody looks, else plain lines."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

try:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
except ImportError:
    Progress = None


class PlainProgress(AbstractContextManager["PlainProgress"]):
    """One line per epoch, for log files and for terminals without rich."""

    def __init__(self, epochs: int, steps: int) -> None:
        self.epochs = epochs
        self.steps = steps

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to restore."""

    def update(self, epoch: int, step: int, loss: float) -> None:
        if step + 1 == self.steps:
            print(f"epoch {epoch + 1}/{self.epochs}  loss {loss:.4f}", flush=True)


class RichProgress(AbstractContextManager["RichProgress"]):
    """A bar over the whole run with epoch and loss beside it."""

    def __init__(self, epochs: int, steps: int) -> None:
        self.epochs = epochs
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
        )
        self.task = self.bar.add_task(
            "training", total=epochs * steps, epoch=f"1/{epochs}", loss="    -"
        )

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def update(self, epoch: int, step: int, loss: float) -> None:
        text = f"{epoch + 1}/{self.epochs}"
        self.bar.update(self.task, advance=1, epoch=text, loss=f"{loss:.3f}")


def make_progress(epochs: int, steps: int) -> PlainProgress | RichProgress:
    """``epochs`` passes of ``steps`` steps each."""
    if Progress is not None and sys.stdout.isatty():
        return RichProgress(epochs, steps)
    return PlainProgress(epochs, steps)
