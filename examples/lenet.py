"""LeNet-5 on handwritten digits: an ordinary PyTorch program.

python -m flambeau examples/lenet.py      on flambeau
python examples/lenet.py                  on PyTorch, with the same numbers
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.utils.data import DataLoader, TensorDataset

DIGITS = Path(__file__).resolve().parent.parent / "flambeau" / "demo" / "digits.npz"


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(x.size(0), -1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def load(path, part):
    arrays = np.load(path)
    images = torch.from_numpy(arrays[f"{part}_images"]).unsqueeze(1).float().div(255)
    labels = torch.from_numpy(arrays[f"{part}_labels"].astype(np.int64))
    return TensorDataset((images - 0.1307) / 0.3081, labels)


def train(model, loader, optimizer, criterion):
    model.train()
    losses = []
    for images, labels in loader:
        optimizer.zero_grad()
        output = model(images)
        loss = criterion(output, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test(model, loader):
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in loader:
            prediction = model(images).argmax(dim=1)
            correct += prediction.eq(labels).sum().item()
    return correct / len(loader.dataset)


def main():
    parser = argparse.ArgumentParser(description="LeNet-5 on handwritten digits")
    parser.add_argument("--data", default=DIGITS, help="an .npz file with the digits")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--losses", action="store_true", help="print 50 losses and stop")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    train_loader = DataLoader(load(args.data, "train"), batch_size=64, shuffle=True)
    test_loader = DataLoader(load(args.data, "test"), batch_size=250)
    model = LeNet5()
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    if args.losses:
        for loss in train(model, train_loader, optimizer, criterion)[:50]:
            print(f"{loss:.7f}")
        return

    print(model)
    for epoch in range(1, args.epochs + 1):
        losses = train(model, train_loader, optimizer, criterion)
        accuracy = test(model, test_loader)
        mean = sum(losses) / len(losses)
        print(f"epoch {epoch}: mean loss {mean:.4f}, test accuracy {accuracy:.1%}")
    torch.save(model.state_dict(), "lenet.pth")
    print("saved lenet.pth")


if __name__ == "__main__":
    main()
