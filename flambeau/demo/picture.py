"""The drawing at the end of the demo: the loss curve and pictures the network gets wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flambeau.demo.digits import Digits
from flambeau.demo.training import History

SHOWN = 20
COLUMNS = 5
# matplotlib is an optional dependency; this is what to say when it is missing.
HINT = "the picture needs matplotlib: pip install 'flambeau[plot]'   (or: pip install matplotlib)"


def draw(path: Path, history: History, digits: Digits, predictions: np.ndarray) -> None:
    """Writes a PNG; raises ImportError when matplotlib is not installed."""
    # Imported here because it is optional and takes longer to import than a step of training.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    draw_losses(left.subplots(), history)
    draw_mistakes(right, digits, predictions)
    figure.savefig(path, dpi=120)


def draw_losses(axes, history: History) -> None:
    losses = np.asarray(history.losses)
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="#f2b279", linewidth=0.8, label="each step")
    width = min(25, len(losses))
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(steps[width - 1 :], smooth, color="#b5420c", label=f"mean of {width} steps")
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy")
    axes.set_title(f"Training loss · test accuracy {history.accuracies[-1]:.1%}", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def draw_mistakes(figure, digits: Digits, predictions: np.ndarray) -> None:
    wrong = np.flatnonzero(predictions != digits.test_labels)
    figure.suptitle(f"{len(wrong)} of {len(predictions)} test pictures read wrongly", fontsize=11)
    grid = figure.subplots(SHOWN // COLUMNS, COLUMNS).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, index in zip(grid, wrong[:SHOWN]):
        axes.imshow(digits.test_images[index], cmap="gray_r", interpolation="nearest")
        truth = digits.class_names[digits.test_labels[index]]
        guess = digits.class_names[predictions[index]]
        axes.set_title(f"{truth} read as {guess}", fontsize=8, color="#333333")
