"""A model provider that replies as a script says, and keeps the requests that it received."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import anyio

from . import messages, models, serving
from .received import Received
from .replies import Reply
from .wire_formats import BY_PATH, CHAT_COMPLETIONS, MESSAGES, WireFormat

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Script = Reply | Sequence[Reply] | Callable[[Received], Reply | Awaitable[Reply]]
"""One reply for every call, a sequence with one for each call in turn, or a function that returns the reply."""


class ScriptedProvider:
    """An ASGI app that speaks the APIs of OpenAI (chat completions, responses, models) and Anthropic (messages, count
    tokens, models), streamed and not.

    Only calls to a model take a reply from the script. With an `api_key`, requests without it get 401. The newest
    `keep` requests are kept, or all of them if it is None.
    """

    def __init__(
        self,
        script: Script,
        *,
        models: Sequence[str] = ("gpt-5", "claude-sonnet-5"),
        api_key: str | None = None,
        keep: int | None = None,
    ) -> None:
        self.received: list[Received] = []
        """The requests that are kept, in the order of their arrival."""
        self._models = tuple(models)
        self._api_key = api_key
        self._keep = keep
        self.script = script

    @property
    def script(self) -> Script:
        """The source of the replies. A new one applies from the next call on."""
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        self._script = script
        self._next_reply = _reader(script)

    def serve(self, port: int = 0) -> AbstractAsyncContextManager[str]:
        """Listen on a loopback port in the running asyncio loop; gives the base URL, without `/v1`."""
        return serving.serve(self, port)

    def serve_in_thread(self, port: int = 0) -> AbstractContextManager[str]:
        """Listen on a loopback port in a thread of its own; gives the base URL, without `/v1`."""
        return serving.serve_in_thread(self, port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"the scripted provider speaks HTTP, not {scope['type']!r}")
        received = await _read(scope, receive)
        self.received.append(received)
        if self._keep is not None:
            del self.received[: -self._keep or None]
        complete = False

        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                # Servers report a disconnect after the last byte of a response, too: that one is not the client's.
                if not complete:
                    received.hung_up.set()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            answer = await self._answer(received)
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.raw_headers})
            for piece in answer.pieces:
                await anyio.sleep(answer.delay)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            complete = True
            # Servers close the connection of an app that returns before its response is complete.
            if not answer.hang_up:
                await send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()

    async def _answer(self, received: Received) -> _Answer:
        wire_format = BY_PATH.get(received.path)
        if wire_format is None:
            # Paths that both vendors have are told apart by Anthropic's version header, as the vendors do.
            wire_format = MESSAGES if "anthropic-version" in received.headers else CHAT_COMPLETIONS
        if self._api_key is not None and self._api_key not in _credentials(received):
            return _refusal(wire_format, 401, "invalid API key")
        if received.method in ("GET", "HEAD"):
            return self._read_only(received, wire_format)
        counting = received.path == "/v1/messages/count_tokens"
        if received.method != "POST" or (received.path not in BY_PATH and not counting):
            return _not_found(received, wire_format)
        try:
            request = received.json()
        except ValueError as error:
            return _refusal(wire_format, 400, f"the body is not JSON: {error}")
        if not isinstance(request, dict):
            return _refusal(wire_format, 400, "the body is not a JSON object")
        if counting:
            return _Answer([messages.token_count(request)], length_known=True)
        for name in wire_format.required:
            if name not in request:
                return _refusal(wire_format, 400, f"{name}: field required")
        return _encode(await self._next_reply(received), request, wire_format)

    def _read_only(self, received: Received, wire_format: WireFormat) -> _Answer:
        anthropic = wire_format is MESSAGES
        if received.path == "/v1/models":
            body = models.anthropic(self._models) if anthropic else models.openai(self._models)
            return _Answer([body], length_known=True)
        model = received.path.removeprefix("/v1/models/")
        if model in self._models:
            body = models.anthropic_model(model) if anthropic else models.openai_model(model)
            return _Answer([body], length_known=True)
        return _not_found(received, wire_format)


@dataclass(frozen=True, slots=True)
class _Answer:
    pieces: Iterable[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length_known: bool = False
    delay: float = 0.0
    hang_up: bool = False

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        given = {"content-type": "application/json", **{name.lower(): value for name, value in self.headers.items()}}
        if self.length_known:
            given["content-length"] = str(sum(map(len, self.pieces)))
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]


def _encode(reply: Reply, request: Mapping[str, Any], wire_format: WireFormat) -> _Answer:
    streamed = request.get("stream") is True
    refusal = reply.refusal(streamed=streamed)
    headers = {wire_format.request_id_header: f"req_{uuid4().hex}", **reply.headers}
    if refusal is None and streamed:
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", **headers}
        events = wire_format.stream(reply, request)
        return _Answer(events, headers=headers, delay=reply.delay, hang_up=reply.hang_up)
    if refusal is None:
        body = wire_format.blocking(reply, request)
    else:
        body = wire_format.error(refusal, reply.error or f"the script refuses with {refusal}")
    if reply.hang_up:
        headers["content-length"] = str(len(body))
        return _Answer([body[: len(body) // 2]], refusal or 200, headers, delay=reply.delay, hang_up=True)
    return _Answer([body], refusal or 200, headers, length_known=True, delay=reply.delay)


def _refusal(wire_format: WireFormat, status: int, message: str) -> _Answer:
    headers = {wire_format.request_id_header: f"req_{uuid4().hex}"}
    return _Answer([wire_format.error(status, message)], status, headers, length_known=True)


def _not_found(received: Received, wire_format: WireFormat) -> _Answer:
    return _refusal(wire_format, 404, f"the scripted provider has no {received.method} {received.path}")


def _reader(script: Script) -> Callable[[Received], Awaitable[Reply]]:
    """Return the script as a coroutine function that returns the next reply."""
    if isinstance(script, Reply):
        return _always(script)
    if isinstance(script, Sequence):
        return _in_turn(script)

    async def decide(received: Received) -> Reply:
        decided = script(received)
        return await decided if inspect.isawaitable(decided) else decided

    return decide


def _always(reply: Reply) -> Callable[[Received], Awaitable[Reply]]:
    async def answer(_: Received) -> Reply:
        return reply

    return answer


def _in_turn(replies: Sequence[Reply]) -> Callable[[Received], Awaitable[Reply]]:
    rest: Iterator[Reply] = iter(replies)
    # 400, because clients do not retry it: the test ends at once and says why.
    end = Reply(status=400, error=f"the script is over: it has {len(replies)} replies")

    async def answer(_: Received) -> Reply:
        return next(rest, end)

    return answer


async def _read(scope: Scope, receive: Receive) -> Received:
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0].decode("latin-1")
    return Received(scope["method"], path, scope["query_string"].decode("latin-1"), headers, bytes(body))


def _credentials(received: Received) -> tuple[str, str]:
    scheme, _, token = received.headers.get("authorization", "").partition(" ")
    return (token if scheme.lower() == "bearer" else "", received.headers.get("x-api-key", ""))
