"""The admin routes, called with whatever their own OpenAPI document allows, and more."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from fastapi_aibridge import AIBridge
from fastapi_aibridge.observability import wrong_keys
from tests.e2e.gateway.gateway import ADMIN, settings_for
from tests.e2e.gateway.server import served_in_thread

OPERATIONS = [
    ("GET", "/ai/admin/metrics"),
    ("GET", "/ai/admin/pool"),
    ("GET", "/ai/admin/providers"),
    ("GET", "/ai/admin/interceptions"),
    ("GET", "/ai/admin/interceptions/export"),
    ("GET", "/ai/admin/usage"),
    ("GET", "/ai/admin/interceptions/{interception_id}"),
    ("GET", "/ai/admin/audit"),
    ("DELETE", "/ai/admin/initiators/{initiator_id}/content"),
    ("DELETE", "/ai/admin/initiators/{initiator_id}"),
    ("GET", "/ai/admin/providers/{name}"),
    ("PUT", "/ai/admin/providers/{name}"),
    ("PATCH", "/ai/admin/providers/{name}"),
    ("DELETE", "/ai/admin/providers/{name}"),
    ("GET", "/ai/admin/mcp-servers/{name}"),
    ("PUT", "/ai/admin/mcp-servers/{name}"),
    ("PATCH", "/ai/admin/mcp-servers/{name}"),
    ("DELETE", "/ai/admin/mcp-servers/{name}"),
    ("GET", "/ai/admin/mcp-servers"),
    ("POST", "/ai/admin/reload"),
    ("GET", "/ai/admin/workers"),
    ("GET", "/ai/admin/budgets"),
    ("GET", "/ai/admin/budgets/{scope}/{budget_id}"),
    ("PUT", "/ai/admin/budgets/{scope}/{budget_id}"),
    ("DELETE", "/ai/admin/budgets/{scope}/{budget_id}"),
    ("POST", "/ai/admin/client-keys"),
    ("GET", "/ai/admin/client-keys"),
    ("DELETE", "/ai/admin/client-keys/{key_id}"),
]


@pytest.fixture(scope="module", name="url")
def _url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wrong_keys, "DELAY", 0)  # the tests send hundreds of wrong tokens
        yield from _served(tmp_path_factory)


def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    recorder = {"url": f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('records') / 'records.db'}"}
    app = FastAPI()
    values = {"recorder": recorder, "managed": True, "secret_keys": [base64.urlsafe_b64encode(bytes(32)).decode()]}
    app.include_router(AIBridge(lambda: settings_for("http://127.0.0.1:9", **values)).router, prefix="/ai")
    with served_in_thread(app) as server:
        yield server.url


@pytest.fixture(scope="module", name="schema")
def _schema(url: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_all_operations_are_covered(schema: schemathesis.BaseSchema) -> None:
    """Every admin route is in the list above."""
    paths = schema.raw_schema["paths"]
    listed = {(method.upper(), path) for path, methods in paths.items() if "/admin/" in path for method in methods}
    assert listed == set(OPERATIONS)


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        *((method, path, POSITIVE) for method, path in OPERATIONS),
        *(
            (method, path, NEGATIVE)
            for method, path in OPERATIONS
            if path.endswith(("interceptions", "export", "usage"))
        ),
    ],
)
def test_admin_api(
    schema: schemathesis.BaseSchema,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    mode: schemathesis.GenerationMode,
) -> None:
    """No request causes a server error, however odd, and none is answered without the token."""
    operation = schema[path][method]

    @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {ADMIN}"})
        case.validate_response(answer, checks=[not_a_server_error])
        assert "Traceback" not in answer.text
        assert case.call(headers={"Authorization": "Bearer wrong"}).status_code in (401, 404, 405)

    ask()
    assert [record for record in caplog.records if record.exc_info] == []


TIMES = [
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01",
    "-1",
    "1e308",
    "99999999999999999",
    "nan",
    "2026-02-30T00:00:00Z",
]
TEXTS = ["\x00", "\ud800", "%00", "'; drop table interceptions; --", "x" * 20_000, "\u202e", "[" * 5_000, "null"]
NUMBERS = ["0", "-1", "501", "1e3", "9" * 5_000, "NaN", ""]


@pytest.mark.parametrize("path", ["interceptions", "interceptions/export", "usage"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("started_after", TIMES),
        ("started_before", TIMES),
        *((name, TEXTS) for name in ("cursor", "initiator_id", "provider", "model", "session_id", "format", "by")),
        ("limit", NUMBERS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_queries(url: str, caplog: pytest.LogCaptureFixture, path: str, name: str, values: list[str]) -> None:
    """Extreme times and numbers, and text that databases refuse, get 200, 400 or 422 and leave no traceback."""
    for value in values:
        query = f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}"
        answer = httpx.get(f"{url}/ai/admin/{path}?{query}", headers={"Authorization": f"Bearer {ADMIN}"})
        assert answer.status_code in (200, 400, 422), (value[:50], answer.text[:200])
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("name", ["%00", "%ff", "..%2fx", "x" * 20_000, "%ED%A0%80", "1", "null", "%F0%9F%98%80"])
def test_hostile_ids(url: str, name: str) -> None:
    """A text that cannot be an interception's id gets a client error."""
    answer = httpx.get(f"{url}/ai/admin/interceptions/{name}", headers={"Authorization": f"Bearer {ADMIN}"})
    assert answer.status_code in (400, 404, 422)
