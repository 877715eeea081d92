"""Messages to and from one MCP server over HTTP: the mcp library's dispatcher, without tasks or sockets while idle.

Streamable HTTP is one POST for each message, so what the library keeps running beside a session (a writer, a reader, a
standing stream) is not needed to hold one. The protocol itself, its versions and types are the library's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio.abc
import orjson
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, ErrorData
from pydantic import ValidationError

from ..sse import EventTooLarge, Framer, data_of, events
from .connections import CLOSE_TIMEOUT, MCPConnections
from .credentials import Credentials
from .problems import BrokenOff, MCPProblem, Refused, SessionUnknown, Unreachable

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one message of the server; images in results come to some megabytes."""
CONNECT_TIMEOUT = 5.0
"""Seconds until a connection stands, TLS included."""
RESUMPTIONS = 3
"""How often in a row an answer that broke off is asked for again without a word of it arriving."""

_SESSION_ID = "Mcp-Session-Id"
_VERSION = "Mcp-Protocol-Version"


class Wire:
    """One session's messages. What changes: `session_id` with the answer to `initialize`; `version`, by the session."""

    __slots__ = ("_changed", "_connections", "_credentials", "_ids", "_url", "session_id", "version")

    def __init__(
        self, url: str, credentials: Credentials, connections: MCPConnections, changed: Callable[[], None]
    ) -> None:
        self._url = url
        self._credentials = credentials
        self._connections = connections
        self._changed = changed
        self._ids = itertools.count(1)
        self.session_id: str | None = None
        self.version: str | None = None

    # What the library's session calls

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """The result of one request. Raises `MCPError` for the server's error, `MCPProblem` for anything else."""
        opts = opts or {}
        number = next(self._ids)
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": number, "method": method}
        if params:
            message["params"] = dict(params)
        try:
            async with asyncio.timeout(opts.get("timeout")):
                reply = await self._ask(message, number, opts.get("headers"))
        except (asyncio.CancelledError, TimeoutError):
            # With a session, hanging up is no cancellation. Without one (the later protocol) it is.
            if self.session_id is not None and opts.get("cancel_on_abandon", True):
                self._connections.spawn(self._tell("notifications/cancelled", {"requestId": number}))
            raise
        error = reply.get("error")
        if error is not None:
            raise _meaning_of(error)
        result = reply.get("result")
        if not isinstance(result, dict):
            raise BrokenOff("its answer has no result")
        return result

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Raises `MCPProblem`."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params:
            message["params"] = dict(params)
        async with self._send("POST", message, (opts or {}).get("headers")):
            pass

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        raise NotImplementedError("answers are read where they are asked for: there is nothing to run")

    # What is not part of a request

    async def listen(self) -> None:
        """Read what a server with a session has to say of its own accord, until it ends that. Raises `MCPProblem`."""
        async with self._send("GET") as response:
            await self._read_events(response, None, _Position())

    async def end(self) -> None:
        """End the session on the server, as far as it lets us, in a bounded time."""
        if self.session_id is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT), self._send("DELETE"):
                pass
        except (MCPProblem, MCPError, TimeoutError):
            pass

    async def _tell(self, method: str, params: Mapping[str, Any]) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.notify(method, params)
        except (MCPProblem, MCPError, TimeoutError):
            pass

    async def _answer(self, number: object, method: object) -> None:
        """Answer a request of the server: we are there, and that is all that we offer."""
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": number}
        if method == "ping":
            answer["result"] = {}
        else:
            answer["error"] = {"code": METHOD_NOT_FOUND, "message": "Method not found"}
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT), self._send("POST", answer):
                pass
        except (MCPProblem, MCPError, TimeoutError):
            pass

    # HTTP

    async def _ask(self, message: dict[str, Any], number: int, headers: Mapping[str, str] | None) -> dict[str, Any]:
        position = _Position()
        async with self._send("POST", message, headers) as response:
            if message["method"] == "initialize":
                self.session_id = response.headers.get(_SESSION_ID)
            kind = response.content_type
            if kind == "application/json":
                reply = self._incoming(await _body(response, MAX_MESSAGE), number)
                if reply is None:
                    raise BrokenOff("its answer belongs to another request")
                return reply
            if kind != "text/event-stream":
                raise BrokenOff("it answered with something that is neither JSON nor an event stream")
            reply = await self._read_reply(response, number, position)
        while reply is None:
            # Servers may end a stream early and hand out the rest later; so they number their events.
            position.attempts += 1
            if position.last_id is None or position.attempts > RESUMPTIONS:
                raise BrokenOff("its answer broke off")
            await asyncio.sleep(position.retry)
            async with self._send("GET", headers={"Last-Event-ID": position.last_id}) as response:
                reply = await self._read_reply(response, number, position)
        return reply

    async def _read_reply(
        self, response: aiohttp.ClientResponse, number: int, position: _Position
    ) -> dict[str, Any] | None:
        try:
            return await self._read_events(response, number, position)
        except BrokenOff:
            if position.last_id is None:
                raise
            return None

    @asynccontextmanager
    async def _send(
        self, method: str, message: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One HTTP request with the credentials and the session's headers; its response has a good status."""
        own = {"Accept": "text/event-stream" if method == "GET" else "application/json, text/event-stream"}
        session_id = self.session_id
        if session_id is not None:
            own[_SESSION_ID] = session_id
        if self.version is not None:
            own[_VERSION] = self.version
        body = None
        if message is not None:
            own["Content-Type"] = "application/json"
            body = orjson.dumps(message)
        # The library spells header names in lower case.
        lower = {name.lower() for name in headers or ()}
        own = {name: value for name, value in own.items() if name.lower() not in lower} | dict(headers or {})
        response = await self._request(method, own, body)
        try:
            await _check(response, session_id)
            yield response
        except BaseException:
            response.close()  # to a server of the later protocol this cancels the request
            raise
        if response.content.at_eof():
            response.close()
        else:
            # Most streams end right behind the answer: then the connection can be used again.
            self._connections.spawn(_drain(response))

    async def _request(self, method: str, headers: dict[str, str], body: bytes | None) -> aiohttp.ClientResponse:
        for _ in range(2):
            credentials = await self._credentials.headers()
            try:
                response = await self._connections.http.request(
                    method,
                    self._url,
                    headers={**credentials, **headers},
                    data=body,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT),
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                raise Unreachable from None
            except (aiohttp.ClientError, OSError) as error:
                raise BrokenOff from error
            except ValueError:
                raise MCPProblem("its URL and headers do not make a request") from None
            if response.status != 401:
                return response
            response.close()
            if not await self._credentials.renew(credentials):
                break
        raise Refused(401)

    async def _read_events(
        self, response: aiohttp.ClientResponse, number: int | None, position: _Position
    ) -> dict[str, Any] | None:
        """The reply to request `number`, None where the stream ends before it; other messages are seen to."""
        if response.content_type != "text/event-stream":
            raise BrokenOff("it answered with something that is not an event stream")
        framer = Framer()
        torn = 0
        try:
            async for chunk in response.content.iter_any():
                block = framer.feed(chunk)
                torn = 0 if block else torn + len(chunk)
                if max(torn, len(block)) > MAX_MESSAGE:
                    raise _too_large()
                for event in events(block):
                    position.read(event)
                    if (data := data_of(event)) and (reply := self._incoming(data, number)) is not None:
                        return reply
        except EventTooLarge:
            raise _too_large() from None
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenOff from error
        return None

    def _incoming(self, data: bytes, number: int | None) -> dict[str, Any] | None:
        """The message if it is the reply to request `number`."""
        try:
            messages = orjson.loads(data)
        except ValueError:
            raise BrokenOff("its answer is not JSON") from None
        for message in messages if isinstance(messages, list) else [messages]:
            if not isinstance(message, dict):
                raise BrokenOff("its answer is not a message")
            method = message.get("method")
            if method is None:
                if number is not None and message.get("id") in (number, str(number), None):
                    return message
            elif "id" in message:
                self._connections.spawn(self._answer(message["id"], method))
            elif method == "notifications/tools/list_changed":
                self._changed()
        return None


class _Position:
    """How far an event stream has been read."""

    __slots__ = ("attempts", "last_id", "retry")

    def __init__(self) -> None:
        self.attempts = 0
        self.last_id: str | None = None
        self.retry = 1.0

    def read(self, event: bytes) -> None:
        self.attempts = 0
        if b"id:" not in event and b"retry:" not in event:
            return
        for line in event.splitlines():
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"id" and value:
                self.last_id = value.decode("latin-1")
            elif name == b"retry" and value.isdigit():
                self.retry = min(int(value) / 1000, 10.0)


async def _check(response: aiohttp.ClientResponse, session_id: str | None) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    if status == 404 and session_id is not None:
        raise SessionUnknown
    if response.content_type == "application/json":
        try:
            error = orjson.loads(await _body(response, 65536))["error"]
        except (BrokenOff, ValueError, KeyError, TypeError):
            raise Refused(status) from None
        meaning = _meaning_of(error)
        # The specification asks for 404; a widespread way of writing servers leads to 400 and these words.
        if status == 400 and session_id is not None and "session" in meaning.message.lower():
            raise SessionUnknown
        raise meaning
    raise Refused(status)


def _meaning_of(error: object) -> MCPError:
    try:
        return MCPError.from_error_data(ErrorData.model_validate(error))
    except ValidationError:
        raise BrokenOff("its answer is not a message") from None


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > limit:
                raise _too_large()
    except (aiohttp.ClientError, OSError) as error:
        raise BrokenOff from error
    return bytes(body)


async def _drain(response: aiohttp.ClientResponse) -> None:
    try:
        async with asyncio.timeout(1):
            await _body(response, 65536)
    except (BrokenOff, TimeoutError):
        pass
    finally:
        response.close()


def _too_large() -> BrokenOff:
    return BrokenOff(f"its answer is larger than {MAX_MESSAGE} bytes")
