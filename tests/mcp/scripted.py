"""An MCP server of the handshake era on a raw socket, each of whose responses a test can choose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.loopback import Headers, Loopback, Request, read_request, response_head

Message = dict[str, Any]
Answer = bytes | AsyncIterator[bytes]
JSON = (("Content-Type", "application/json"),)
STREAM = (("Content-Type", "text/event-stream"), ("Connection", "close"))


def whole(body: object, status: int = 200, headers: Headers = JSON) -> bytes:
    """A whole response; a body that is not bytes is written as JSON."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return response_head(status, (*headers, ("Content-Length", str(len(encoded))))) + encoded


def result(number: object, value: object) -> Message:
    return {"jsonrpc": "2.0", "id": number, "result": value}


def error(number: object, code: int, text: str, data: object = None) -> Message:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text, "data": data}}


def event(message: object) -> bytes:
    return b"data: " + json.dumps(message).encode() + b"\n\n"


def tool(name: str = "look", schema: object = None, **more: object) -> Message:
    return {"name": name, "description": "Looks.", "inputSchema": schema or {"type": "object"}, **more}


TEXT = {"content": [{"type": "text", "text": "ok"}]}


class ScriptedServer(Loopback):
    """A server that lists `tools` and answers each call with `TEXT`, unless a test replaces its functions."""

    def __init__(self, *tools: object) -> None:
        super().__init__()
        self.tools: list[object] = list(tools) or [tool()]
        self.capabilities: object = {"tools": {}}
        self.sessions: set[str] = set()
        self.opened = 0
        self.methods: list[str] = []
        self.requests: list[Request] = []
        self.calls: list[Message] = []
        self.connections = 0
        # Hooks for a test: each gets the message, and None means the usual response.
        self.before: Callable[[Request, Message], Answer | None] = lambda _, __: None
        self.on_list: Callable[[Message], Answer | None] = lambda _: None
        self.on_call: Callable[[Message], Answer | None] = lambda _: None
        self.on_lost: Callable[[Message], Answer] = lambda message: whole(error(message.get("id"), -32001, "?"), 404)
        self.headers: Headers = ()

    @property
    def mcp(self) -> str:
        return f"{self.url}/mcp"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            request = await read_request(reader)
            self.requests.append(request)
            message = json.loads(request.body) if request.body else {}
            self.methods.append(message.get("method") or request.method)
            answer = self.before(request, message) or self._answer(request, message)
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
                continue
            async for piece in answer:
                writer.write(piece)
                await writer.drain()
            return

    def _answer(self, request: Request, message: Message) -> Answer:
        number, method = message.get("id"), message.get("method")
        if request.method != "POST":
            return whole(b"", 405)
        if method == "server/discover":
            return whole(error(number, -32601, "Method not found"))
        if method == "initialize":
            self.opened += 1
            session = f"s{self.opened}"
            self.sessions.add(session)
            agreed = {"protocolVersion": "2025-06-18", "capabilities": self.capabilities}
            return whole(result(number, agreed), headers=(*JSON, ("Mcp-Session-Id", session), *self.headers))
        if request.header("mcp-session-id") not in self.sessions:
            return self.on_lost(message)
        if number is None or method is None:
            return whole(b"", 202)
        if method == "tools/list":
            return self.on_list(message) or whole(result(number, {"tools": self.tools}))
        self.calls.append(message["params"])
        return self.on_call(message) or whole(result(number, TEXT))


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    """A response as an event stream, at whose end the connection closes."""
    yield response_head(200, STREAM)
    for piece in pieces:
        yield piece
