"""The training loop of the demo, in the API a PyTorch user knows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import flambeau
import flambeau.nn.functional as F
from flambeau import nn
from flambeau.demo.digits import Digits
from flambeau.optim import Adam
from flambeau.optim.lr_scheduler import LambdaLR
from flambeau.tensor import Tensor
from flambeau.utils.data import DataLoader, TensorDataset

BATCH_SIZE = 50
# Mean and standard deviation of MNIST's pixels; good enough for Fashion-MNIST as well.
PIXEL_MEAN = 0.1307
PIXEL_DEVIATION = 0.3081

# Called after every step: (epoch from 0, step in the epoch from 0, loss).
OnStep = Callable[[int, int, float], None]


@dataclass
class History:
    """What happened during training, for the picture and the report."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    first_step_at: float = 0.0
    seconds: float = 0.0


def to_tensors(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """uint8 pictures as normalised float32 (N, 1, 28, 28), labels as int64."""
    pixels = flambeau.from_numpy(images).unsqueeze(1).float() / 255
    return (pixels - PIXEL_MEAN) / PIXEL_DEVIATION, flambeau.from_numpy(labels)


def steps_per_epoch(digits: Digits) -> int:
    return -(-len(digits.train_labels) // BATCH_SIZE)


def train(model: nn.Module, digits: Digits, epochs: int, on_step: OnStep) -> History:
    """Trains ``model`` in place with Adam, its learning rate falling to zero over the run."""
    history = History()
    start = time.perf_counter()
    dataset = TensorDataset(*to_tensors(digits.train_images, digits.train_labels))
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True)
    total_steps = epochs * len(loader)
    optimizer = Adam(model.parameters(), lr=2e-3)
    scheduler = LambdaLR(optimizer, lambda step: 1 - step / total_steps)
    for epoch in range(epochs):
        model.train()
        for step, (images, labels) in enumerate(loader):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            history.losses.append(loss.item())
            if not history.first_step_at:
                history.first_step_at = time.time()
            on_step(epoch, step, history.losses[-1])
        predictions = predict(model, digits)
        history.accuracies.append(float((predictions == digits.test_labels).mean()))
    history.seconds = time.perf_counter() - start
    return history


def predict(model: nn.Module, digits: Digits) -> np.ndarray:
    """The most likely class of every test picture."""
    images, _ = to_tensors(digits.test_images, digits.test_labels)
    model.eval()
    with flambeau.no_grad():
        batches = [model(batch).argmax(dim=1).numpy() for batch in images.split(500)]
    return np.concatenate(batches)
