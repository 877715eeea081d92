"""The in-process transport, tested with small ASGI apps behind it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_aibridge.inprocess.call import HIGH_WATER
from fastapi_aibridge.inprocess.transport import PLACEHOLDER, InProcessTransport

pytestmark = pytest.mark.anyio

LIMIT = 60.0
who = contextvars.ContextVar("who", default="nobody")


def client_of(app: ASGIApp, api_key: str | None = None, timeout: float | None = None) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=InProcessTransport(app, "openai", api_key), base_url="http://aibridge.invalid", timeout=timeout
    )


async def start(send: Send, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-up", b"1")]})


async def body(send: Send, data: bytes, *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


class Echo:
    """An app that answers with the request's body and keeps its scope."""

    def __init__(self) -> None:
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        data, more = b"", True
        while more:
            message = await receive()
            data += message["body"]
            more = message["more_body"]
        await start(send, 201)
        await body(send, data)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.scope["headers"])


async def test_a_request_and_its_answer() -> None:
    """Method, path, query and body reach the app below the provider's name; status, headers and body come back."""
    echo = Echo()
    async with client_of(echo) as client:
        answer = await client.put("/v1/models/a%20b", params={"limit": "2"}, content=b"body")
    assert (answer.status_code, answer.headers["x-up"], answer.content) == (201, "1", b"body")
    scope = echo.scope
    assert (scope["method"], scope["path"], scope["root_path"]) == ("PUT", "/openai/v1/models/a b", "")
    assert (scope["raw_path"], scope["query_string"]) == (b"/openai/v1/models/a%20b", b"limit=2")


async def test_any_host_is_the_bridge() -> None:
    """A request to any host reaches the bridge, because some libraries have the vendor's address built in."""
    echo = Echo()
    async with client_of(echo) as client:
        await client.post("https://api.openai.com/v1/responses", content=b"{}")
    assert echo.scope["path"] == "/openai/v1/responses"


async def test_a_body_that_is_generated() -> None:
    """A request body may be generated in pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async with client_of(Echo()) as client:
        assert (await client.post("/v1/responses", content=pieces())).content == b"one two"


async def test_keys_stay_here() -> None:
    """Neither the SDKs' placeholder key nor a library's own key reaches the app."""
    echo = Echo()
    async with client_of(echo) as client:
        for key in (PLACEHOLDER, "sk-of-a-library"):
            await client.post("/v1/responses", headers={"Authorization": f"Bearer {key}", "X-Api-Key": key})
            assert {b"authorization", b"x-api-key"}.isdisjoint(echo.headers)


async def test_a_key_of_the_callers_own() -> None:
    """The client's own key replaces the keys in its requests."""
    echo = Echo()
    async with client_of(echo, api_key="sk-own") as client:
        await client.post("/v1/responses", headers={"Authorization": f"Bearer {PLACEHOLDER}", "X-Api-Key": "other"})
    assert echo.headers[b"authorization"] == b"Bearer sk-own"
    assert b"x-aibridge-token" in echo.headers
    assert b"x-api-key" not in echo.headers


async def test_a_key_of_one_request() -> None:
    """A request with `X-AIBridge-Token` keeps its own key, as over HTTP, but not the placeholder."""
    echo = Echo()
    own = {"X-AIBridge-Token": "any", "X-Api-Key": "sk-own", "Authorization": f"Bearer {PLACEHOLDER}"}
    async with client_of(echo) as client:
        await client.post("/v1/responses", headers=own)
    assert echo.headers[b"x-api-key"] == b"sk-own"
    assert b"authorization" not in echo.headers


async def test_context_variables_reach_the_app() -> None:
    """The app runs in a copy of the caller's context, which gives spans their parent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await body(send, who.get().encode())
        who.set("the app")

    token = who.set("alice")
    try:
        async with client_of(app) as client:
            assert (await client.get("/")).content == b"alice"
        assert who.get() == "alice"
    finally:
        who.reset(token)


@pytest.mark.parametrize("begun", [False, True], ids=["before the answer", "in the answer"])
async def test_an_error_of_the_app_reaches_the_caller(begun: bool) -> None:
    """An error of the app is raised unchanged in the caller, before or within the response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await start(send)
            await body(send, b"half", more=True)
        raise ZeroDivisionError

    async with client_of(app) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/")


async def test_an_error_after_the_answer_reaches_the_caller() -> None:
    """An error of the app after its whole response is raised in the caller."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await body(send, b"all")
        raise ZeroDivisionError

    async with client_of(app) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/")


async def test_an_error_after_the_caller_has_gone_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An error after the caller has left is logged, because nobody else would see it."""
    failed = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await start(send)
        await body(send, b"half", more=True)
        assert (await receive())["type"] == "http.disconnect"
        failed.set()
        raise ZeroDivisionError

    async with client_of(app) as client:
        async with client.stream("GET", "/"):
            pass
        await asyncio.wait_for(failed.wait(), LIMIT)
    [record] = caplog.records
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("raised", [None, ConnectionAbortedError("reset")], ids=["returns", "aborts"])
async def test_an_answer_that_breaks_off(raised: OSError | None) -> None:
    """An app that ends within its response causes a protocol error, as a server that breaks the connection."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await body(send, b"half", more=True)
        if raised:
            raise raised

    async with client_of(app) as client:
        with pytest.raises(httpx2.RemoteProtocolError) as caught:
            await client.get("/")
    assert caught.value.__cause__ is raised
    assert caught.value.request.url.path == "/"


async def test_no_answer_at_all() -> None:
    """An app that returns without a response causes an error instead of a hang."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async with client_of(app) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/")


async def test_backpressure() -> None:
    """The app waits at a bound of unread bytes, and all of its response arrives."""
    piece, sent = b"x" * 1024, 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await start(send)
        for _ in range(1000):
            await body(send, piece, more=True)
            sent += 1
        await body(send, b"")

    async with client_of(app) as client, client.stream("GET", "/") as answer:
        async for _ in answer.aiter_raw(1):
            break
        assert sent <= HIGH_WATER // len(piece) + 2
    async with client_of(app) as client:
        assert len((await client.get("/")).content) == 1000 * len(piece)


async def test_an_app_that_writes_on_is_told() -> None:
    """After the caller has left, `send` raises `OSError`, even in an app that was waiting in it."""
    told: asyncio.Future[OSError] = asyncio.get_running_loop().create_future()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        try:
            while True:
                await body(send, b"x" * HIGH_WATER, more=True)
        except OSError as error:
            told.set_result(error)
            raise

    async with client_of(app) as client, client.stream("GET", "/"):
        pass
    await asyncio.wait_for(told, LIMIT)


async def test_the_client_has_not_gone_until_it_has() -> None:
    """`receive` reports no disconnect while the caller waits for the response."""
    events: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(await receive())
        waiting = asyncio.ensure_future(receive())
        await asyncio.wait([waiting], timeout=0)
        assert not waiting.done()
        await start(send)
        await body(send, b"all")
        events.append(await waiting)

    async with client_of(app) as client:
        await client.post("/", content=b"body")
    assert [event["type"] for event in events] == ["http.request", "http.disconnect"]


async def test_a_silent_app_times_out() -> None:
    """The client's read timeout ends a call without a response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with client_of(app, timeout=0.01) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.get("/")
