"""Client keys from their creation to their end, through the admin routes of gateways that share a database."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

import pytest
from fastapi import Depends, FastAPI, WebSocket

from fastapi_aibridge import (
    AIBridge,
    ConfigurationError,
    InterceptionQuery,
    MemoryRecorder,
    Principal,
    RequestBridge,
    get_bridge,
)
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.e2e.gateway.client import Answer, Client
from tests.e2e.gateway.gateway import ADMIN, Gateway, gateway, settings_for
from tests.e2e.gateway.upstream import Call
from tests.waiting import until

pytestmark = pytest.mark.anyio

KEYS = "/ai/admin/client-keys"
CHAT = "/ai/openai/v1/chat/completions"
MESSAGES = "/ai/anthropic/v1/messages"
RESPONSES = "/ai/openai/v1/responses"
STREAMED = b'{"model": "gpt-5", "stream": true, "messages": [], "input": "x", "max_tokens": 5}'
CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
START = b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":1}}}\n\n'
CREATED = (
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0,'
    b'"response":{"id":"resp_1","status":"in_progress","output":[]}}\n\n'
)
FORMATS = pytest.mark.parametrize(
    ("path", "event"),
    [(CHAT, CHUNK), (MESSAGES, START), (RESPONSES, CREATED)],
    ids=["chat_completions", "messages", "responses"],
)


@asynccontextmanager
async def managed(url: str, **options: Any) -> AsyncIterator[Gateway]:
    async with gateway(recorder=SQLRecorder(url), **{"managed": True, **options}) as gate:
        yield gate


async def admin(gate: Gateway, method: str, path: str = KEYS, body: Any = None) -> Answer:
    return await gate.request(method, path, b"" if body is None else json.dumps(body).encode(), key=ADMIN)


async def create(gate: Gateway, **body: Any) -> dict[str, Any]:
    answer = await admin(gate, "POST", body={"initiator_id": "carol", **body})
    assert answer.status == 201, answer.body
    made: dict[str, Any] = json.loads(answer.body)
    return made


async def listed(gate: Gateway, query: str = "") -> list[dict[str, Any]]:
    answer = await admin(gate, "GET", KEYS + query)
    assert answer.status == 200
    items: list[dict[str, Any]] = json.loads(answer.body)["items"]
    return items


async def asked(gate: Gateway, key: str, path: str = CHAT, model: str = "gpt-5") -> Answer:
    """Send a request, which the upstream answers if it arrives there."""
    body = json.dumps({"model": model, "messages": [], "input": "x", "max_tokens": 5}).encode()
    asking = asyncio.create_task(gate.request("POST", path, body, key=key))
    called = asyncio.create_task(gate.upstream.call())
    await asyncio.wait((asking, called), return_when=asyncio.FIRST_COMPLETED)
    if called.done():
        await called.result().answer(b'{"id": "x", "choices": []}')
    else:
        called.cancel()
    return await asking


@asynccontextmanager
async def streaming(gate: Gateway, key: str, path: str, event: bytes) -> AsyncIterator[tuple[Client, Call]]:
    """Begin a stream; yields the client and the upstream's call after the first event."""
    async with gate.connected() as client:
        await client.send("POST", path, STREAMED, key=key)
        call = await gate.upstream.call()
        await call.stream(event)
        assert (await client.head())[0] == 200
        assert await client.piece() == event
        yield client, call


async def rest_of(client: Client) -> bytes:
    rest = b""
    while piece := await client.piece():
        rest += piece
    return rest


class Lateness:
    """The seconds for which other processes kept this one from running while the context was open."""

    async def __aenter__(self) -> Self:
        self.seconds = 0.0
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            begun, used = time.monotonic(), time.process_time()
            await asyncio.sleep(0.02)
            self.seconds += max(0.0, time.monotonic() - begun - 0.02 - (time.process_time() - used))


async def records(gate: Gateway) -> list[Any]:
    assert isinstance(gate.recorder, SQLRecorder)
    return (await gate.recorder.list(InterceptionQuery())).items


async def test_a_key_is_made_used_and_revoked(url: str) -> None:
    """A key is shown once, names its initiator and appears in the records; after its revocation it gets 401."""
    async with managed(url) as gate:
        made = await create(gate, label="laptop", groups=["staff"])
        assert made["key"].startswith("aib_")
        assert {name: made[name] for name in ("initiator_id", "label", "groups", "models", "origin")} == {
            "initiator_id": "carol",
            "label": "laptop",
            "groups": ["staff"],
            "models": None,
            "origin": "database",
        }
        assert (await asked(gate, made["key"])).status == 200
        (record,) = await records(gate)
        assert (record.interception.initiator_id, record.interception.api_key_id) == ("carol", made["id"])
        (item,) = await listed(gate, "?initiator_id=carol")
        assert item["last_used_at"] is not None
        assert item == {name: made[name] for name in item} | {"last_used_at": item["last_used_at"]}
        revoked = await admin(gate, "DELETE", f"{KEYS}/{made['id']}")
        assert revoked.status == 200
        assert json.loads(revoked.body)["revoked_at"] is not None
        assert (await asked(gate, made["key"])).status == 401
        for answer in (revoked, await admin(gate, "GET"), await admin(gate, "GET", "/ai/admin/audit")):
            assert made["key"].encode() not in answer.body
        audit = json.loads((await admin(gate, "GET", "/ai/admin/audit")).body)["items"]
        assert [(entry["actor"], entry["action"]) for entry in audit] == [
            ("admin_token", "client_key.revoke"),
            ("admin_token", "client_key.create"),
        ]


async def test_keys_of_the_settings_stay(url: str) -> None:
    """Keys of the settings work, are listed first, and cannot be revoked here."""
    async with managed(url) as gate:
        assert (await asked(gate, "k-alice")).status == 200
        first, *others = await listed(gate)
        assert (first["id"], first["origin"], first["initiator_id"]) == ("settings:alice:1", "settings", "alice")
        assert others == []
        assert (await admin(gate, "DELETE", f"{KEYS}/settings:alice:1")).status == 409
        assert (await asked(gate, "k-alice")).status == 200


async def test_what_is_null_is_as_good_as_left_out(tmp_path: Any) -> None:
    """A member that is null counts as left out, since some clients write each member."""
    async with managed(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}") as gate:
        made = await create(gate, label=None, expires_at=None, groups=None, models=None)
        assert (made["label"], made["expires_at"], made["groups"], made["models"]) == ("", None, [], None)


async def test_models_of_a_key(url: str) -> None:
    """The models of a key restrict its principal."""
    async with managed(url) as gate:
        made = await create(gate, models=["gpt-5-mini*"])
        assert (await asked(gate, made["key"], model="gpt-5-mini-2026")).status == 200
        assert (await asked(gate, made["key"], model="gpt-5")).status == 403


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key", "X-AIBridge-Token"])
async def test_in_each_header(url: str, header: str) -> None:
    """A managed key is accepted in each header that may have a key of the settings, and does not go upstream."""
    async with managed(url) as gate:
        key = (await create(gate))["key"]
        value = f"Bearer {key}" if header == "Authorization" else key
        asking = asyncio.create_task(gate.request("GET", "/ai/openai/v1/models", headers={header: value}, key=None))
        call = await gate.upstream.call()
        assert not [one for one in call.headers if key in one[1]]
        await call.answer(b"{}")
        assert (await asking).status == 200


@FORMATS
async def test_streams_of_a_revoked_key_end(url: str, path: str, event: bytes) -> None:
    """Streams of a revoked key end on all workers within two seconds, in the provider's shape; others go on."""
    async with managed(url) as one, managed(url) as two:
        made, other = await create(one), await create(one, initiator_id="dave")
        async with (
            streaming(one, made["key"], path, event) as (here, call_here),
            streaming(two, made["key"], path, event) as (there, call_there),
            streaming(two, other["key"], path, event) as (others, call_of_other),
        ):
            async with Lateness() as late:
                begun = time.monotonic()
                assert (await admin(one, "DELETE", f"{KEYS}/{made['id']}")).status == 200
                for client, call in ((here, call_here), (there, call_there)):
                    rest = await rest_of(client)
                    assert b"has been revoked" in rest
                    error = json.loads(rest.strip().splitlines()[-1].removeprefix(b"data: "))
                    if path == CHAT:
                        assert error["error"]["code"] == "key_revoked"
                    elif path == MESSAGES:
                        assert (error["type"], error["error"]["type"]) == ("error", "authentication_error")
                    await call.until_gone()
                took = time.monotonic() - begun
            assert took < 2.5 + late.seconds
            for gate in (one, two):
                assert (await asked(gate, made["key"], path)).status == 401
                assert (await asked(gate, other["key"], path)).status == 200
            await call_of_other.chunk(event)
            assert await others.piece() == event

            async def cut_streams() -> list[Any]:
                return [record for record in await records(two) if record.interception.initiator_id == "carol"]

            async def all_ended() -> bool:
                return all(record.ending for record in await cut_streams())  # the other worker's end a moment later

            await until(all_ended)
            cut = await cut_streams()
            assert [(str(one.ending.status), one.ending.error) for one in cut] == [
                ("failed", "the client key of this request has been revoked")
            ] * 2
            await until(lambda: one.aibridge.pool.metrics().evictions["revoked"] == 1)
            await until(lambda: two.aibridge.pool.metrics().evictions["revoked"] == 1)
            await call_of_other.end()


async def test_very_many_streams_of_a_revoked_key(tmp_path: Any) -> None:
    """All streams of a revoked key end in time, even if a client does not read; those of another key go on."""
    async with managed(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}") as gate, AsyncExitStack() as stack:
        made, other = await create(gate), await create(gate, initiator_id="dave")
        cut = [await stack.enter_async_context(streaming(gate, made["key"], CHAT, CHUNK)) for _ in range(60)]
        kept = [await stack.enter_async_context(streaming(gate, other["key"], CHAT, CHUNK)) for _ in range(10)]
        slow_client, slow_call = cut.pop()
        slow_client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        flood = asyncio.create_task(_flood(slow_call))
        await asyncio.sleep(0.3)
        await admin(gate, "DELETE", f"{KEYS}/{made['id']}")
        async with Lateness() as late:
            begun = time.monotonic()
            assert all(b"has been revoked" in rest for rest in await asyncio.gather(*(rest_of(one) for one, _ in cut)))
            await slow_call.until_gone()
            took = time.monotonic() - begun
        assert took < 2.5 + late.seconds
        await flood
        for client, call in kept:
            await call.chunk(CHUNK)
            assert await client.piece() == CHUNK
        await until(lambda: gate.aibridge.pool.metrics().leases == len(kept))
        carols = [one for one in await records(gate) if one.interception.initiator_id == "carol"]
        assert {str(one.ending.status) for one in carols} == {"failed"}


async def _flood(call: Call) -> None:
    """Send more than all buffers hold."""
    with suppress(OSError):
        for _ in range(2000):
            await call.chunk(CHUNK * 100)


async def test_a_request_that_waits_for_its_answer(url: str) -> None:
    """A request that waits for its response gets 401, and so does one whose body is incomplete."""
    async with managed(url) as gate:
        made = await create(gate)
        asking = asyncio.create_task(gate.request("POST", CHAT, b'{"model":"gpt-5","messages":[]}', key=made["key"]))
        await gate.upstream.call()
        async with gate.connected() as slow:
            head = {"Content-Length": "1000", "Content-Type": "application/json"}
            await slow.send("POST", CHAT, b"{", head, key=made["key"])
            await until(lambda: gate.aibridge.pool.metrics().leases == 2)
            await admin(gate, "DELETE", f"{KEYS}/{made['id']}")
            answer = await asking
            assert (answer.status, answer.header("x-should-retry")) == (401, "false")
            assert json.loads(answer.body)["error"]["code"] == "key_revoked"
            assert (await slow.head())[0] == 401
        (record,) = await records(gate)
        assert record.ending.status == "failed"


async def test_what_is_passed_through_ends_too(url: str) -> None:
    """A passed-through request gets 401 before its response has begun, and a closed connection afterwards."""
    async with managed(url) as gate:
        made = await create(gate)
        asking = asyncio.create_task(gate.request("GET", "/ai/openai/v1/models", key=made["key"]))
        await gate.upstream.call()
        async with gate.connected() as client:
            await client.send("GET", "/ai/openai/v1/responses/r", key=made["key"])
            running = asyncio.create_task(client.answer())
            call = await gate.upstream.call()
            await call.head(chunked=True)
            await call.chunk(b"x")
            await client.received.wait()
            await admin(gate, "DELETE", f"{KEYS}/{made['id']}")
            assert (await asking).status == 401
            answer = await running
            assert (answer.status, answer.body, answer.whole) == (200, b"x", False)


async def test_an_expired_key(url: str) -> None:
    """A key ends at its expiry, with its running streams, even on a worker that receives no requests."""
    async with managed(url) as gate:
        made = await create(gate, expires_at=(datetime.now(UTC) + timedelta(seconds=2.5)).isoformat())
        async with streaming(gate, made["key"], CHAT, CHUNK) as (client, _):
            assert b"has expired" in await rest_of(client)
        assert (await asked(gate, made["key"])).status == 401
        (item,) = await listed(gate, "?initiator_id=carol")
        assert (item["revoked_at"], item["expires_at"]) == (None, made["expires_at"])


async def test_sockets_of_a_handler(url: str) -> None:
    """A bridge that a handler holds for longer than the key lives serves nothing more, and has no successor."""
    app = FastAPI()
    seen: list[int] = []
    go_on = asyncio.Event()

    @app.get("/handler")
    async def handler(bridge: Annotated[RequestBridge, Depends(get_bridge)]) -> str:
        async with bridge.http_client("openai") as client:
            await go_on.wait()
            answer = await client.post("/v1/chat/completions", json={"model": "gpt-5", "messages": []})
            seen.append(answer.status_code)
        return "done"

    async with managed(url, app=app) as gate:
        made = await create(gate)
        asking = asyncio.create_task(gate.request("GET", "/handler", key=made["key"]))
        await until(lambda: gate.aibridge.pool.metrics().leases == 1)
        await admin(gate, "DELETE", f"{KEYS}/{made['id']}")
        go_on.set()
        assert (await asking).status == 200
        assert seen == [401]
        assert gate.upstream.untouched
        assert (await gate.request("GET", "/handler", key=made["key"])).status == 401


async def test_a_key_that_is_revoked_between_who_calls_and_the_bridge(url: str) -> None:
    """No bridge is built for a key that is revoked after it was authenticated."""
    async with managed(url) as gate:
        made = await create(gate)
        principal = Principal("carol", made["id"])
        await admin(gate, "DELETE", f"{KEYS}/{made['id']}")
        with pytest.raises(Exception, match="revoked"):
            await gate.aibridge.pool.acquire(principal).__aenter__()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "initiator_id"),
        ({"initiator_id": ""}, "initiator_id"),
        ({"initiator_id": 5}, "initiator_id"),
        ({"initiator_id": "x" * 513}, "initiator_id"),
        ({"initiator_id": "\0"}, "initiator_id"),
        ({"initiator_id": "a", "nonsense": 1}, "nonsense"),
        ({"initiator_id": "a", "label": "x" * 201}, "label"),
        ({"initiator_id": "a", "groups": "staff"}, "groups"),
        ({"initiator_id": "a", "groups": [""]}, "groups"),
        ({"initiator_id": "a", "models": "gpt-5"}, "models"),
        ({"initiator_id": "a", "models": ["x" * 257]}, "models"),
        ({"initiator_id": "a", "expires_at": "tomorrow"}, "expires_at"),
        ({"initiator_id": "a", "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"initiator_id": "a", "expires_at": "2099-01-01"}, "expires_at"),
        ({"initiator_id": "a", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"initiator_id": "a", "expires_at": 4102444800}, "expires_at"),
        ({"initiator_id": "a", "expires_at": "2099-13-01T00:00:00Z"}, "expires_at"),
        ([], "body"),
    ],
)
async def test_bodies_that_are_refused(tmp_path: Any, body: Any, named: str) -> None:
    """A bad body gets 422 that names the member; no key is made, and the audit has no entry."""
    async with managed(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}") as gate:
        answer = await admin(gate, "POST", body=body)
        assert (answer.status, named in answer.body.decode()) == (422, True)
        assert [key["origin"] for key in await listed(gate)] == ["settings"]
        assert json.loads((await admin(gate, "GET", "/ai/admin/audit")).body)["items"] == []


async def test_who_may_not(tmp_path: Any) -> None:
    """Client keys open no admin route, and a stranger's large body is refused."""
    async with managed(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}") as gate:
        key = (await create(gate))["key"]
        for token in (key, "k-alice", None, "wrong"):
            for method, path in (("POST", KEYS), ("GET", KEYS), ("DELETE", f"{KEYS}/x")):
                body = b'{"initiator_id": "mallory"}' if method == "POST" else b""
                assert (await gate.request(method, path, body, key=token)).status == 401
        answer = await gate.request("POST", KEYS, b'{"initiator_id": "' + b"x" * 300_000 + b'"}', key=None)
        assert answer.status == 413
        assert (await admin(gate, "DELETE", f"{KEYS}/no-such-key")).status == 404


async def test_keys_that_are_not_managed(tmp_path: Any) -> None:
    """Without managed keys the routes get 404 that names the setting, and keys made earlier are not valid."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"
    async with managed(url) as gate:
        key = (await create(gate))["key"]
    async with managed(url, managed=False) as gate:
        for method, path in (("POST", KEYS), ("GET", KEYS), ("DELETE", f"{KEYS}/x")):
            answer = await admin(gate, method, path, {"initiator_id": "a"} if method == "POST" else None)
            assert (answer.status, b"AIBRIDGE_MANAGED" in answer.body) == (404, True)
        assert (await asked(gate, key)).status == 401
    async with managed(url) as gate:
        assert (await asked(gate, key)).status == 200


async def test_managed_without_a_database() -> None:
    """Managed keys without a database fail the start with the variable's name and the remedy."""
    aibridge = AIBridge(settings_for("http://127.0.0.1:9", managed=True), recorder=MemoryRecorder())
    with pytest.raises(ConfigurationError, match="AIBRIDGE_MANAGED needs the recorder's database"):
        await aibridge.lifespan(FastAPI()).__aenter__()


async def test_a_web_socket_with_a_revoked_key(url: str) -> None:
    """A WebSocket with a revoked key is refused."""
    app = FastAPI()

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, bridge: Annotated[RequestBridge, Depends(get_bridge)]) -> None:
        await websocket.accept()
        await websocket.send_text(bridge.principal.api_key_id)
        await websocket.close()

    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    async with managed(url, app=app) as gate:
        made = await create(gate)
        address, headers = f"ws://127.0.0.1:{gate.port}/ws", {"X-Api-Key": made["key"]}
        async with connect(address, additional_headers=headers) as socket:
            assert await socket.recv() == made["id"]
        await admin(gate, "DELETE", f"{KEYS}/{made['id']}")
        with pytest.raises(InvalidStatus):
            await connect(address, additional_headers=headers)
