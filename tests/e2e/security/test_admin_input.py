"""Mistakes and malice in the input of administrators get a proper response, on both databases."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from fastapi_aibridge import AIBridge
from tests.e2e.gateway.client import KEY
from tests.e2e.gateway.gateway import ADMIN, settings_for

pytestmark = pytest.mark.anyio

TEXTS = ["\0", "a\0b", "\ud800", "%00", "x" * 3000, "\u202e", "\U0001f98a" * 600, "null", "%FF"]
BODIES = [
    b"[", b"[" * 20_000, b"1e999", b"\xff", b'{"usd":1e400}', b'{"usd":NaN}', b'{"usd":"1e-999999999"}',
    b'{"usd":1,"\\ud800":1}', b'{"initiator_id":"\\ud800"}', b'{"initiator_id":"a","label":"\\ud800"}',
    b'{"initiator_id":"a","groups":["\\u0000"]}', b'{"url":{"a":1}}', b'{"type":"\\ud800"}',
    b'{"initiator_id":"a","expires_at":"9999-12-31T23:59:59-23:59"}',
]  # fmt: skip
ITEMS = ["budgets/initiator/", "providers/", "mcp-servers/", "client-keys/", "initiators/"]
LISTS = ["audit?object=", "audit?cursor=", "client-keys?initiator_id=", "client-keys?cursor=", "budgets?cursor=",
         "metrics?worker="]  # fmt: skip
WRITTEN = [("PUT", "budgets/initiator/a"), ("PUT", "providers/house"), ("PATCH", "providers/house"),
           ("PUT", "mcp-servers/files"), ("POST", "client-keys")]  # fmt: skip
OWN = ["usage?model=", "usage?session_id=", "interceptions?provider=", "interceptions?cursor="]


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    values = {"recorder": {"url": url}, "managed": True, "secret_keys": [base64.urlsafe_b64encode(bytes(32)).decode()]}
    app.include_router(AIBridge(lambda: settings_for("http://127.0.0.1:9", **values)).router, prefix="/ai")
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://h") as client:
        yield client


async def refused(client: httpx.AsyncClient, method: str, path: str, key: str = ADMIN, body: bytes = b"") -> None:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    answer = await client.request(method, f"/ai/{path}", headers=headers, content=body)
    assert answer.status_code < 500, (method, path[:80], body[:80], answer.text)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.content) < 4096, "it repeats what it was given"


async def test_names_that_nothing_can_have(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Names that nothing can have cause no server error, and no failure to read the records is logged."""
    caplog.set_level(logging.WARNING)
    async with asking(url) as client:
        for text in TEXTS:
            name = quote(text.encode("utf-8", "surrogatepass"), safe="")
            for item in ITEMS:
                await refused(client, "DELETE", f"admin/{item}{name}")
            for item in ITEMS[:3]:
                await refused(client, "GET", f"admin/{item}{name}")
            await refused(client, "PUT", f"admin/budgets/group/{name}", body=b'{"usd":1}')
            await refused(client, "PUT", f"admin/providers/{name}", body=b'{"type":"openai","api_key":"sk-1234567890"}')
            for one in LISTS:
                await refused(client, "GET", f"admin/{one}{name}")
            for one in OWN:
                await refused(client, "GET", f"me/{one}{name}", KEY)
    assert [record.message for record in caplog.records if "cannot be" in record.message] == []


async def test_bodies_that_nothing_can_be(url: str) -> None:
    """Impossible numbers, surrogates and times cause no server error, are not quoted, and make no key."""
    async with asking(url) as client:
        for body in BODIES:
            for method, path in WRITTEN:
                await refused(client, method, f"admin/{path}", body=body)
        answer = await client.get("/ai/admin/client-keys", headers={"authorization": f"Bearer {ADMIN}"})
        assert json.loads(answer.content)["items"] == [
            one for one in answer.json()["items"] if one["origin"] == "settings"
        ]
