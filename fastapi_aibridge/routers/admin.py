"""The control plane: reload, metrics, the pool, and interceptions read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Protocol

import orjson
from fastapi import APIRouter, Depends, HTTPException, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel

from ..errors import SettingsError
from ..pool import PoolMetrics
from ..recorder import InterceptionQuery, InterceptionStore, InvalidCursor, record_json


class ReloadedProvider(BaseModel):
    name: str
    type: str
    status: str
    """`enabled` or `disabled`."""


class Reload(BaseModel):
    """What a reload did."""

    provider_version: int
    providers: list[ReloadedProvider]
    retired_bridges: int


class Administration(Protocol):
    """What the routes need of the plugin."""

    @property
    def registry(self) -> CollectorRegistry: ...

    async def reload(self) -> Reload:
        """Read all settings again and swap the providers. Raises `SettingsError`."""

    def pool_metrics(self) -> PoolMetrics: ...

    def store(self) -> InterceptionStore | None:
        """The recorder that can be read back, if there is one."""


def add_admin_routes(router: APIRouter, administration: Administration, guard: Callable[..., Any]) -> None:
    """Add the routes; nobody whom `guard` does not let through gets an answer."""
    get = partial(router.get, dependencies=[Depends(guard)], tags=["aibridge"])
    post = partial(router.post, dependencies=[Depends(guard)], tags=["aibridge"])

    @post("/admin/reload", responses={422: {"description": "The settings do not validate; nothing was changed."}})
    async def reload() -> Reload:
        """Read the settings' sources again and swap the providers; running requests are not touched."""
        try:
            return await administration.reload()
        except SettingsError as error:
            raise HTTPException(422, str(error)) from None

    @get("/admin/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE_LATEST: {}}}})
    async def metrics() -> Response:
        """Prometheus exposition."""
        return Response(generate_latest(administration.registry), media_type=CONTENT_TYPE_LATEST)

    @get("/admin/pool")
    async def pool() -> dict[str, Any]:
        """The pool's counters."""
        metrics = administration.pool_metrics()
        counts = {field.name: getattr(metrics, field.name) for field in fields(metrics)}
        return counts | {"evictions": dict(metrics.evictions)}

    def store() -> InterceptionStore:
        if (found := administration.store()) is None:
            raise HTTPException(404, "this app's recorder cannot be read back")
        return found

    @get("/admin/interceptions", response_class=Response)
    async def interceptions(
        *,
        store: InterceptionStore = Depends(store),
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: str | None = None,
        initiator_id: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        session_id: str | None = None,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
    ) -> Response:
        """Interceptions, newest first, a page at a time."""
        query = InterceptionQuery(
            limit=limit,
            cursor=cursor,
            initiator_id=initiator_id,
            provider=provider,
            model=model,
            session_id=session_id,
            started_after=started_after,
            started_before=started_before,
        )
        try:
            page = await store.list(query)
        except InvalidCursor:
            raise HTTPException(400, "the cursor is not one that this list handed out") from None
        return _json({"items": [record_json(record) for record in page.items], "next_cursor": page.next_cursor})

    @get("/admin/interceptions/{interception_id}", response_class=Response)
    async def interception(interception_id: str, store: InterceptionStore = Depends(store)) -> Response:
        """One interception."""
        record = await store.get(interception_id)
        if record is None:
            raise HTTPException(404, "there is no such interception")
        return _json(record_json(record))


def _json(value: object) -> Response:
    return Response(orjson.dumps(value, default=str), media_type="application/json")
