"""Autograd's behaviour against what PyTorch did (tools/record_semantics.py)."""

import pytest

import flambeau as torch
from tests import semantics
from tests.autograd import function_cases, graph_cases, hook_cases, mode_cases


@pytest.mark.parametrize("name", graph_cases.CASES)
def test_graph(name: str, window: int) -> None:
    semantics.check("graph", graph_cases.CASES, name, torch)


@pytest.mark.parametrize("name", hook_cases.CASES)
def test_hooks(name: str, window: int) -> None:
    semantics.check("hooks", hook_cases.CASES, name, torch)


@pytest.mark.parametrize("name", mode_cases.CASES)
def test_modes(name: str, window: int) -> None:
    semantics.check("modes", mode_cases.CASES, name, torch)


@pytest.mark.parametrize("name", function_cases.CASES)
def test_functions(name: str, window: int) -> None:
    semantics.check("functions", function_cases.CASES, name, torch)
