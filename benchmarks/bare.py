"""What both bare relays share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

from starlette.types import Receive, Scope, Send

NOT_UP = {b"host", b"content-length", b"connection", b"transfer-encoding"}
NOT_DOWN = {b"connection", b"transfer-encoding", b"keep-alive"}


class BareRelay(ABC):
    """An ASGI app that relays every request with one client, which is open while the app runs."""

    @abstractmethod
    def client(self) -> AbstractAsyncContextManager[object]: ...

    @abstractmethod
    async def relay(self, scope: Scope, body: bytes, send: Send) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        if scope["type"] == "http":
            body = message["body"]
            while message["more_body"]:
                message = await receive()
                body += message["body"]
            await self.relay(scope, body, send)
        elif scope["type"] == "lifespan":
            async with self.client():
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
