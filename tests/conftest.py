"""Fixtures that every folder of tests shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flambeau.core.config import config
from flambeau.engine.tape import thread


@pytest.fixture(params=[1, 1024], ids=["eager", "window"])
def window(request: pytest.FixtureRequest) -> Iterator[int]:
    """Runs the test with every call done at once, and again with calls collected."""
    before = config.window
    config.window = request.param
    thread.tape.flush()
    thread.tape.remaining = request.param
    yield request.param
    thread.tape.flush()
    config.window = before
    thread.tape.remaining = before
