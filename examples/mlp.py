"""A multi-layer perceptron learns two interleaved spirals (no data files needed).

python -m flambeau examples/mlp.py
"""

import argparse
import math

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR


def spirals(count):
    """Points (2 * count, 2) on two noisy spirals and the number of the spiral of each."""
    radius = torch.linspace(0.1, 1.0, count)
    angle = radius * 3 * math.pi
    arm = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    points = torch.cat([arm, -arm]) + 0.02 * torch.randn(2 * count, 2)
    labels = torch.cat([torch.zeros(count), torch.ones(count)])
    return points, labels


def main():
    parser = argparse.ArgumentParser(description="two spirals")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--losses", action="store_true", help="print 50 losses and stop")
    args = parser.parse_args()

    torch.manual_seed(7)
    points, labels = spirals(400)
    model = nn.Sequential(
        nn.Linear(2, 64),
        nn.Tanh(),
        nn.Linear(64, 64),
        nn.LayerNorm(64),
        nn.GELU(),
        nn.Linear(64, 1),
    )
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    scheduler = CosineAnnealingLR(optimizer, T_max=args.steps)

    for step in range(50 if args.losses else args.steps):
        batch = torch.randint(len(points), (128,))
        optimizer.zero_grad()
        loss = criterion(model(points[batch]).squeeze(1), labels[batch])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        scheduler.step()
        if args.losses:
            print(f"{loss.item():.7f}")
        elif step % 150 == 0:
            print(f"step {step:4d}  loss {loss.item():.4f}  gradient norm {norm.item():.3f}")

    if not args.losses:
        with torch.no_grad():
            correct = (model(points).squeeze(1) > 0).float().eq(labels).float().mean().item()
        print(f"accuracy {correct:.1%}")


if __name__ == "__main__":
    main()
