"""A gateway on a real socket with the fault proxy before its provider, and its recorder."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from fastapi_aibridge import AIBridge, Ending
from tests.e2e.gateway import client
from tests.e2e.gateway.bodies import Wire
from tests.e2e.gateway.client import Answer
from tests.e2e.gateway.gateway import CountingRecorder, settings_for
from tests.e2e.gateway.server import served
from tests.waiting import until

from .model import Model
from .proxy import FaultProxy

LIMIT = 20.0
"""Seconds that any response may take; the gateway's own timeout is 0.2."""


@dataclass(frozen=True, slots=True)
class GatewayHarness:
    port: int
    aibridge: AIBridge
    proxy: FaultProxy
    recorder: CountingRecorder

    async def ask(self, wire: Wire, *, stream: bool) -> Answer:
        return await asyncio.wait_for(
            client.request(self.port, "POST", wire.target, wire.ask(stream=stream)), timeout=LIMIT
        )

    async def ending(self, answer: Answer) -> Ending:
        """Return the ending of the interception, after checking that it started and ended once."""
        interception_id = answer.header("x-aibridge-interception-id")
        assert interception_id is not None
        await until(lambda: interception_id in self.recorder.ends, LIMIT)
        record = await self.recorder.get(interception_id)
        assert record is not None
        assert record.ending is not None
        assert self.recorder.ends.count(interception_id) == self.recorder.starts.count(interception_id) == 1
        return record.ending


@asynccontextmanager
async def harness(
    *, tls: ssl.SSLContext | None = None, https: bool = False, **provider: Any
) -> AsyncIterator[GatewayHarness]:
    """Start a gateway with a base URL of `https` or not, whatever the proxy speaks; `provider` are its settings."""
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(Model())
        proxy = await stack.enter_async_context(FaultProxy(model.port, tls=tls))
        recorder = CountingRecorder()
        url = proxy.url.replace("http:", "https:") if https else proxy.url
        limits = {"read_timeout": 0.2, "connect_timeout": 0.2, **provider}
        aibridge = AIBridge(settings_for(url, providers=limits), recorder=recorder)
        app = FastAPI()
        app.include_router(aibridge.router, prefix="/ai")
        server = await stack.enter_async_context(served(app))
        yield GatewayHarness(server.port, aibridge, proxy, recorder)
