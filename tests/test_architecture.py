"""The structure of the package: files import in one direction only, and each is short enough to read in one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import fastapi_aibridge

ROOT = Path(fastapi_aibridge.__file__).parent
PACKAGE = ROOT.name
LONGEST = 400
"""The most lines that a file may have."""
FILES = sorted(ROOT.rglob("*.py"))


def module(path: Path) -> str:
    """Return a file's module name relative to the package; a folder's `__init__.py` has the folder's name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path) for path in FILES}


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports: at the top, in functions and for type checking only."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = package[: len(package) - node.level + 1]
        elif node.module and node.module.split(".")[0] == PACKAGE:
            base = ()
        else:
            continue
        names = (
            (node.module or "").removeprefix(PACKAGE).split(".") if not node.level else (node.module or "").split(".")
        )
        place = ".".join([*base, *(name for name in names if name)])
        for alias in node.names:
            inner = f"{place}.{alias.name}" if place else alias.name
            found = inner if inner in MODULES else place
            if found != module(path):
                yield found


def graph() -> dict[str, set[str]]:
    """Map each module to its imports, without the package's `__init__` and `__main__`, which may import everything."""
    return {module(path): set(imports(path)) - {""} for path in FILES if module(path) not in ("", "__main__")}


def test_no_two_files_need_each_other() -> None:
    """No import cycle exists between files, not even through imports for types or within a folder."""
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_parts_import_in_one_direction() -> None:
    """No import cycle exists between the folders and modules at the top of the package."""
    parts: dict[str, set[str]] = {}
    for name, needed in graph().items():
        part = name.partition(".")[0]
        parts.setdefault(part, set()).update(one.partition(".")[0] for one in needed)
        parts[part].discard(part)
    order = list(TopologicalSorter(parts).static_order())
    assert order.index("formats") < order.index("exchange") < order.index("bridge") < order.index("plugin")
    assert parts["pool"] <= {"errors", "principal"}
    assert not parts["formats"] & {"exchange", "providers", "upstream", "routers", "mcp"}


def test_files_are_short() -> None:
    """No file is longer than the limit, and the median is below 150 lines."""
    lines = {module(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: number for name, number in lines.items() if number > LONGEST} == {}
    assert median(lines.values()) < 150


def test_the_inside_of_fastapi_is_known_in_one_place() -> None:
    """FastAPI's private modules are imported in one folder only, which CI tests with the oldest and newest release."""
    private = ("fastapi.dependencies", "fastapi._", "fastapi.routing._")
    knowing = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.startswith(private) for name in names):
                knowing.add(module(path))
    assert knowing == {"fastapi_inside.routes", "fastapi_inside.plans", "fastapi_inside.solving"}
