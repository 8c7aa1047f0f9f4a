"""What ``import flambeau as torch`` offers: every operator, under names that a search finds."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import flambeau as torch
from flambeau.ops.operator import OPERATORS, Operator

SOURCE = Path(torch.__file__).read_text(encoding="utf-8")
FUNCTIONS = [op for op in OPERATORS.values() if "function" in op.variants]


def written_names() -> list[str]:
    """The names that the package's source binds, in order."""
    found: list[str] = []
    for node in ast.parse(SOURCE).body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            found += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return found


@pytest.mark.parametrize("op", FUNCTIONS, ids=lambda op: op.name)
def test_every_operator_is_exported_under_all_its_names(op: Operator) -> None:
    for name in (op.name, *op.aliases):
        assert getattr(torch, name) is op, name


def test_every_exported_operator_is_declared_as_a_function() -> None:
    exported = [v for v in vars(torch).values() if isinstance(v, Operator)]
    assert [op.name for op in exported if op not in FUNCTIONS] == []


def test_names_stand_in_the_source_once() -> None:
    names = written_names()
    assert sorted({n for n in names if names.count(n) > 1}) == []
    operators = {name for name, value in vars(torch).items() if isinstance(value, Operator)}
    assert operators <= set(names)


def test_the_package_computes_no_names() -> None:
    kinds = {type(node) for node in ast.parse(SOURCE).body}
    assert kinds <= {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign}
    assert "globals" not in SOURCE


def test_second_names_are_in_order() -> None:
    for block in SOURCE.split("\n# ")[1:]:
        paragraph = block.split("\n\n")[0]
        names = [line.partition(" = ")[0] for line in paragraph.splitlines() if " = " in line]
        assert names == sorted(names)


@pytest.mark.parametrize("name", ["relu_", "exp_", "clamp_", "fix_"])
def test_functions_in_place_write_into_their_argument(name: str) -> None:
    x = torch.tensor([-1.5, 2.5])
    arguments = (0.0, 1.0) if name == "clamp_" else ()
    expected = getattr(torch, name.rstrip("_"))(x, *arguments)
    assert getattr(torch, name)(x, *arguments) is x
    assert torch.equal(x, expected)


def test_old_names_of_tensors() -> None:
    assert isinstance(torch.ones(2), torch.FloatTensor)
    assert not isinstance(torch.ones(2), torch.LongTensor)
    assert torch.FloatTensor(2, 3).shape == (2, 3)
    assert torch.LongTensor([1.5, 2]).tolist() == [1, 2]
    assert torch.DoubleTensor(torch.Size([4])).dtype is torch.float64
    assert repr(torch.ByteTensor) == "<class 'torch.ByteTensor'>"
    with pytest.raises(TypeError, match="expected TensorOptions"):
        torch.FloatTensor(torch.ones(2, dtype=torch.int64))


def test_typename() -> None:
    assert torch.typename(torch.ones(1)) == "torch.FloatTensor"
    assert torch.typename(3) == "int"


def test_storages_share_memory() -> None:
    x = torch.arange(4.0)
    assert x.untyped_storage().nbytes() == 16
    assert x.storage().tolist() == [0.0, 1.0, 2.0, 3.0]
    x.storage()[1] = 7.0
    assert x.tolist() == [0.0, 7.0, 2.0, 3.0]
    assert x.untyped_storage().data_ptr() == x[2:].untyped_storage().data_ptr()
