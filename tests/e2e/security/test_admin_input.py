"""Mistakes and malice in the input of administrators get a proper response, on both databases."""

from __future__ import annotations

import base64
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
BODY_OF = {"budgets/group": b'{"usd":1}', "providers": b'{"type":"openai","api_key":"sk-1234567890"}'}
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


async def asked(
    client: httpx.AsyncClient, method: str, path: str, key: str = ADMIN, body: bytes = b""
) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    answer = await client.request(method, f"/ai/{path}", headers=headers, content=body)
    assert answer.status_code < 500, (method, path[:80], body[:80], answer.text)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.content) < 4096, "it repeats what it was given"
    return answer


async def test_names_that_nothing_can_have(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Odd names cause no server error, nothing is found by them, and no failure to read the records is logged."""
    caplog.set_level(logging.WARNING)
    stored = dict.fromkeys(BODY_OF, 0)
    async with asking(url) as client:
        for text in TEXTS:
            name = quote(text.encode("utf-8", "surrogatepass"), safe="")
            for item in ITEMS:
                answer = await asked(client, "DELETE", f"admin/{item}{name}")
                assert answer.is_client_error or answer.json() == {"interceptions": 0}
            for item in ITEMS[:3]:
                assert (await asked(client, "GET", f"admin/{item}{name}")).is_client_error
            for item, body in BODY_OF.items():
                stored[item] += (await asked(client, "PUT", f"admin/{item}/{name}", body=body)).is_success
            for path, key in [*((f"admin/{one}", ADMIN) for one in LISTS), *((f"me/{one}", KEY) for one in OWN)]:
                answer = await asked(client, "GET", f"{path}{name}", key)
                assert answer.is_client_error or not any(one.get("calls", 1) for one in answer.json()["items"])
        budgets = (await asked(client, "GET", "admin/budgets")).json()["items"]
        providers = (await asked(client, "GET", "admin/providers")).json()["items"]
        managed = [one for one in providers if one["managed"]]
        assert stored == {"budgets/group": len(budgets), "providers": len(managed)}
    assert [record.message for record in caplog.records if "cannot be" in record.message] == []


async def test_bodies_that_nothing_can_be(url: str) -> None:
    """Impossible numbers, surrogates and times are refused, are not quoted, and make no key."""
    async with asking(url) as client:
        for body in BODIES:
            for method, path in WRITTEN:
                assert (await asked(client, method, f"admin/{path}", body=body)).is_client_error
        keys = (await asked(client, "GET", "admin/client-keys")).json()["items"]
        assert [one["origin"] for one in keys] == ["settings"]
