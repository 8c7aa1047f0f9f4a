"""Bags of embeddings as small programs and mistakes, beside what PyTorch 2.13 did."""

ALL = {}

_MODES = ("sum", "mean", "max")
_BAGS = {
    "offsets": ([0, 2, 5, 1, 2], {"offsets": [0, 2]}),
    "an empty bag": ([0, 2, 5, 1], {"offsets": [0, 2, 2, 4]}),
    "last offset": ([0, 2, 5, 1], {"offsets": [0, 3, 4], "include_last_offset": True}),
    "rows": ([[0, 2], [5, 1], [2, 2]], {}),
    "padding": ([0, 2, 5, 1, 2], {"offsets": [0, 2], "padding_idx": 2}),
    "only padding": ([2, 2, 1], {"offsets": [0, 2], "padding_idx": -4}),
    # PyTorch divides by wrong counts where a greater index follows a repeated one.
    "repeated": ([0, 5, 1, 5], {"offsets": [0, 2]}),
    "nothing": ([], {"offsets": [0]}),
    "norm": ([0, 2, 5, 1], {"offsets": [0, 2], "max_norm": 1.0}),
}
ALL |= {f"{mode}; {bags}": (mode, bags, {}) for mode in _MODES for bags in _BAGS}
ALL |= {
    f"{mode}; frequency": (mode, "repeated", {"scale_grad_by_freq": True})
    for mode in ("sum", "mean")
}
ALL |= {f"weighted; {bags}": ("sum", bags, None) for bags in ("offsets", "rows", "padding")}


def describe(torch, name):
    mode, bags, more = ALL[name]
    numbers, options = _BAGS[bags]
    options = dict(options)
    if "offsets" in options:
        options["offsets"] = torch.tensor(options["offsets"])
    indices = torch.tensor(numbers, dtype=torch.int64)
    weight = torch.sin(torch.arange(18.0) * 1.3).reshape(6, 3).requires_grad_()
    leaves = [weight]
    if more is None:
        factors = torch.cos(torch.arange(float(indices.numel()))).reshape(indices.shape)
        leaves.append(factors.requires_grad_())
        options["per_sample_weights"] = factors
    else:
        options |= more
    result = torch.nn.functional.embedding_bag(indices, weight, mode=mode, **options)
    (result * torch.arange(1.0, result.numel() + 1).reshape(result.shape)).sum().backward()
    return [t.detach().tolist() for t in (result, *(leaf.grad for leaf in leaves))]


_ROWS = "torch.tensor([0, 2, 5, 1])"
_TABLE = "torch.ones(6, 2)"
ERRORS = [
    f"F.embedding_bag({arguments})"
    for arguments in (
        f"{_ROWS}.view(2, 2), {_TABLE}, torch.tensor([0])",
        f"{_ROWS}, {_TABLE}",
        f"{_ROWS}, {_TABLE}, torch.tensor([[0]])",
        f"{_ROWS}.view(1, 2, 2), {_TABLE}",
        f"{_ROWS}, {_TABLE}, torch.tensor([0, 7])",
        f"torch.tensor([0, 9]), {_TABLE}, torch.tensor([0])",
        f"{_ROWS}, {_TABLE}, torch.tensor([0]), mode='x'",
        f"{_ROWS}, {_TABLE}, torch.tensor([0]), mode='max', scale_grad_by_freq=True",
        f"{_ROWS}, {_TABLE}, torch.tensor([0]), mode='max', sparse=True",
        f"{_ROWS}, {_TABLE}, torch.tensor([0]), per_sample_weights=torch.ones(4)",
        f"{_ROWS}, {_TABLE}, torch.tensor([0]), mode='sum', per_sample_weights=torch.ones(3)",
        f"{_ROWS}, {_TABLE}, torch.tensor([0]), mode='sum', "
        "per_sample_weights=torch.ones(4, dtype=torch.float64)",
        f"{_ROWS}, torch.ones(6), torch.tensor([0])",
        f"{_ROWS}.float(), {_TABLE}, torch.tensor([0])",
        f"{_ROWS}, {_TABLE}, torch.tensor([0]), padding_idx=9",
        f"{_ROWS}, {_TABLE}, torch.tensor([], dtype=torch.int64), include_last_offset=True",
    )
]
ERRORS += [
    "nn.EmbeddingBag(5, 3, padding_idx=5)",
    "nn.EmbeddingBag(5, 3, _weight=torch.ones(2, 2))",
    "nn.EmbeddingBag.from_pretrained(torch.ones(3))",
]
MODULES = [
    "nn.EmbeddingBag(5, 3)",
    "nn.EmbeddingBag(5, 3, 1.0, 1.0, True, 'sum', True, include_last_offset=True, padding_idx=-1)",
]
