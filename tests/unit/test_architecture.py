"""How the package is put together: its parts import in one direction only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import fastapi_aibridge

ROOT = Path(fastapi_aibridge.__file__).parent


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """What a file imports of the package at run time, as paths below the package."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                yield (*base, *names) or (alias.name,)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from runtime_nodes(child)


def test_parts_import_in_one_direction() -> None:
    """No two parts, folders or modules beside them, need each other, however far around: each can be read after those
    below it.
    """
    graph: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).with_suffix("").parts
        if place == ("__init__",) or place[0] == "__main__":
            continue
        graph.setdefault(place[0], set()).update(one[0] for one in imports(path) if one[0] != place[0])
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("formats") < order.index("exchange") < order.index("bridge") < order.index("plugin")
    assert graph["pool"] <= {"errors", "principal"}
    assert not graph["formats"] & {"exchange", "providers", "upstream", "routers", "mcp"}
