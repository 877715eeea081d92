"""How the package is put together: its files import in one direction only, and each can be read at one sitting."""

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
"""Lines of a file."""
FILES = sorted(ROOT.rglob("*.py"))


def module(path: Path) -> str:
    """A file's name as a module below the package; a folder's `__init__.py` is the folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path) for path in FILES}


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports: at its top, in its functions, for the type checker only."""
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
    """Each module and what it imports. The package's own front, which imports all, is left out."""
    return {module(path): set(imports(path)) - {""} for path in FILES if module(path) not in ("", "__main__")}


def test_no_two_files_need_each_other() -> None:
    """However far around, inside a folder too, and not even for their types: each can be read after those below it."""
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_parts_import_in_one_direction() -> None:
    """The same of folders, and of modules beside them."""
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
    """One noun each."""
    lines = {module(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: number for name, number in lines.items() if number > LONGEST} == {}
    assert median(lines.values()) < 150


def test_the_inside_of_fastapi_is_known_in_one_place() -> None:
    """What FastAPI does not promise is asked for in one folder, which CI runs on its oldest and newest release."""
    private = ("fastapi.dependencies", "fastapi._", "fastapi.routing._")
    knowing = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.startswith(private) for name in names):
                knowing.add(module(path))
    assert knowing == {"fastapi_inside.routes", "fastapi_inside.plans", "fastapi_inside.solving"}
