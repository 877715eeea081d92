"""Messages to and from one MCP server over HTTP, without tasks or sockets while idle.

Streamable HTTP is one POST for each message, so an open session needs no standing task.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from mcp_types import METHOD_NOT_FOUND

from .connections import CLOSE_TIMEOUT, MCPConnections
from .cookies import Cookies
from .credentials import Credentials
from .http import HTTPResponse
from .incoming import MAX_MESSAGE, Incoming
from .problems import ConnectionBroken, MCPProblem, Refused, ServerError, Unusable

MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error's body that are read."""
MAX_SESSION_ID = 1024
MAX_REQUEST_ID = 256
"""Characters of the id of a server's request, which the response repeats."""
RESUMPTIONS = 3
"""The number of times that the rest of a broken-off response is requested."""
MAX_ANSWERING = 8
"""Requests of the server that are answered at the same time; further ones are ignored."""

_SESSION_ID = "mcp-session-id"
_NOT_CANCELLED = ("initialize", "server/discover")
"""Methods whose requests the protocol forbids to cancel."""


class HTTPDispatcher:
    """One session's messages. The response to `initialize` sets `session_id`; any response may change the cookies."""

    __slots__ = ("_answering", "_changed", "_connections", "_cookies", "_credentials", "_ids", "_url", "session_id")

    def __init__(
        self, url: str, credentials: Credentials, connections: MCPConnections, changed: Callable[[], None]
    ) -> None:
        self._url = url
        self._credentials = credentials
        self._connections = connections
        self._changed = changed
        self._ids = itertools.count(1)
        self._answering = 0
        self._cookies: Cookies | None = None  # created with the first cookie
        self.session_id: str | None = None

    async def request(self, method: str, params: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """Send one request, and return its result. Raises `MCPProblem`."""
        number = next(self._ids)
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": number, "method": method}
        if params:
            message["params"] = params
        try:
            reply = await self._ask(message, number, headers)
        except asyncio.CancelledError:
            # With a session, hanging up cancels nothing. Without one (the later protocol) it cancels the request.
            if self.session_id is not None and method not in _NOT_CANCELLED:
                params = {"requestId": number}
                self._connections.spawn(self._briefly(self.notify("notifications/cancelled", params, headers)))
            raise
        if reply.get("error") or "result" not in reply:
            raise _error_of(200, reply["error"]) if "error" in reply else Unusable("its answer has no result")
        result = reply["result"]
        if isinstance(result, dict):
            return result
        # Some servers answer with the bare value.
        return {"content": result} if isinstance(result, str | None) else {"structuredContent": result}

    async def notify(self, method: str, params: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        """Send one notification. Raises `MCPProblem`."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params:
            message["params"] = params
        await self._tell("POST", headers, message)

    async def listen(self, headers: Mapping[str, str]) -> None:
        """Read the messages that a server with a session sends unasked, until it ends that. Raises `MCPProblem`."""
        async with self._send("GET", headers) as response:
            await self._read_events(response, self._incoming(None))

    async def end(self, headers: Mapping[str, str]) -> None:
        """End the session on the server, if it allows that, in a bounded time."""
        if self.session_id is not None:
            await self._briefly(self._tell("DELETE", headers))

    async def _tell(self, method: str, headers: Mapping[str, str], message: Mapping[str, Any] | None = None) -> None:
        async with self._send(method, headers, message):
            pass

    async def _briefly(self, work: Any) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await work
        except (MCPProblem, TimeoutError):
            pass

    # Requests of the server

    def _incoming(self, number: int | None) -> Incoming:
        return Incoming(number, self._asked, self._changed)

    def _asked(self, number: object, method: object) -> None:
        known = isinstance(number, int) or (isinstance(number, str) and len(number) <= MAX_REQUEST_ID)
        if known and self._answering < MAX_ANSWERING:
            self._answering += 1
            self._connections.spawn(self._answer(number, method))

    async def _answer(self, number: object, method: object) -> None:
        """Answer a request of the server: a ping gets a result, all other methods are unknown here."""
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": number}
        if method == "ping":
            answer["result"] = {}
        else:
            answer["error"] = {"code": METHOD_NOT_FOUND, "message": "Method not found"}
        try:
            await self._briefly(self._tell("POST", {}, answer))
        finally:
            self._answering -= 1

    # HTTP

    async def _ask(self, message: dict[str, Any], number: int, headers: Mapping[str, str]) -> dict[str, Any]:
        incoming = self._incoming(number)
        async with self._send("POST", headers, message) as response:
            if message["method"] == "initialize":
                self.session_id = _session_id(response)
            if response.content_type != "text/event-stream":
                # Some servers send JSON with another content type, or with none.
                reply = incoming.message(await response.body(MAX_MESSAGE))
                if reply is None:
                    raise Unusable("its answer belongs to another request")
                return reply
            reply = await self._read_reply(response, incoming)
        for _ in range(RESUMPTIONS):
            if reply is not None:
                return reply
            # Servers may end a stream early and send the rest later, for which they number their events.
            if incoming.last_id is None:
                break
            await asyncio.sleep(incoming.retry)
            async with self._send("GET", {**headers, "last-event-id": incoming.last_id}) as response:
                reply = await self._read_reply(response, incoming)
        if reply is None:
            raise ConnectionBroken("its answer broke off")
        return reply

    async def _read_reply(self, response: HTTPResponse, incoming: Incoming) -> dict[str, Any] | None:
        try:
            return await self._read_events(response, incoming)
        except ConnectionBroken:
            if incoming.last_id is None:
                raise
            return None

    async def _read_events(self, response: HTTPResponse, incoming: Incoming) -> dict[str, Any] | None:
        if response.content_type != "text/event-stream":
            raise Unusable("it answered with something that is not an event stream")
        return await incoming.stream(response.read_some)

    @asynccontextmanager
    async def _send(
        self, method: str, headers: Mapping[str, str], message: Mapping[str, Any] | None = None
    ) -> AsyncIterator[HTTPResponse]:
        """Send one HTTP request with the credentials and the session's headers. Yields a response with status 2xx."""
        own = {"accept": "text/event-stream" if method == "GET" else "application/json, text/event-stream"}
        if self.session_id is not None:
            own[_SESSION_ID] = self.session_id
        body = None
        if message is not None:
            own["content-type"] = "application/json"
            try:
                body = orjson.dumps(message)
            except TypeError:
                raise MCPProblem("the arguments cannot be written as JSON") from None
        repeatable = message is None or message.get("method") != "tools/call"
        response = await self._request(method, {**own, **headers}, body, repeatable=repeatable)
        try:
            if not 200 <= response.status < 300:
                raise await _refusal(response)
            yield response
        except BaseException:
            response.close()  # to a server of the later protocol this cancels the request
            raise
        response.release(self._connections.spawn)

    async def _request(
        self, method: str, headers: dict[str, str], body: bytes | None, *, repeatable: bool
    ) -> HTTPResponse:
        for attempt in range(2):
            credentials = await self._credentials.headers()
            all_headers = {**credentials, **headers}
            if self._cookies is not None:
                all_headers["cookie"] = "; ".join(filter(None, (credentials.get("cookie"), self._cookies.header)))
            response = await self._connections.http.request(method, self._url, all_headers, body, repeatable=repeatable)
            if set_cookies := response.headers("set-cookie"):
                self._cookies = self._cookies or Cookies()
                self._cookies.read(set_cookies)
            if response.status != 401 or attempt or not self._credentials.renewable:
                break
            response.close()
            if not await self._credentials.renew(credentials):
                raise Refused(401)
        return response


def _session_id(response: HTTPResponse) -> str | None:
    value = response.header(_SESSION_ID)
    if value is not None and (len(value) > MAX_SESSION_ID or not value.isascii() or not value.isprintable()):
        raise Unusable("its session id is none that a header may have")
    return value


async def _refusal(response: HTTPResponse) -> Refused:
    """The reason for a refusal, as far as the server gives it in the protocol's form."""
    try:
        answer = orjson.loads(await response.body(MAX_ERROR_BODY))
    except (MCPProblem, ValueError):
        return Refused(response.status)
    error = answer.get("error") if isinstance(answer, dict) else None
    return _error_of(response.status, error) if isinstance(error, dict) else Refused(response.status)


def _error_of(status: int, error: object) -> ServerError:
    if not isinstance(error, dict):
        return ServerError(status, 0, error if isinstance(error, str) else "")
    code, said = error.get("code"), error.get("message")
    return ServerError(
        status,
        code if isinstance(code, int) and abs(code) < 2**31 else 0,
        said if isinstance(said, str) else "",
        error.get("data"),
    )
