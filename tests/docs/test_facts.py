"""Names in the pages exist, and existing names are in the pages."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel

import fastapi_aibridge
import fastapi_aibridge.testing
from fastapi_aibridge import AIBridge, AnthropicProvider, OpenAIProvider, Settings

from .pages import DOCS, OWN, README, ROOT, anchors, links, rows

TABLE = rows(DOCS / "settings.md")
HTTP_API = (DOCS / "http-api.md").read_text()
NONE = {"none", "all"}
"""The table's mark for a setting without a default."""
FREE = {"TYPE", "BASE_URL", "API_KEY", "URL"}
"""Settings whose default the table describes in words."""


def variables(model: type[BaseModel], prefix: str = "AIBRIDGE_") -> Iterator[str]:
    """All variables that the settings read, with `<NAME>` for names that users choose."""
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        types = [field.annotation, *getattr(field.annotation, "__args__", ())]
        section = next((one for one in types if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if getattr(field.annotation, "__origin__", None) is dict and prefix == "AIBRIDGE_":
            variable += "__<NAME>"
        is_list = getattr(field.annotation, "__origin__", None) is tuple
        if section is None or is_list:
            yield variable
        else:
            yield from variables(section, f"{variable}__")


SETTINGS = set(variables(Settings))


def test_every_setting_is_in_the_table() -> None:
    """The page on settings lists exactly the variables that the settings read."""
    assert {name for name in TABLE if name.startswith("AIBRIDGE_")} == SETTINGS


@pytest.mark.parametrize("variable", sorted(name for name in SETTINGS if name.rpartition("__")[2] not in FREE))
def test_the_default_is_as_the_table_says(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to its documented default changes nothing."""
    for name in os.environ:
        if name.upper().startswith("AIBRIDGE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AIBRIDGE_PROVIDERS__OPENAI__API_KEY", "sk-test")
    monkeypatch.setenv("AIBRIDGE_MCP_SERVERS__OPENAI__URL", "http://127.0.0.1/mcp")
    untouched = Settings.load()
    documented = TABLE[variable].strip("`")
    if documented in NONE:
        value: object = untouched
        for part in variable.removeprefix("AIBRIDGE_").lower().replace("<name>", "openai").split("__"):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part)
        assert not value, f"{variable} has a default"
    else:
        monkeypatch.setenv(variable.replace("<NAME>", "OPENAI"), documented)
        assert Settings.load() == untouched


def test_every_variable_that_a_page_names_exists() -> None:
    """Every variable that a page names is a setting."""
    parts = [one.split("__") for one in SETTINGS]
    levels = {"__".join(one[:depth]) for one in parts for depth in range(1, len(one) + 1)}
    pattern = re.compile("|".join(one.replace("<NAME>", "(?:<NAME>|[A-Z0-9]+)") for one in levels))
    for page in OWN:
        for name in re.findall(r"AIBRIDGE_(?:[A-Z0-9]|_+(?=[A-Z0-9<])|<NAME>)+", page.read_text()):
            assert name == "AIBRIDGE_KEY" or pattern.fullmatch(name), f"{page.relative_to(ROOT)}: {name}"


def test_every_promise_names_tests_that_there_are() -> None:
    """Each row of the tables on security names existing tests; `::name` alone refers to the file named before."""
    table = [line.split("|") for line in (DOCS / "security.md").read_text().splitlines() if line.startswith("| ")]
    promises = [cells for cells in table if len(cells) == 5 and cells[1].strip() != "threat"]
    assert len(promises) > 10
    for *_, tests, _end in promises:
        file = ""
        named = re.findall(r"`([\w/]+\.py)?::(\w+)`", tests)
        assert named, tests
        for path, name in named:
            file = path or file
            source = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^(?:async )?def {name}\(", source, re.MULTILINE), f"{file}::{name}"


def test_links_lead_somewhere() -> None:
    """Each link within the project leads to an existing file and heading."""
    for page in OWN:
        for link in links(page):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), f"{page.relative_to(ROOT)}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.relative_to(ROOT)}: {link}"


def test_every_page_is_in_the_navigation() -> None:
    """mkdocs.yml lists every page, so that readers can find it."""
    listed = set(re.findall(r"\S+\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {str(page.relative_to(DOCS)) for page in OWN if page.is_relative_to(DOCS)}


def test_every_public_name_is_in_the_reference() -> None:
    """The reference shows each name in `__all__` of the package and of its testing module once, and no other."""
    shown = [
        name
        for page in sorted((DOCS / "reference").glob("*.md"))
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    ]
    public = {f"fastapi_aibridge.{name}" for name in fastapi_aibridge.__all__}
    tests = set(fastapi_aibridge.testing.__all__) - set(fastapi_aibridge.__all__)
    public |= {f"fastapi_aibridge.testing.{name}" for name in tests}
    assert sorted(shown) == sorted(public)


def test_the_metrics_are_those_that_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page on metrics lists exactly the exposed metrics."""
    monkeypatch.setenv("AIBRIDGE_RECORDER__ENABLED", "false")
    monkeypatch.setenv("AIBRIDGE_REDIS_URL", "redis://127.0.0.1:1")
    aibridge = AIBridge()
    app = FastAPI()
    app.include_router(aibridge.router)
    with TestClient(app):
        exposed = {
            family.name + ("_total" if family.type == "counter" else "") for family in aibridge.registry.collect()
        }
    listed = set(re.findall(r"`(aibridge_[a-z_]+)`", (DOCS / "metrics-and-tracing.md").read_text()))
    assert listed == exposed


def test_the_admin_routes_that_pages_name_exist() -> None:
    """Each `/admin/...` in a page is a route."""
    app = FastAPI()
    app.include_router(AIBridge().router, prefix="/ai")
    paths = {re.sub(r"^/ai|/\{.*", "", path) for path in app.openapi()["paths"]}
    for page in OWN:
        for path in re.findall(r"/admin(?:/[a-z]+(?:-[a-z]+)*)+", page.read_text()):
            assert path in paths, f"{page.relative_to(ROOT)}: {path}"


def test_every_route_is_in_the_http_api() -> None:
    """The page on the HTTP API lists exactly the admin routes and the health checks."""
    aibridge = AIBridge()
    app = FastAPI()
    app.include_router(aibridge.router)
    wanted = {
        f"{method.upper()} {path}" for path, operations in app.openapi()["paths"].items() for method in operations
    }
    wanted |= {"GET /healthz", "GET /readyz"}
    rows = [line for line in HTTP_API.splitlines() if re.match(r"\| `(?:[A-Z]+ )?/(?!{provider})", line)]
    assert {route for row in rows for route in re.findall(r"`([^`]+)`", row.split("|")[1])} == wanted


def test_every_route_of_a_provider_is_in_the_http_api() -> None:
    """The page lists each provider path with the same methods and provider types as the code."""
    wanted = set()
    for provider in (OpenAIProvider, AnthropicProvider):
        wanted |= {(provider.type, f"/{{provider}}{path}", "POST") for path in provider.intercepted}
        for route in provider.passed_through:
            wanted |= {(provider.type, f"/{{provider}}{route.path}", method) for method in route.methods}
    documented = set()
    for line in HTTP_API.splitlines():
        if not line.startswith("| `/{provider}/"):
            continue
        path, methods, types = (re.findall(r"[^` ,]+", cell) for cell in line.split("|")[1:4])
        for type_ in types if types != ["both"] else ["openai", "anthropic"]:
            documented |= {(type_, path[0], method) for method in methods}
    assert documented == wanted


def test_every_error_code_is_explained() -> None:
    """The page on the HTTP API has a row for each error code of the gateway and for no other."""
    source = "\n".join(file.read_text() for file in (ROOT / "fastapi_aibridge").rglob("*.py"))
    raised = re.findall(r"(?:GatewayError|super\(\).__init__)\(\s*(\d{3}),\s*\"(\w+)\"", source)
    assert ("404", "unknown_provider") in raised
    documented = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", HTTP_API, re.MULTILINE)
    assert set(documented) == {*raised, ("403", "forbidden")}


def test_every_dependency_is_justified() -> None:
    """The page on the design justifies each library that the package or an extra installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (one for name, extra in project["optional-dependencies"].items() if name != "dev" for one in extra)
    page = (DOCS / "design.md").read_text().partition("## Dependencies")[2]
    for requirement in (*project["dependencies"], *extras):
        name = re.match(r"[\w-]+", requirement)[0]  # type: ignore[index]
        assert name == "fastapi-aibridge" or re.search(rf"\b{name}\b", page), requirement


def test_the_readme_names_commands_that_there_are() -> None:
    """Each `make` target that a page names exists in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (README, *OWN):
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert target in targets, f"{page.relative_to(ROOT)}: make {target}"
