"""The command ``flambeau demo``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import flambeau
from flambeau.demo.digits import FASHION_FOLDER, DataError, Digits, load_folder, load_packaged
from flambeau.demo.picture import HINT, draw
from flambeau.demo.progress import make_progress
from flambeau.demo.training import BATCH_SIZE, History, predict, steps_per_epoch, train
from flambeau.models import LeNet5

DEFAULT_EPOCHS = 8

NEXT = """\
What to try next
  flambeau demo --data {fashion}      clothes instead of digits
                                      (Debian: apt install dataset-fashion-mnist)
  flambeau examples/lenet.py          the same network as an ordinary PyTorch program
  flambeau your_training_script.py    your own program, unchanged
  load what was just learnt:
      import flambeau as torch
      from flambeau.models import LeNet5
      model = LeNet5()
      model.load_state_dict(torch.load("{weights}"))
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flambeau demo", description="Train LeNet-5 on handwritten digits."
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a folder with MNIST or Fashion-MNIST idx files"
    )
    parser.add_argument("--epochs", type=int, default=None, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("."),
        metavar="DIR",
        help="where to save (default: here)",
    )
    parser.add_argument("--quick", action="store_true", help="one epoch: does everything work?")
    return parser


def main(arguments: list[str]) -> int:
    """Trains, saves and draws; returns the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    epochs = options.epochs if options.epochs is not None else DEFAULT_EPOCHS
    if options.quick:
        epochs = 1
    if epochs < 1:
        parser.error(f"--epochs must be at least 1, not {epochs}")
    try:
        digits = load_folder(options.data) if options.data else load_packaged()
        options.out.mkdir(parents=True, exist_ok=True)
    except (DataError, OSError) as error:
        print(f"flambeau demo: {error}", file=sys.stderr)
        return 1
    try:
        run(digits, epochs, options.seed, options.out)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


def run(digits: Digits, epochs: int, seed: int, out: Path) -> None:
    print(f"LeNet-5 on {digits.name}: ", end="")
    print(f"{len(digits.train_labels):,} pictures to learn, {len(digits.test_labels):,} to test")
    flambeau.manual_seed(seed)
    model = LeNet5()
    with make_progress(epochs, steps_per_epoch(digits)) as progress:
        history = train(model, digits, epochs, progress.update)
    report(history, epochs)
    weights = out / "lenet.pth"
    flambeau.save(model.state_dict(), weights)
    print(f"saved {weights}")
    picture = out / "lenet.png"
    try:
        draw(picture, history, digits, predict(model, digits))
        print(f"saved {picture}")
    except ImportError:
        print(HINT)
    print()
    print(NEXT.format(fashion=FASHION_FOLDER, weights=weights), end="")


def report(history: History, epochs: int) -> None:
    rate = len(history.losses) * BATCH_SIZE / history.seconds
    print(f"test accuracy {history.accuracies[-1]:.1%} after {epochs} epochs", end="")
    print(f" in {history.seconds:.1f} s ({rate:,.0f} pictures/s)")
    started = process_start()
    if started is not None:
        print(f"first step done {history.first_step_at - started:.2f} s after the process started")


def process_start() -> float | None:
    """When this process began, in the clock of ``time.time``; None where /proc does not say."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    # Field 22 of proc(5), counted from the state, which is field 3.
    age = uptime - int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
    return time.time() - age
