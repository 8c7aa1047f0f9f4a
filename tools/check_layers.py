"""Checks that imports inside flambeau point down, never in a circle, and are not hidden.

    python tools/check_layers.py [folder of the package]

Rules (the table below is the one in docs/architecture.md):

* a module imports modules of its own layer or of lower ones;
* no circle of imports among modules;
* no import of flambeau inside a function, except those in ``ALLOWED_INSIDE``, each with its reason.

Imports under ``if TYPE_CHECKING:`` do not run and are not counted. The check imports
nothing, it reads the sources.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "flambeau"

# The most specific entry wins; a package's entry covers everything below it.
LAYERS = {
    "flambeau": 8,
    "flambeau.version": 0,
    "flambeau.core": 0,
    "flambeau.backend": 1,
    "flambeau.compiler": 2,
    "flambeau.engine": 3,
    "flambeau.tensor": 4,
    "flambeau.printing": 4,
    "flambeau.graph": 4,
    "flambeau.fields": 4,
    "flambeau.ops": 5,
    "flambeau.autograd": 6,
    "flambeau.bindings": 6,
    "flambeau.interchange": 4,
    "flambeau.storage": 6,
    "flambeau.tensor_creation": 6,
    "flambeau._dynamo": 7,
    "flambeau._inductor": 7,
    "flambeau.accelerator": 7,
    "flambeau.amp": 7,
    "flambeau.backends": 7,
    "flambeau.capture": 7,
    "flambeau.compat": 7,
    "flambeau.cpu": 7,
    "flambeau.cuda": 7,
    "flambeau.distributed": 7,
    "flambeau.distributions": 7,
    "flambeau.fft": 7,
    "flambeau.linalg": 7,
    "flambeau.models": 7,
    "flambeau.nn": 7,
    "flambeau.optim": 7,
    "flambeau.random": 7,
    "flambeau.serialization": 7,
    "flambeau.settings": 7,
    "flambeau.special": 7,
    "flambeau.functional": 7,
    "flambeau.tensor_types": 7,
    "flambeau.testing": 7,
    "flambeau.types": 7,
    "flambeau.utils": 7,
    "flambeau.__main__": 8,
    "flambeau.cli": 8,
    "flambeau.demo": 8,
    "flambeau.doctor": 8,
    "flambeau.launch": 8,
}

# (importing module, imported module): why the import may stand inside a function.
ALLOWED_INSIDE = {
    ("flambeau.compiler.jit", "flambeau.compiler.llvm"): "llvmlite is for object-cache misses only",
    ("flambeau.capture.api", "flambeau.capture.function"): "for programs that compile something",
    ("flambeau.cli", "flambeau.demo.command"): "a program that is run must not pay for the demo",
    ("flambeau.cli", "flambeau.doctor"): "a program that is run must not pay for the report",
}

ROOT_FILE = "__init__"


@dataclass(frozen=True)
class Import:
    """One import of a module of flambeau by another."""

    importer: str
    imported: str
    line: int
    inside_function: bool


def module_name(path: Path, package: Path) -> str:
    parts = list(path.relative_to(package.parent).with_suffix("").parts)
    if parts[-1] == ROOT_FILE:
        parts.pop()
    return ".".join(parts)


def source_files(package: Path) -> dict[str, Path]:
    """Every module of the package by name; the stand-in for torch is not part of it."""
    paths = sorted(package.rglob("*.py"))
    return {module_name(path, package): path for path in paths if "stand_in" not in path.parts}


def layer_of(module: str) -> int | None:
    """The layer of the nearest entry; the root's entry covers the root alone."""
    name = module
    while name not in LAYERS:
        name = name.rpartition(".")[0]
    if name == PACKAGE and module != PACKAGE:
        return None
    return LAYERS[name]


def is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def import_statements(
    node: ast.AST, inside_function: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """All import statements that can run, each with whether a function must be called first."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside_function
        elif isinstance(child, ast.If) and is_type_checking(child.test):
            for statement in child.orelse:
                yield from import_statements(ast.Module([statement], []), inside_function)
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from import_statements(child, inside_function or is_function)


def imported_modules(
    statement: ast.Import | ast.ImportFrom, importer: str, is_package: bool, modules: set[str]
) -> Iterator[str]:
    """The modules of flambeau that a statement names; a name in a package may be a submodule."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            if alias.name.split(".")[0] == PACKAGE:
                yield alias.name
        return
    base = statement.module or ""
    if statement.level:
        parts = importer.split(".")
        drop = statement.level - 1 if is_package else statement.level
        base = ".".join([*parts[: len(parts) - drop], *([base] if base else [])])
    if base.split(".")[0] != PACKAGE:
        return
    for alias in statement.names:
        submodule = f"{base}.{alias.name}"
        yield submodule if submodule in modules else base


def read_imports(files: dict[str, Path]) -> list[Import]:
    modules = set(files)
    found = []
    for importer, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        is_package = path.stem == ROOT_FILE
        for statement, inside in import_statements(tree):
            for imported in imported_modules(statement, importer, is_package, modules):
                found.append(Import(importer, imported, statement.lineno, inside))
    return found


def upward(imports: list[Import]) -> Iterator[str]:
    for edge in imports:
        own = layer_of(edge.importer)
        other = layer_of(edge.imported)
        if own is not None and other is not None and other > own:
            yield (
                f"{edge.importer}:{edge.line}: layer {own} imports {edge.imported} of layer {other}"
            )


def unknown(files: dict[str, Path]) -> Iterator[str]:
    for module in files:
        if layer_of(module) is None:
            yield f"{module}: not in the layer table of tools/check_layers.py"


def hidden(imports: list[Import]) -> Iterator[str]:
    for edge in imports:
        if edge.inside_function and (edge.importer, edge.imported) not in ALLOWED_INSIDE:
            yield f"{edge.importer}:{edge.line}: imports {edge.imported} inside a function"


def stale_permissions(imports: list[Import]) -> Iterator[str]:
    used = {(edge.importer, edge.imported) for edge in imports if edge.inside_function}
    importers = {edge.importer for edge in imports}
    for importer, imported in ALLOWED_INSIDE:
        if importer in importers and (importer, imported) not in used:
            yield f"{importer}: ALLOWED_INSIDE names {imported}, which is not imported there"


def circles(imports: list[Import]) -> Iterator[str]:
    """Each circle of imports once, written from its alphabetically first module."""
    graph: dict[str, set[str]] = {}
    for edge in imports:
        if not edge.inside_function and edge.importer != edge.imported:
            graph.setdefault(edge.importer, set()).add(edge.imported)
    for component in strong_components(graph):
        if len(component) > 1:
            names = " -> ".join(shortest_circle(graph, set(component)))
            yield f"circle of imports: {names}"


def strong_components(graph: dict[str, set[str]]) -> list[list[str]]:
    """Tarjan's algorithm; the graph of a package is shallow enough for recursion."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            start = stack.index(node)
            components.append(sorted(stack[start:]))
            del stack[start:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return components


def shortest_circle(graph: dict[str, set[str]], component: set[str]) -> list[str]:
    """A shortest way from the component's first module back to it."""
    start = min(component)
    paths = [[start]]
    seen = {start}
    while paths:
        path = paths.pop(0)
        for target in sorted(graph.get(path[-1], set()) & component):
            if target == start:
                return [*path, start]
            if target not in seen:
                seen.add(target)
                paths.append([*path, target])
    raise AssertionError(f"{start} is in no circle")


def check(package: Path) -> list[str]:
    """Every violation, one line each; empty when the layers hold."""
    files = source_files(package)
    imports = read_imports(files)
    return [
        *unknown(files),
        *upward(imports),
        *hidden(imports),
        *stale_permissions(imports),
        *circles(imports),
    ]


def main(arguments: list[str]) -> int:
    here = Path(__file__).resolve().parent.parent
    package = Path(arguments[0]).resolve() if arguments else here / PACKAGE
    violations = check(package)
    for line in violations:
        print(line)
    count = len(source_files(package))
    print(f"layers: {count} modules, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
