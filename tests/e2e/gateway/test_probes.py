"""Probes that clients send before they call: whether the provider exists, and whether it takes WebSockets."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from fastapi_aibridge import AIBridge, MemoryRecorder, Settings


@pytest.fixture(params=["", "/ai"], ids=["no prefix", "prefix"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def app_with(prefix: str, **include: Any) -> FastAPI:
    providers = {
        "openai": {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-central"},
        "off": {"type": "openai", "api_key": "sk-central", "enabled": False},
    }
    app = FastAPI()
    settings = Settings.model_validate({"providers": providers, "client_keys": {"alice": "k-alice"}})
    app.include_router(AIBridge(settings, recorder=MemoryRecorder()).router, prefix=prefix, **include)
    return app


@pytest.mark.parametrize("path", ["/openai", "/openai/", "/openai/api/hello"])
def test_a_provider_that_is_there(prefix: str, path: str) -> None:
    """HEAD without a key only says that the provider exists; other methods need a key as always."""
    with TestClient(app_with(prefix), follow_redirects=False) as client:
        answer = client.head(prefix + path)
        assert (answer.status_code, answer.content) == (200, b"")
        for method in ("GET", "POST"):
            assert client.request(method, prefix + path).status_code == (404 if path == "/openai" else 401)


@pytest.mark.parametrize("path", ["/nobody", "/nobody/", "/off", "/off/api/hello", "/nobody/api/hello"])
def test_a_provider_that_is_not(prefix: str, path: str) -> None:
    """HEAD of an unknown or disabled provider gets 404."""
    with TestClient(app_with(prefix), follow_redirects=False) as client:
        assert client.head(prefix + path).status_code == 404


@pytest.mark.parametrize("path", ["/openai/v1/models", "/openai/api/hello/more", "/openai/x"])
def test_other_paths_need_a_key(prefix: str, path: str) -> None:
    """HEAD of any other path needs a key."""
    with TestClient(app_with(prefix)) as client:
        assert client.head(prefix + path).status_code == 401


@pytest.mark.parametrize("path", ["/admin", "/healthz", "/docs"])
def test_names_of_other_routes_are_no_providers(prefix: str, path: str) -> None:
    """The probe's route does not hide the other routes."""
    with TestClient(app_with(prefix)) as client:
        found = client.get(prefix + path).status_code
        assert found == {"/healthz": 200, "/docs": 200 if not prefix else 404, "/admin": 404}[path]


def test_a_guard_around_the_router_guards_probes_too() -> None:
    """Dependencies of `include_router` run before a probe is answered."""

    async def closed() -> None:
        raise HTTPException(403)

    with TestClient(app_with("/ai", dependencies=[Depends(closed)])) as client:
        for path in ("/ai/openai", "/ai/openai/", "/ai/openai/api/hello"):
            assert client.head(path).status_code == 403


def test_a_handshake_is_told_to_use_http(prefix: str) -> None:
    """A WebSocket at `/v1/responses` gets 426, so that clients go on with HTTP at once."""
    with TestClient(app_with(prefix)) as client:
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect(f"{prefix}/openai/v1/responses"),
        ):
            pass
        assert refused.value.status_code == 426
        assert refused.value.json()["error"]["code"] == "upgrade_required"


@pytest.mark.parametrize("value", ["websocket", "WebSocket", "h2c, websocket"])
def test_a_get_that_asks_for_an_upgrade(prefix: str, value: str) -> None:
    """A handshake that a server without WebSockets passes on as a GET gets 426 as well."""
    with TestClient(app_with(prefix)) as client:
        answer = client.get(f"{prefix}/openai/v1/responses", headers={"Upgrade": value, "Connection": "Upgrade"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (426, "upgrade_required")
        assert client.get(f"{prefix}/openai/v1/responses").status_code == 401
