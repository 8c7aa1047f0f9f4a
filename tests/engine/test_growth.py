"""A long run grows nothing: memory, the trie, plans, layouts."""

from __future__ import annotations

import gc
from pathlib import Path

import flambeau as torch
from flambeau.core import layout
from flambeau.engine import tape
from flambeau.engine.runtime import backend
from flambeau.engine.tape import thread

STEPS = 400


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def state() -> tuple[int, int, int]:
    """What a repeated step must not change."""
    return (
        thread.tape.calls_known,
        len(layout._interned),
        backend.statistics().reserved,
    )


def test_training_grows_nothing():
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.randn(16, 20), torch.randint(0, 4, (16,))

    def step():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(20):
        step().item()
    gc.collect()
    known, memory = state(), resident_bytes()
    for _ in range(STEPS):
        step()
    gc.collect()
    assert state() == known
    assert resident_bytes() - memory < 2 << 20


def test_new_shapes_for_ever_stay_bounded(monkeypatch):
    """Memory settles once the caches are full; here they are made small to see it."""
    monkeypatch.setattr(tape, "MAX_CALLS", 600)
    monkeypatch.setattr(layout, "MAX_INTERNED", 800)
    monkeypatch.setattr(layout, "_limit", 800)
    thread.tape.forget()
    x = torch.ones(5000)

    def new_shapes(start, stop):
        for n in range(start, stop):
            (torch.ones(n) * 2.0 + x[:n]).sum().item()
        gc.collect()
        return resident_bytes()

    before = new_shapes(1, 1000)
    assert new_shapes(1000, 3000) - before < 8 << 20
    assert thread.tape.calls_known <= 600
    assert len(layout._interned) <= layout._limit
