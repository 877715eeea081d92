"""A real MCP server on loopback, made with the official library, that counts and can misbehave."""

from __future__ import annotations

import asyncio
import base64
import threading
from contextlib import ExitStack
from typing import Any, Self

from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.e2e.gateway.server import served_in_thread

PIXEL = base64.b64encode(b"\x89PNG not really").decode()
ARCHIVE = base64.b64encode(b"PK\x03\x04 not really").decode()
BEEP = base64.b64encode(b"RIFF\x04\x00\x00\x00WAVE").decode()


class _Announcing(Server[Any]):
    def create_initialization_options(self, *args: Any, **options: Any) -> InitializationOptions:
        return super().create_initialization_options(NotificationOptions(tools_changed=True))


class _Events(EventStore):
    """The stored events of streams, for clients that resume them."""

    def __init__(self) -> None:
        self._events: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        stream = self._events[int(last_event_id) - 1][0]
        for number, (stream_id, message) in enumerate(self._events, start=1):
            if number > int(last_event_id) and stream_id == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


class ToolServer:
    """A server whose tools cover every kind of result, failure and change.

    Tools: `echo`, `fail`, `boom`, `slow`, `huge`, `picture`, `structured`, `resources`, `grow`, `safe_to_repeat`.
    `handshake` refuses the later protocol, as an older server would; `announcing` announces changes of its list.
    """

    def __init__(
        self,
        *,
        handshake: bool = False,
        announcing: bool = False,
        stateless: bool = False,
        json_response: bool = False,
        page_size: int = 100,
        resumable: bool = False,
        token: str | None = None,
    ) -> None:
        self.handshake = handshake
        self.announcing = announcing
        self.stateless = stateless
        self.json_response = json_response
        self.page_size = page_size
        self.resumable = resumable
        self.token = token
        self.extra: list[str] = []
        self.schema: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string"}}}
        self.unknown_status = 404
        self.redirect: str | None = None
        self.silent = False
        self.port = 0
        self.gate = threading.Event()  # `slow` waits for it
        # Observations, written by the server's thread.
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.methods: list[str] = []
        self.open_sessions: set[str] = set()
        self.opened = 0
        self.listeners = 0
        self.running = 0
        self.cancelled = 0
        self._dropped: set[str] = set()
        self._bus = InMemorySubscriptionBus()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving = ExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def cancels(self) -> bool:
        """Whether the library's server can stop a tool whose caller has disconnected."""
        return not self.stateless if self.handshake else not self.json_response

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        """Start the server, on the same port as before."""
        kind = _Announcing if self.announcing else Server
        server = kind(
            "box",
            on_list_tools=self._list,
            on_call_tool=self._call,
            on_subscriptions_listen=ListenHandler(self._bus) if self.announcing else None,
        )
        app = server.streamable_http_app(
            stateless_http=self.stateless,
            json_response=self.json_response,
            event_store=_Events() if self.resumable else None,
            retry_interval=50 if self.resumable else None,
        )
        serving = served_in_thread(self._watch(app), port=self.port, lifespan="on", timeout_graceful_shutdown=0)
        self.port = self._serving.enter_context(serving).port

    def down(self) -> None:
        """Stop the server and forget all sessions, as an ending process does."""
        self._serving.close()
        self.open_sessions.clear()

    def drop_sessions(self) -> None:
        self._dropped |= self.open_sessions
        self.open_sessions.clear()

    def announce(self) -> None:
        """Announce a change of the list to clients that subscribed by the later protocol."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._bus.publish(ToolsListChanged()), self._loop).result()

    def _watch(self, app: ASGIApp) -> ASGIApp:
        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            self._loop = asyncio.get_running_loop()
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            session = headers.get("mcp-session-id", "")
            self.headers.append(headers)
            self.methods.append(scope["method"])
            if self.silent:
                await asyncio.Event().wait()
            if self.redirect is not None:
                await _answer(send, 307, b"", (b"location", self.redirect.encode()))
                return
            if self.token is not None and headers.get("authorization") != f"Bearer {self.token}":
                await _answer(send, 401, b"no")
                return
            if session in self._dropped:
                error = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: No valid session"}}'
                await _answer(send, self.unknown_status, error, (b"content-type", b"application/json"))
                return
            if self.handshake and headers.get("mcp-protocol-version", "2025") >= "2026":
                error = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Unsupported protocol version"}}'
                await _answer(send, 400, error, (b"content-type", b"application/json"))
                return

            async def watch(message: Message) -> None:
                if message["type"] == "http.response.start" and message["status"] < 300:
                    answered = dict(message["headers"]).get(b"mcp-session-id", b"").decode()
                    if scope["method"] == "DELETE":
                        self.open_sessions.discard(session)
                    elif answered and not session:
                        self.open_sessions.add(answered)
                        self.opened += 1
                await send(message)

            listening = scope["method"] == "GET" or headers.get("mcp-method") == "subscriptions/listen"
            self.listeners += listening
            try:
                await app(scope, receive, watch)
            finally:
                self.listeners -= listening

        return watched

    async def _list(
        self, _: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        names = ["echo", "fail", "boom", "slow", "huge", "picture", "structured", "resources", "grow", "safe_to_repeat"]
        names += self.extra + (["pausing"] if self.resumable else [])
        begin = int(params.cursor) if params and params.cursor else 0
        end = begin + self.page_size
        tools = [
            types.Tool(
                name=name,
                description=f"The tool {name}.",
                input_schema=self.schema,
                annotations=types.ToolAnnotations(idempotent_hint=True) if name == "safe_to_repeat" else None,
            )
            for name in names[begin:end]
        ]
        return types.ListToolsResult(tools=tools, next_cursor=str(end) if end < len(names) else None)

    async def _call(
        self, context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        arguments = dict(params.arguments or {})
        self.calls.append((params.name, arguments))
        self.running += 1
        try:
            return await self._run(context, params.name, arguments)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _run(
        self, context: ServerRequestContext[Any, Any], name: str, arguments: dict[str, Any]
    ) -> types.CallToolResult:
        text = types.TextContent
        match name:
            case "fail":
                return types.CallToolResult(content=[text(text="it failed")], is_error=True)
            case "boom":
                raise ValueError("boom")
            case "pausing":
                assert context.close_sse_stream is not None
                await context.close_sse_stream()
            case "slow" | "safe_to_repeat":
                while not self.gate.is_set():  # noqa: ASYNC110 - the event belongs to another thread
                    await asyncio.sleep(0.005)
            case "huge":
                return types.CallToolResult(content=[text(text="ü" * arguments["size"])])
            case "picture":
                return types.CallToolResult(
                    content=[
                        text(text="Look:"),
                        types.ImageContent(data=PIXEL, mime_type="image/png"),
                        types.AudioContent(data=BEEP, mime_type="audio/wav"),
                    ]
                )
            case "structured":
                return types.CallToolResult(content=[], structured_content={"degrees": 22})
            case "resources":
                contents = types.TextResourceContents(uri="file:///a.txt", text="embedded")
                image = types.BlobResourceContents(uri="file:///a.png", blob=PIXEL, mime_type="image/png")
                archive = types.BlobResourceContents(uri="file:///a.zip", blob=ARCHIVE, mime_type="application/zip")
                return types.CallToolResult(
                    content=[
                        types.EmbeddedResource(resource=contents),
                        types.EmbeddedResource(resource=image),
                        types.EmbeddedResource(resource=archive),
                        types.ResourceLink(name="b", uri="file:///b.txt", description="Another file"),
                    ]
                )
            case "grow":
                self.extra.append(f"extra_{len(self.extra)}")
                await context.session.send_tool_list_changed()
        return types.CallToolResult(content=[text(text=f"{name}: {arguments.get('text', '')}")])


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
