"""The app: an AI gateway at `/ai`, and a handler of its own that uses the caller's bridge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from example_app.offline import OfflineServer
from example_app.settings import SettingsSource
from example_app.tracing import set_up_tracing
from fastapi_aibridge import AIBridge, RequestBridge, get_bridge


class Provider(BaseModel):
    name: str
    type: str


class Me(BaseModel):
    """Who the caller is to the gateway, and whom they can talk to through it."""

    initiator_id: str
    providers: list[Provider]


async def me(bridge: Annotated[RequestBridge, Depends(get_bridge)]) -> Me:
    return Me(
        initiator_id=bridge.principal.initiator_id,
        providers=[Provider(name=provider.name, type=provider.type) for provider in bridge.providers],
    )


def create_app() -> FastAPI:
    settings = SettingsSource(OfflineServer())
    flush_traces = set_up_tracing()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Around the gateway's lifespan, which comes with its router: running requests may still need the provider.
        try:
            yield
        finally:
            settings.offline.stop()
            if flush_traces:
                await asyncio.to_thread(flush_traces)

    aibridge = AIBridge(settings=settings)
    app = FastAPI(title="AI bridge example", lifespan=lifespan)
    app.state.settings = settings
    app.include_router(aibridge.router, prefix="/ai")
    app.get("/me")(me)
    if flush_traces:
        aibridge.instrument(app)
    return app


app = create_app()
