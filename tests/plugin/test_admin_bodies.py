"""Invalid bodies of admin requests: the refusal names the error and repeats no value."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_aibridge.recorder.sql import SQLRecorder

from .apps import ADMIN, Model

BODIES = {
    "not a number": (b'{"initiator_id": NaN}', "initiator_id"),
    "infinite": (b'{"initiator_id": "a", "groups": [-Infinity]}', "groups"),
    "half a surrogate": (b'{"initiator_id": "a", "secret": "\\ud800"}', "secret"),
    "a name that is half a surrogate": (b'{"initiator_id": "a", "\\ud800": 1}', "body"),
    "a member too many": (b'{"initiator_id": "a", "key": "aib_secret"}', "key"),
    "a long name": (b'{"initiator_id": "a", "' + b"n" * 100_000 + b'": 1}', "nnn"),
    "very many members": (b'{"initiator_id": "a", ' + b",".join(b'"m%d": 1' % n for n in range(10_000)) + b"}", "m1"),
    "the end of time": (b'{"initiator_id": "a", "expires_at": "9999-12-31T23:59:59-01:00"}', "expires_at"),
}


TWICE = {
    "providers/house": (
        "PUT",
        b'{"type": "openai", "api_key": "sk-the-first-secret", "api_key": "sk-the-other-secret"}',
    ),
    "providers/house/": ("PATCH", b'{"extra_headers": {"X-Team": "a-secret", "X-Team": "a-secret"}}'),
    "mcp-servers/files": ("PUT", b'{"url": "https://a", "\\u0075rl": "https://b"}'),
    "client-keys": ("POST", b'{"initiator_id": "alice", "initiator_id": "bob"}'),
    "budgets/initiator/alice": ("PUT", b'{"usd": 1, "usd": 1000}'),
}


@pytest.fixture
def managed(model: Model, tmp_path: Path) -> FastAPI:
    app = FastAPI()
    recorder = SQLRecorder(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}")
    app.include_router(model.bridge(settings=model.settings(managed=True), recorder=recorder).router, prefix="/ai")
    return app


@pytest.mark.parametrize("place", TWICE)
def test_a_member_twice(managed: FastAPI, place: str) -> None:
    """A member that occurs twice is refused, at any depth: its reader may have seen another value than the gateway."""
    method, body = TWICE[place]
    with TestClient(managed) as client:
        path, json = f"/ai/admin/{place.rstrip('/')}", {"Content-Type": "application/json"}
        assert client.request(method, path, content=body, headers=json).status_code == 401
        answer = client.request(method, path, content=body, headers=ADMIN | json)
        (problem,) = answer.json()["detail"]
        assert (answer.status_code, problem["type"]) == (422, "duplicate_member")
        assert problem["loc"][-1] in ("api_key", "X-Team", "url", "initiator_id", "usd")
        assert "secret" not in answer.text


@pytest.mark.parametrize("name", BODIES)
def test_bodies(managed: FastAPI, name: str) -> None:
    body, said = BODIES[name]
    with TestClient(managed, raise_server_exceptions=False) as client:
        answer = client.post(
            "/ai/admin/client-keys", content=body, headers=ADMIN | {"Content-Type": "application/json"}
        )
        assert (answer.status_code, said in answer.text) == (422, True), answer.text
        assert "aib_secret" not in answer.text
        assert len(answer.content) < 4096
