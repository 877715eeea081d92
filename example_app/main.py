"""The app: an AI gateway at `/ai`, and handlers of its own that use the caller's bridge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
from fastapi import FastAPI

from example_app import handlers
from example_app.offline import OfflineServer
from example_app.settings import SettingsSource
from example_app.tools import ToolServer
from example_app.tracing import set_up_tracing
from fastapi_aibridge import AIBridge


def create_app() -> FastAPI:
    settings = SettingsSource(OfflineServer(), ToolServer())
    flush_traces = set_up_tracing()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Around the gateway's lifespan, which comes with its router: running requests may still need the provider.
        try:
            yield
        finally:
            settings.offline.stop()
            settings.tools.stop()
            if flush_traces:
                await asyncio.to_thread(flush_traces)

    aibridge = AIBridge(settings=settings)
    app = FastAPI(title="AI bridge example", lifespan=lifespan)
    app.state.settings = settings
    app.state.aibridge = aibridge
    app.include_router(aibridge.router, prefix="/ai")
    app.include_router(handlers.router)
    app.exception_handler(openai.APIStatusError)(handlers.model_failed)
    if flush_traces:
        aibridge.instrument(app)
    return app


app = create_app()
