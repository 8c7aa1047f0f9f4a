"""Ready-made networks."""

from __future__ import annotations

from flambeau import nn
from flambeau.tensor import Tensor


class LeNet5(nn.Module):
    """LeNet-5 for 28x28 grey pictures, with ReLU and max pooling in place of the originals.

    Input ``(N, in_channels, 28, 28)``, output ``(N, num_classes)`` (no softmax).
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
