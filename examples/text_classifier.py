"""Says whether a short film review is friendly: word embeddings, their mean, one linear layer.

python -m flambeau examples/text_classifier.py "a warm and clever film"
"""

import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

FRIENDLY = """
a warm and clever film with a great cast
i loved every minute of it
funny moving and beautifully shot
the best thing i have seen this year
a great story told with care
clever funny and never too long
what a wonderful surprise
the music is lovely and the cast is great
i laughed i cried i want to see it again
a quiet film full of wonderful moments
beautiful pictures and a moving end
a clever story with a warm heart
"""

UNFRIENDLY = """
a cold and boring film with a weak cast
i hated every minute of it
dull loud and badly shot
the worst thing i have seen this year
a weak story told without care
boring loud and far too long
what a terrible disappointment
the music is awful and the cast is weak
i yawned i slept i never want to see it again
a loud film full of terrible moments
ugly pictures and a stupid end
a stupid story with a cold heart
"""


class Reviews(Dataset):
    """Reviews as word numbers, padded with 0, and 1 for a friendly one."""

    def __init__(self):
        friendly = FRIENDLY.strip().splitlines()
        unfriendly = UNFRIENDLY.strip().splitlines()
        words = sorted({word for line in friendly + unfriendly for word in line.split()})
        self.numbers = {word: number for number, word in enumerate(words, start=2)}
        self.length = max(len(line.split()) for line in friendly + unfriendly)
        self.items = [(line, 1) for line in friendly] + [(line, 0) for line in unfriendly]

    def encode(self, line):
        """Unknown words are number 1."""
        known = [self.numbers.get(word, 1) for word in line.lower().split()][: self.length]
        return torch.tensor(known + [0] * (self.length - len(known)))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        line, friendly = self.items[index]
        return self.encode(line), friendly


class MeanOfWords(nn.Module):
    def __init__(self, words, width=16):
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.output = nn.Linear(width, 2)

    def forward(self, numbers):
        mask = (numbers != 0).unsqueeze(-1).float()
        total = (self.embedding(numbers) * mask).sum(dim=1)
        return self.output(total / mask.sum(dim=1).clamp(min=1))


def main():
    parser = argparse.ArgumentParser(description="friendly or not?")
    parser.add_argument("review", nargs="*", default=["a lovely clever film"])
    parser.add_argument("--losses", action="store_true", help="print 50 losses and stop")
    args = parser.parse_args()

    torch.manual_seed(3)
    reviews = Reviews()
    loader = DataLoader(reviews, batch_size=6, shuffle=True)
    model = MeanOfWords(len(reviews.numbers) + 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(25):
        for numbers, friendly in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(numbers), friendly)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    if args.losses:
        for loss in losses[:50]:
            print(f"{loss:.7f}")
        return
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} after {len(losses)} steps")
    model.eval()
    with torch.no_grad():
        for line in args.review:
            chances = F.softmax(model(reviews.encode(line).unsqueeze(0)), dim=1)
            print(f"{chances[0, 1].item():6.1%} friendly: {line}")


if __name__ == "__main__":
    main()
