"""`GET /admin/audit`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_aibridge.cluster.audit import record
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.store import SQLStore

from .apps import ADMIN, Model, bearer
from .test_admin_answers import check

AUDIT = "/ai/admin/audit"


def app(model: Model, url: str) -> FastAPI:
    app = FastAPI()
    app.include_router(model.bridge(recorder=SQLRecorder(url)).router, prefix="/ai")
    return app


async def write(url: str) -> None:
    async with SQLStore(url, create=True) as store:
        await store.migrate()
        for number in range(3):
            async with store.database.writing() as connection:
                await record(
                    connection,
                    actor="root",
                    action="thing.create",
                    object=f"thing/{number}",
                    before=None,
                    after={"number": number},
                )


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"


def test_pages(model: Model, url: str) -> None:
    """Pages are newest first, in the documented shape, and have a cursor if entries follow."""
    asyncio.run(write(url))
    served = app(model, url)
    with TestClient(served) as client:
        first = client.get(f"{AUDIT}?limit=2", headers=ADMIN)
        check(served.openapi(), "GET", "/admin/audit", 200, first.json())
        assert first.headers["cache-control"] == "no-store"
        assert [item["object"] for item in first.json()["items"]] == ["thing/2", "thing/1"]
        rest = client.get(f"{AUDIT}?limit=2&cursor={first.json()['next_cursor']}", headers=ADMIN).json()
        assert ([item["after"] for item in rest["items"]], rest["next_cursor"]) == ([{"number": 0}], None)
        of_one = client.get(f"{AUDIT}?object=thing/1", headers=ADMIN).json()
        assert [item["object"] for item in of_one["items"]] == ["thing/1"]


def test_parameters_are_checked(model: Model, url: str) -> None:
    """A foreign cursor is a 400; an unknown parameter and an invalid limit are a 422."""
    with TestClient(app(model, url)) as client:
        assert client.get(AUDIT, headers=ADMIN).json() == {"items": [], "next_cursor": None}
        assert client.get(f"{AUDIT}?cursor=nonsense", headers=ADMIN).status_code == 400
        for query in ("limit=0", "limit=501", "limit=x", "objekt=thing", "limit=1&limit=2"):
            assert client.get(f"{AUDIT}?{query}", headers=ADMIN).status_code == 422


def test_the_audit_token_reads_it(model: Model, url: str) -> None:
    """The audit token can read the audit; the metrics token cannot."""
    bridge = model.bridge(
        settings=model.settings(audit_token="t-audit", metrics_token="t-metrics"), recorder=SQLRecorder(url)
    )
    served = FastAPI()
    served.include_router(bridge.router, prefix="/ai")
    with TestClient(served) as client:
        assert client.get(AUDIT, headers=bearer("t-audit")).status_code == 200
        assert client.get(AUDIT, headers=bearer("t-metrics")).status_code == 403


def test_records_that_go_elsewhere_have_no_audit(model: Model) -> None:
    """Without a database the response is a 404 that says why."""
    with TestClient(model.app()) as client:
        answer = client.get(AUDIT, headers=ADMIN)
        assert (answer.status_code, "RECORDER__ENABLED" in answer.text) == (404, True)
