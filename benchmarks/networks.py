"""The models of the benchmarks, in the plain API; each function takes the library."""

import math


def mlp(torch):
    nn = torch.nn
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet(torch):
    nn = torch.nn
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def resnet18(torch):
    """He et al., 2015, with the first layer for images of 32 × 32."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.main = nn.Sequential(
                nn.Conv2d(before, after, 3, stride, 1, bias=False),
                nn.BatchNorm2d(after), nn.ReLU(),
                nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
            )  # fmt: skip
            self.side = nn.Identity()
            if stride != 1 or before != after:
                self.side = nn.Sequential(
                    nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
                )

        def forward(self, x):
            return torch.relu(self.main(x) + self.side(x))

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    before = 64
    for after, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(before, after, stride), Block(after, after, 1)]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def lstm(torch, vocabulary, width):
    """A language model over (steps, batch) of tokens; logits."""
    nn = torch.nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, width)
            self.recurrent = nn.LSTM(width, width, 2)
            self.head = nn.Linear(width, vocabulary)

        def forward(self, ids):
            return self.head(self.recurrent(self.embedding(ids))[0])

    torch.manual_seed(0)
    return Model()


def vae(torch):
    """Kingma and Welling, 2013; gives the loss per image."""
    nn, functional = torch.nn, torch.nn.functional

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU())
            self.mean, self.log_variance = nn.Linear(400, 20), nn.Linear(400, 20)
            self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

        def forward(self, images, noise):
            hidden = self.encoder(images)
            mean, log_variance = self.mean(hidden), self.log_variance(hidden)
            seen = self.decoder(mean + noise * (log_variance / 2).exp())
            missed = functional.binary_cross_entropy_with_logits(seen, images, reduction="sum")
            divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
            return (missed + divergence) / images.shape[0]

    torch.manual_seed(0)
    return Model()


def gpt(torch, layers, width, heads, context, vocabulary):
    """A decoder-only transformer with learned positions; logits."""
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
            self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x, cache=None, causal=True):
            batch, steps, _ = x.shape
            parts = self.project(self.before_attention(x)).chunk(3, -1)
            q, k, v = (p.view(batch, steps, heads, -1).transpose(1, 2) for p in parts)
            if cache is not None:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
            x = x + self.out(seen.transpose(1, 2).reshape(batch, steps, width))
            x = x + self.down(functional.gelu(self.up(self.before_mlp(x)), approximate="tanh"))
            return x, (k, v)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.last = nn.LayerNorm(width)
            for parameter in self.parameters():
                if parameter.ndim == 2:
                    nn.init.normal_(parameter, std=1 / math.sqrt(width))

        def forward(self, ids):
            x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x, _ = block(x)
            return functional.linear(self.last(x), self.tokens.weight)

        def decode(self, token, position, caches):
            """Logits of one token (batch, 1) at its position, and the grown caches."""
            x = self.tokens(token) + self.places(torch.tensor([position]))
            grown = []
            for block, cache in zip(self.blocks, caches or [None] * layers):
                x, cache = block(x, cache, causal=False)
                grown.append(cache)
            return functional.linear(self.last(x), self.tokens.weight), grown

    torch.manual_seed(0)
    return Model()
