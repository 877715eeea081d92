"""No regular expression that reads untrusted text takes more than linear time."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import fastapi_aibridge
from tests.processor_time import growth, of

from .patterns import OWN_TEXT, WORST, Text

ROOT = Path(fastapi_aibridge.__file__).parent
CALLS = {"compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
SIZE = 50_000
MEASURABLE = 0.002
"""Seconds; shorter times are noise."""


def found() -> Iterator[tuple[str, ast.Call]]:
    """Yield each use of `re` in the package, with its key as in `patterns`."""
    for path in sorted(ROOT.rglob("*.py")):
        if "migrations" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            id(call): target
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target, call in _assigned(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
                module = node.func.value
                if isinstance(module, ast.Name) and module.id == "re":
                    written = node.args[0]
                    text = written.value if isinstance(written, ast.Constant) else ast.unparse(written)
                    yield f"{path.relative_to(ROOT).as_posix()}:{names.get(id(node), text)}", node


def _assigned(node: ast.Assign) -> Iterator[tuple[str, ast.expr]]:
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(map(ast.unparse, target.elts), node.value.elts, strict=True)
        else:
            yield ast.unparse(target), node.value


@cache
def all_found() -> dict[str, ast.Call]:
    return dict(found())


def is_own(name: str) -> bool:
    return name.startswith(tuple(OWN_TEXT))


def test_all_expressions_are_listed() -> None:
    """Each expression has either a worst text or a reason why it reads no untrusted text."""
    assert sorted(name for name in all_found() if not is_own(name)) == sorted(WORST)


def test_no_list_names_what_is_gone() -> None:
    """No key is outdated, and none is in both lists."""
    assert [start for start in OWN_TEXT if not any(name.startswith(start) for name in all_found())] == []
    assert [name for name in WORST if is_own(name)] == []


def pattern(name: str) -> re.Pattern[str] | re.Pattern[bytes]:
    path, _, attribute = name.partition(":")
    module = __import__(f"fastapi_aibridge.{path[:-3].replace('/', '.')}", fromlist=["_"])
    compiled = getattr(module, attribute, None)
    return compiled if isinstance(compiled, re.Pattern) else re.compile(attribute)


def uses(name: str) -> set[str]:
    """Return the names of the expression's methods that the package calls."""
    path, _, attribute = name.partition(":")
    if not attribute.isidentifier():
        func = all_found()[name].func
        return {func.attr} if isinstance(func, ast.Attribute) else set()
    found: set[str] = set()
    for module in ROOT.rglob("*.py"):
        source = module.read_text(encoding="utf-8")
        if module == ROOT / path or (not attribute.startswith("_") and attribute in source):
            found |= {
                node.attr
                for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.Attribute)
                and ast.unparse(node.value).endswith(attribute)
                and node.attr in CALLS
            }
    return found


@pytest.mark.parametrize("name", WORST)
def test_time_grows_with_the_text(name: str) -> None:
    """Time grows in proportion to the text for each method that is called."""
    compiled = pattern(name)
    assert uses(name)
    for use in uses(name):
        small, large = WORST[name](SIZE), WORST[name](4 * SIZE)

        def do(text: Text, use: str = use) -> None:
            if use in ("sub", "subn"):
                getattr(compiled, use)(text[:0], text)
            else:
                result = getattr(compiled, use)(text)
                for _ in result if use == "finditer" else ():
                    pass

        texts = {SIZE: small, 4 * SIZE: large}

        def seconds(size: int, do: Callable[[Text], object] = do, texts: dict[int, Text] = texts) -> float:
            return of(lambda: do(texts[size]))

        if seconds(4 * SIZE) >= MEASURABLE:
            assert growth(seconds, SIZE, 4 * SIZE, 8) < 8, use
