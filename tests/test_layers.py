"""The layer table holds, and the checker notices what it is there to notice."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load_checker():
    path = ROOT / "tools" / "check_layers.py"
    spec = importlib.util.spec_from_file_location("check_layers", path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    importlib.sys.modules["check_layers"] = module
    spec.loader.exec_module(module)
    return module


checker = load_checker()


def test_the_package_keeps_its_layers():
    assert checker.check(ROOT / "flambeau") == []


@pytest.fixture
def package(tmp_path):
    def write(**sources):
        for name, text in sources.items():
            path = tmp_path / "flambeau" / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return checker.check(tmp_path / "flambeau")

    return write


def test_down_is_allowed(package):
    assert package(core__dtype="x = 1", ops__add="from flambeau.core.dtype import x") == []


def test_up_is_refused(package):
    lines = package(core__dtype="from flambeau.ops import add", ops__add="")
    assert lines == ["flambeau.core.dtype:1: layer 0 imports flambeau.ops.add of layer 5"]


def test_the_root_is_the_highest_layer(package):
    lines = package(nn__linear="from flambeau import Tensor")
    assert lines == ["flambeau.nn.linear:1: layer 7 imports flambeau of layer 8"]


def test_relative_imports_are_resolved(package):
    lines = package(engine__tape="from ..ops.add import x", ops__add="x = 1")
    assert lines == ["flambeau.engine.tape:1: layer 3 imports flambeau.ops.add of layer 5"]


def test_circles_are_refused(package):
    lines = package(
        ops__a="from flambeau.ops.b import x",
        ops__b="import flambeau.ops.c",
        ops__c="from flambeau.ops import a",
    )
    circle = "flambeau.ops.a -> flambeau.ops.b -> flambeau.ops.c -> flambeau.ops.a"
    assert lines == [f"circle of imports: {circle}"]


def test_hidden_imports_are_refused_even_downwards(package):
    source = "def f():\n    if True:\n        from flambeau.core.dtype import x\n"
    lines = package(core__dtype="x = 1", ops__add=source)
    assert lines == ["flambeau.ops.add:3: imports flambeau.core.dtype inside a function"]


def test_imports_for_types_only_do_not_count(package):
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from flambeau.ops.add import x\n"
        "else:\n"
        "    from flambeau.ops.add import y\n"
    )
    lines = package(core__dtype=source, ops__add="x = y = 1")
    assert lines == ["flambeau.core.dtype:5: layer 0 imports flambeau.ops.add of layer 5"]


def test_a_module_without_a_layer_is_named(package):
    assert package(novelty="") == [
        "flambeau.novelty: not in the layer table of tools/check_layers.py"
    ]
