"""Records PyTorch's random draws, for tests/engine/test_generator.py.

    python tools/record_random.py          (with PyTorch 2.13)

Writes tests/references/random/draws.json: for each case the first elements (as bits), a digest of
all elements' bytes, and a digest of the generator's state afterwards.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "engine"))

import random_cases as cases  # noqa: E402 - found through the path above

SHOWN = 8


def dtype_of(name: str) -> torch.dtype:
    return getattr(torch, name)


def draw(case: tuple, generator: torch.Generator) -> torch.Tensor:
    """The elements of one case."""
    operation, dtype, size, arguments = case
    options = {"generator": generator}
    if operation == "randperm":
        return torch.randperm(size, dtype=dtype_of(dtype), **options)
    if operation == "choices":
        weights = torch.tensor(cases.weights(*arguments), dtype=dtype_of(dtype))
        return torch.multinomial(weights, size, True, **options)
    result = torch.zeros(size, dtype=dtype_of(dtype))
    if operation == "bernoulli_each":
        chances = torch.tensor(cases.weights(size), dtype=dtype_of(*arguments))
        return result.bernoulli_(chances, **options)
    if operation == "random_full":
        return result.random_(-(2**63), None, **options)
    method = "random_" if operation == "randint" else f"{operation}_"
    return getattr(result, method)(*arguments, **options)


def data(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def state(generator: torch.Generator) -> str:
    return hashlib.sha256(data(generator.get_state())).hexdigest()[:16]


def record(case: tuple, generator: torch.Generator) -> list[str]:
    drawn = draw(case, generator)
    digest = hashlib.sha256(data(drawn)).hexdigest()[:16]
    return [data(drawn[:SHOWN]).hex(), digest, state(generator)]


def main() -> None:
    warnings.simplefilter("ignore")
    generator = torch.Generator().manual_seed(cases.SEED)
    draws = {cases.title(case): record(case, generator) for case in cases.CASES}
    seeds = {str(seed): state(generator.manual_seed(seed)) for seed in cases.SEEDS}
    generator.manual_seed(cases.SEED)
    torch.empty(3).normal_(generator=generator)
    full = data(generator.get_state()).hex()
    following = data(torch.empty(20).normal_(generator=generator)).hex()
    folder = ROOT / "tests" / "references" / "random"
    folder.mkdir(parents=True, exist_ok=True)
    recorded = {"draws": draws, "seeds": seeds, "state": full, "following": following}
    (folder / "draws.json").write_text(json.dumps(recorded, indent=0) + "\n")


if __name__ == "__main__":
    main()
