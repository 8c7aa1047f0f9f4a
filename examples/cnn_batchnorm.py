"""A small residual network with batch normalisation on handwritten digits.

python -m flambeau examples/cnn_batchnorm.py
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

DIGITS = Path(__file__).resolve().parent.parent / "flambeau" / "demo" / "digits.npz"


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; a stride of 2 halves the picture.

    SiLU has no kink: behind batch normalisation a whole blank background would sit on that of ReLU,
    and two correct machines would soon print different losses.
    """

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.activation = nn.SiLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += self.shortcut(x)
        return self.activation(y)


class SmallResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.blocks = nn.ModuleList([Block(8, 16, 2), Block(16, 32, 2), Block(32, 32, 2)])
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(32, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = x.mean(dim=(2, 3))
        return self.output(self.dropout(x))


def load(path, part):
    arrays = np.load(path)
    images = torch.from_numpy(arrays[f"{part}_images"]).unsqueeze(1).float() / 255
    return images, torch.from_numpy(arrays[f"{part}_labels"].astype(np.int64))


def main():
    parser = argparse.ArgumentParser(description="a small residual network")
    parser.add_argument("--data", default=DIGITS, help="an .npz file with the digits")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--losses", action="store_true", help="print 50 losses and stop")
    args = parser.parse_args()

    torch.manual_seed(11)
    images, labels = load(args.data, "train")
    loader = DataLoader(TensorDataset(images, labels), batch_size=32, shuffle=True, drop_last=True)
    model = SmallResNet()
    print_progress = not args.losses
    if print_progress:
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{count:,} parameters")
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    scheduler = StepLR(optimizer, step_size=1, gamma=0.3)
    for epoch in range(args.epochs):
        model.train()
        for step, (inputs, targets) in enumerate(loader):
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            if args.losses:
                print(f"{loss.item():.7f}")
                if step == 49:
                    return
            elif step % 40 == 0:
                print(f"epoch {epoch + 1} step {step:3d}  loss {loss.item():.4f}")
        scheduler.step()

    model.eval()
    images, labels = load(args.data, "test")
    with torch.no_grad():
        prediction = torch.cat([model(batch).argmax(1) for batch in images.split(250)])
    accuracy = (prediction == labels).float().mean().item()
    print(f"test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
