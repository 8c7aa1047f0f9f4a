"""Modules, functions and their errors against what PyTorch 2.13 did (tools/record_nn.py)."""

import json
import math
from pathlib import Path

import pytest

import flambeau as torch
from tests.nn import (
    attention_scripts,
    cases,
    computations,
    embedding_bag_scripts,
    recurrent_scripts,
    scripts,
)

REFERENCES = Path(__file__).resolve().parent.parent / "references" / "nn"


def recorded(title):
    return json.loads((REFERENCES / f"{title}.json").read_text())


def same(expected, found, tolerance=2e-5):
    if isinstance(expected, dict) and isinstance(found, dict):
        keys_match = expected.keys() == found.keys()
        return keys_match and all(same(expected[k], found[k], tolerance) for k in expected)
    if isinstance(expected, list) and isinstance(found, list):
        lengths_match = len(expected) == len(found)
        return lengths_match and all(same(a, b, tolerance) for a, b in zip(expected, found))
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(expected, found, rel_tol=tolerance, abs_tol=tolerance) or (
            math.isnan(expected) and math.isnan(found)
        )
    return type(expected) is type(found) and expected == found


def check(title, describe, name, tolerance=2e-5):
    found = json.loads(json.dumps(describe(torch, name)))
    expected = recorded_once[title][name]
    if not same(expected, found, tolerance):
        assert expected == found


recorded_once = {
    title: recorded(title)
    for title in (
        "modules",
        "starts",
        "values",
        "errors",
        "warnings",
        "computations",
        "scripts",
        "attention",
        "attention_errors",
        "attention_warnings",
        "bags",
        "bag_errors",
        "bag_modules",
        "recurrent",
    )  # fmt: skip
}


@pytest.mark.parametrize("expression", cases.MODULES)
def test_text_and_state(expression):
    check("modules", cases.describe_module, expression)


@pytest.mark.parametrize("expression", cases.STARTS)
def test_starting_values(expression):
    check("starts", cases.describe_start, expression, 1e-6)


@pytest.mark.parametrize("expression", cases.VALUES)
def test_value(expression):
    check("values", cases.describe_value, expression)


@pytest.mark.parametrize("expression", cases.ERRORS)
def test_error(expression):
    check("errors", cases.describe_error, expression)


@pytest.mark.parametrize("expression", cases.WARNINGS)
def test_warning(expression):
    check("warnings", cases.describe_warning, expression)


@pytest.mark.parametrize("name", computations.ALL)
def test_results_and_gradients(name):
    check("computations", computations.describe, name)


@pytest.mark.parametrize("name", scripts.ALL)
def test_script(name):
    check("scripts", scripts.describe, name)


@pytest.mark.parametrize("name", recurrent_scripts.ALL)
def test_recurrent(name):
    check("recurrent", recurrent_scripts.describe, name)


@pytest.mark.parametrize("name", attention_scripts.ALL)
def test_attention(name):
    check("attention", attention_scripts.describe, name)


@pytest.mark.parametrize("expression", attention_scripts.ERRORS)
def test_attention_error(expression):
    check("attention_errors", cases.describe_error, expression)


@pytest.mark.parametrize("expression", attention_scripts.WARNINGS)
def test_attention_warning(expression):
    check("attention_warnings", cases.describe_warning, expression)


@pytest.mark.parametrize("name", embedding_bag_scripts.ALL)
def test_embedding_bag(name):
    check("bags", embedding_bag_scripts.describe, name)


@pytest.mark.parametrize("expression", embedding_bag_scripts.ERRORS)
def test_embedding_bag_error(expression):
    check("bag_errors", cases.describe_error, expression)


@pytest.mark.parametrize("expression", embedding_bag_scripts.MODULES)
def test_embedding_bag_module(expression):
    check("bag_modules", cases.describe_module, expression)
