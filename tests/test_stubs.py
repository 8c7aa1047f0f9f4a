"""The committed stubs are what the declarations give, and they are sound Python."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import flambeau
from flambeau.tensor import Tensor

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_stubs", ROOT / "tools" / "generate_stubs.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names_in(tree: ast.Module) -> set[str]:
    """What a stub declares at its top level."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname for alias in node.names if alias.asname}
    return found


def test_stubs_are_up_to_date(generator: ModuleType) -> None:
    assert generator.stale() == [], "run python tools/generate_stubs.py and commit what it writes"


def test_stubs_do_not_depend_on_the_run(generator: ModuleType) -> None:
    assert generator.stubs() == generator.stubs()


def test_every_public_name_is_in_the_stub(generator: ModuleType) -> None:
    declared = names_in(ast.parse(generator.package_stub()))
    assert set(generator.public_names()) <= declared


def test_every_method_is_in_the_stub(generator: ModuleType) -> None:
    tree = ast.parse(generator.tensor_stub())
    (tensor,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Tensor"]
    declared = {n.name for n in tensor.body if isinstance(n, ast.FunctionDef)}
    declared |= {n.target.id for n in tensor.body if isinstance(n, ast.AnnAssign)}  # type: ignore[union-attr]
    assert set(vars(Tensor)) - generator.SKIPPED <= declared


def test_schemas_give_the_types(generator: ModuleType) -> None:
    (line,) = generator.operator_function("softmax", flambeau.softmax)
    assert line == (
        "def softmax(input: Tensor, dim: _int, dtype: _dtype | None = None, *, "
        "out: Tensor | None = None) -> Tensor: ..."
    )
    written = list(generator.operator_method("permute", flambeau.permute))
    assert written[3] == "def permute(self, *dims: _int) -> Tensor: ..."
