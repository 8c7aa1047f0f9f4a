"""``detect_anomaly``: backward stops where a gradient becomes NaN."""

from __future__ import annotations

import warnings
from typing import Any

from flambeau.graph import grad_mode


class set_detect_anomaly:
    """Switches the detection at once; as a context manager it is undone at the end."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.previous = grad_mode.checks_nan
        grad_mode.checks_nan = bool(mode and check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        grad_mode.checks_nan = self.previous


class detect_anomaly(set_detect_anomaly):
    """Within it, backward raises RuntimeError at the first node that returns NaN."""

    def __init__(self, check_nan: bool = True) -> None:
        warnings.warn(
            "Anomaly Detection has been enabled. This mode will increase the runtime and should "
            "only be enabled for debugging.",
            UserWarning,
            stacklevel=2,
        )
        self.wanted = check_nan
        self.previous = grad_mode.checks_nan

    def __enter__(self) -> None:
        self.previous = grad_mode.checks_nan
        grad_mode.checks_nan = self.wanted


def is_anomaly_enabled() -> bool:
    """Whether backward looks for NaN."""
    return grad_mode.checks_nan


def check_results(name: str, results: Any) -> None:
    """PyTorch's error for a node whose results hold NaN."""
    for position, gradient in enumerate(results):
        if gradient is not None and bool((gradient != gradient).any()):
            raise RuntimeError(f"Function '{name}' returned nan values in its {position}th output.")
