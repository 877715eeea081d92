"""Providers and MCP servers that are managed by the admin routes."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.sql import SQLRecorder

from .apps import ADMIN, ALICE, ASK, Model, bearer
from .test_admin_answers import check

SECRET_KEY = base64.urlsafe_b64encode(bytes(32)).decode()
HOUSE = "/ai/admin/providers/house"
FILES = "/ai/admin/mcp-servers/files"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"


def served(model: Model, url: str, **values: Any) -> FastAPI:
    values = {"managed": True, "secret_keys": [SECRET_KEY], "audit_token": "t-audit", **values}
    app = FastAPI()
    app.include_router(model.bridge(settings=model.settings(**values), recorder=SQLRecorder(url)).router, prefix="/ai")
    return app


def house(model: Model, **values: Any) -> dict[str, Any]:
    return {
        "type": "openai",
        "base_url": f"{model.url}/v1",
        "api_key": "sk-house-key-is-secret",
        "max_retries": 0,
        **values,
    }


def ask(client: TestClient) -> int:
    return client.post("/ai/house/v1/chat/completions", json=ASK, headers=ALICE).status_code


def test_a_provider_from_its_making_to_its_end(model: Model, url: str) -> None:
    """A change is in force with its response and in the audit; the provider's key is sent upstream and never shown."""
    app = served(model, url)
    with TestClient(app) as client:
        assert ask(client) == 404
        made = client.put(HOUSE, json=house(model), headers=ADMIN)
        assert made.status_code == 200, made.text
        check(app.openapi(), "PUT", "/admin/providers/{name}", 200, made.json())
        assert made.json()["settings"] == house(model, api_key="sk-...cret")
        assert ask(client) == 200
        assert model.received[-1].headers["authorization"] == "Bearer sk-house-key-is-secret"

        states = {item["name"]: item for item in client.get("/ai/admin/providers", headers=ADMIN).json()["items"]}
        assert (states["house"]["managed"], states["openai"]["managed"]) == (True, False)

        changed = client.patch(HOUSE, json={"api_key": "sk-other-key-is-secret"}, headers=ADMIN)
        assert changed.json()["settings"] == house(model, api_key="sk-...cret")
        assert ask(client) == 200
        assert model.received[-1].headers["authorization"] == "Bearer sk-other-key-is-secret"

        assert client.patch(HOUSE, json={"enabled": False}, headers=ADMIN).json()["status"] == "disabled"
        assert ask(client) == 404
        assert client.delete(HOUSE, headers=ADMIN).status_code == 204
        assert client.get(HOUSE, headers=ADMIN).status_code == 404

        audit = client.get("/ai/admin/audit?object=provider/house", headers=ADMIN)
        assert [item["action"] for item in audit.json()["items"]] == [
            "provider.delete",
            "provider.patch",
            "provider.patch",
            "provider.put",
        ]
        assert "secret" not in audit.text


def test_what_is_written_outlives_the_app(model: Model, url: str) -> None:
    with TestClient(served(model, url)) as client:
        client.put(HOUSE, json=house(model), headers=ADMIN)
    with TestClient(served(model, url)) as client:
        assert ask(client) == 200


def test_null_takes_a_member_away(model: Model, url: str) -> None:
    with TestClient(served(model, url)) as client:
        client.put(HOUSE, json=house(model, max_retries=1), headers=ADMIN)
        assert "max_retries" not in client.patch(HOUSE, json={"max_retries": None}, headers=ADMIN).json()["settings"]
        refused = client.patch(HOUSE, json={"api_key": None}, headers=ADMIN)
        assert refused.status_code == 422
        assert ask(client) == 200


def test_tags(model: Model, url: str) -> None:
    """`If-Match` refuses a change of an outdated version, and `If-None-Match: *` only creates."""
    with TestClient(served(model, url)) as client:
        first = client.put(HOUSE, json=house(model), headers=ADMIN | {"If-None-Match": "*"})
        assert first.status_code == 200
        tag = first.headers["etag"]
        assert client.put(HOUSE, json=house(model), headers=ADMIN | {"If-None-Match": "*"}).status_code == 412
        second = client.patch(HOUSE, json={"max_retries": 2}, headers=ADMIN | {"If-Match": tag})
        assert second.status_code == 200
        for method, body in (("PATCH", {"max_retries": 3}), ("PUT", house(model)), ("DELETE", None)):
            late = client.request(method, HOUSE, json=body, headers=ADMIN | {"If-Match": tag})
            assert late.status_code == 412
        assert client.get(HOUSE, headers=ADMIN).headers["etag"] == second.headers["etag"]
        assert client.delete(HOUSE, headers=ADMIN | {"If-Match": second.headers["etag"]}).status_code == 204


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"type": "openai", "api_key": "sk secret"}, ["body", "api_key"]),
        ({"type": "openai", "api_key": "sk-x", "max_retries": "secret"}, ["body", "max_retries"]),
        ({"type": "openai", "api_key": "sk-x", "secret": 1}, ["body", "secret"]),
        ({"type": "nonsense", "api_key": "sk-secret"}, ["body", "type"]),
        ({"type": "openai", "api_key": "sk-x", "ca_file": "~nobody-of-this-name/x"}, ["body", "ca_file"]),
    ],
)
def test_a_member_that_does_not_validate_is_named(
    model: Model, url: str, body: dict[str, Any], place: list[str]
) -> None:
    """The error names an invalid member and not its value, and nothing is changed."""
    with TestClient(served(model, url)) as client:
        response = client.put(HOUSE, json=body, headers=ADMIN)
        assert response.status_code == 422
        assert [one["loc"] for one in response.json()["detail"]] == [place]
        assert "sk" not in response.text
        assert client.get(HOUSE, headers=ADMIN).status_code == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"max_retries": NaN}'])
def test_what_is_no_object_is_refused(model: Model, url: str, body: bytes) -> None:
    with TestClient(served(model, url)) as client:
        assert client.put(HOUSE, content=body, headers=ADMIN).status_code == 422


def test_what_the_settings_say_cannot_be_changed_here(model: Model, url: str) -> None:
    with TestClient(served(model, url)) as client:
        for method in ("PUT", "PATCH", "DELETE"):
            response = client.request(method, "/ai/admin/providers/openai", json=house(model), headers=ADMIN)
            assert response.status_code == 409


def test_an_mcp_server(model: Model, url: str) -> None:
    """An MCP server's URL and headers may hold secrets, which are not shown."""
    body = {"url": "http://127.0.0.1:9/mcp?key=hidden", "headers": {"Authorization": "Bearer hidden"}}
    app = served(model, url)
    with TestClient(app) as client:
        assert client.put(FILES, json=body, headers=ADMIN).status_code == 200
        listed = client.get("/ai/admin/mcp-servers", headers=ADMIN)
        check(app.openapi(), "GET", "/admin/mcp-servers", 200, listed.json())
        assert [item["name"] for item in listed.json()["items"]] == ["files"]
        assert "hidden" not in listed.text
        assert client.delete(FILES, headers=ADMIN).status_code == 204
        assert client.get("/ai/admin/mcp-servers", headers=ADMIN).json() == {"items": []}


def test_the_settings_mcp_servers_are_listed_too(model: Model, url: str) -> None:
    """MCP servers of the settings are listed first, without secrets, and hide others of the same name."""
    body = {"url": "http://127.0.0.1:9/mcp?key=hidden"}
    with TestClient(served(model, url)) as client:
        for name in ("files", "search"):
            assert client.put(f"/ai/admin/mcp-servers/{name}", json=body, headers=ADMIN).status_code == 200
    app = served(model, url, mcp_servers={"files": {**body, "headers": {"X-Key": "hidden-key-of-files"}}})
    with TestClient(app) as client:
        listed = client.get("/ai/admin/mcp-servers", headers=ADMIN)
        check(app.openapi(), "GET", "/admin/mcp-servers", 200, listed.json())
        files, search = listed.json()["items"]
        assert (files["name"], files["managed"], files["status"], files["etag"]) == ("files", False, "enabled", None)
        assert files["settings"] == {"url": "http://127.0.0.1:9/...", "headers": {"X-Key": "hid...iles"}}
        assert (search["name"], search["managed"], search["status"]) == ("search", True, "enabled")
        assert "hidden" not in listed.text.replace("hid...", "")


def test_one_that_cannot_be_used_does_not_take_the_others_with_it(model: Model, url: str) -> None:
    """A provider whose secrets cannot be decrypted reports an error, and the other providers work."""
    with TestClient(served(model, url)) as client:
        client.put(HOUSE, json=house(model), headers=ADMIN)
        client.put("/ai/admin/providers/own", json=house(model, api_key=None, byok=True), headers=ADMIN)
    another = base64.urlsafe_b64encode(bytes([1]) * 32).decode()
    app = served(model, url, secret_keys=[another])
    with TestClient(app) as client:
        assert ask(client) == 404
        told = client.get("/ai/admin/providers", headers=ADMIN).json()
        check(app.openapi(), "GET", "/admin/providers", 200, told)
        states = {item["name"]: (item["status"], item["error"]) for item in told["items"]}
        assert states["own"] == ("enabled", None)
        assert states["house"][0] == "error"
        assert "AIBRIDGE_SECRET_KEYS" in states["house"][1]
        reloaded = client.post("/ai/admin/reload", headers=ADMIN).json()
        assert {"name": "house", "type": "openai", "status": "error"} in reloaded["providers"]
        # After a new write it works again.
        assert client.put(HOUSE, json=house(model), headers=ADMIN).status_code == 200
        assert ask(client) == 200


def test_reading_is_for_readers_and_changing_is_not(model: Model, url: str) -> None:
    with TestClient(served(model, url)) as client:
        client.put(HOUSE, json=house(model), headers=ADMIN)
        assert client.get(HOUSE, headers=bearer("t-audit")).status_code == 200
        assert client.get("/ai/admin/mcp-servers", headers=bearer("t-audit")).status_code == 200
        for method in ("PUT", "PATCH", "DELETE"):
            assert client.request(method, HOUSE, json=house(model), headers=bearer("t-audit")).status_code == 403
            assert client.request(method, HOUSE, json=house(model)).status_code == 401


def test_where_nothing_is_managed(model: Model, url: str) -> None:
    with TestClient(served(model, url, managed=False)) as client:
        assert client.put(HOUSE, json=house(model), headers=ADMIN).status_code == 404
        assert client.get("/ai/admin/mcp-servers", headers=ADMIN).status_code == 404


def test_without_a_database_the_app_does_not_start(model: Model) -> None:
    app = FastAPI()
    app.include_router(model.bridge(settings=model.settings(managed=True), recorder=MemoryRecorder()).router)
    with pytest.raises(Exception, match="AIBRIDGE_MANAGED needs the recorder's database"), TestClient(app):
        pass


def test_a_secret_needs_a_key(model: Model, url: str) -> None:
    with TestClient(served(model, url, secret_keys=[])) as client:
        response = client.put(HOUSE, json=house(model), headers=ADMIN)
        assert response.status_code == 422
        assert "AIBRIDGE_SECRET_KEYS is not set" in response.json()["detail"]
