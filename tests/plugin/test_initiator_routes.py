"""`DELETE /admin/initiators/{initiator_id}` and its `/content`."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_aibridge import Recorder
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.sql import SQLRecorder

from .apps import ADMIN, ALICE, ASK, CHAT, Model, bearer
from .test_admin_answers import check

ERASE = "/ai/admin/initiators"


@pytest.fixture
def recorder(tmp_path: Path) -> SQLRecorder:
    return SQLRecorder(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}")


def served(model: Model, recorder: Recorder, **settings: object) -> FastAPI:
    app = FastAPI()
    app.include_router(model.bridge(settings=model.settings(**settings), recorder=recorder).router, prefix="/ai")
    return app


def test_content_then_all(model: Model, recorder: SQLRecorder) -> None:
    """The content is erased first and then everything, with documented responses and entries in the audit."""
    app = served(model, recorder)
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200
        records = "/ai/admin/interceptions"
        (item,) = client.get(records, headers=ADMIN).json()["items"]
        assert item["prompts"]
        response = client.delete(f"{ERASE}/{item['initiator_id']}/content", headers=ADMIN)
        check(app.openapi(), "DELETE", "/admin/initiators/{initiator_id}/content", 200, response.json())
        assert response.json() == {"interceptions": 1}
        assert response.headers["cache-control"] == "no-store"
        (left,) = client.get(records, headers=ADMIN).json()["items"]
        assert left == item | {"prompts": []}
        assert client.delete(f"{ERASE}/{item['initiator_id']}", headers=ADMIN).json() == {"interceptions": 1}
        assert client.get(records, headers=ADMIN).json()["items"] == []
        actions = [entry["action"] for entry in client.get("/ai/admin/audit", headers=ADMIN).json()["items"]]
        assert actions == ["initiator.erase", "initiator.erase_content"]


def test_ids_may_be_anything(model: Model, recorder: SQLRecorder) -> None:
    """Ids can be addresses and paths; an empty id erases nobody."""
    with TestClient(served(model, recorder)) as client:
        for initiator_id in ("alice@example.com", "org/alice", "a%20b", "%C3%A4"):
            assert client.delete(f"{ERASE}/{initiator_id}", headers=ADMIN).json() == {"interceptions": 0}
        assert client.delete(f"{ERASE}/", headers=ADMIN).status_code == 422
        assert client.delete(f"{ERASE}/{'x' * 513}", headers=ADMIN).status_code == 422


def test_an_id_that_ends_like_a_path_of_ours(model: Model, recorder: SQLRecorder) -> None:
    """An id that ends like the route's own suffix is erased under its encoded name, and no other is."""
    with TestClient(served(model, recorder)) as client:
        client.delete(f"{ERASE}/bob%2Fcontent", headers=ADMIN)
        client.delete(f"{ERASE}/bob%2fcontent/content", headers=ADMIN)
        entries = client.get("/ai/admin/audit", headers=ADMIN).json()["items"]
        assert [(one["action"], one["object"]) for one in entries] == [
            ("initiator.erase_content", "initiator/bob/content"),
            ("initiator.erase", "initiator/bob/content"),
        ]


def test_reading_is_not_enough(model: Model, recorder: SQLRecorder) -> None:
    with TestClient(served(model, recorder, audit_token="t-audit")) as client:
        assert client.delete(f"{ERASE}/alice", headers=bearer("t-audit")).status_code == 403
        assert client.delete(f"{ERASE}/alice").status_code == 401


def test_without_records_there_is_nothing_to_erase(model: Model) -> None:
    with TestClient(served(model, MemoryRecorder())) as client:
        assert client.delete(f"{ERASE}/alice", headers=ADMIN).status_code == 404
