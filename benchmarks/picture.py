"""The ratios of a run as bars, one colour per group."""

import math
from pathlib import Path

COLOURS = {
    "overhead": "#c0392b", "memory": "#d9822b", "compute": "#2b7dd9", "training": "#2e8b57",
    "inference": "#5b9f7c", "process": "#7d5ba6", "files": "#8a8a8a",
}  # fmt: skip


def draw(rows: list[tuple[str, str, float]], path: Path, title: str) -> None:
    """``rows``: group, title and ratio of each, from top to bottom."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.27 * len(rows) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = list(range(len(rows)))[::-1]
    ratios = [ratio for _, _, ratio in rows]
    # Bars start at 1: to the right of it flambeau is faster, to the left PyTorch.
    bars = axes.barh(
        places,
        [ratio - 1 for ratio in ratios],
        left=1,
        color=[COLOURS.get(group, "#555555") for group, _, _ in rows],
        height=0.72,
    )
    axes.bar_label(bars, [f" {ratio:.2f}× " for ratio in ratios], fontsize=7)
    axes.set_yticks(places, [text for _, text, _ in rows], fontsize=7)
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(*ratios, 0.5) / 1.6, max(*ratios, 2) * 1.6)
    ends = range(math.floor(math.log2(min(*ratios, 0.5))), math.ceil(math.log2(max(ratios))) + 1)
    axes.set_xticks([2.0**k for k in ends], [f"{2.0**k:g}×" for k in ends], fontsize=7)
    axes.minorticks_off()
    axes.set_ylim(-0.8, len(rows) - 0.2)
    axes.set_xlabel("PyTorch's time / flambeau's: right of the line flambeau is faster", fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
