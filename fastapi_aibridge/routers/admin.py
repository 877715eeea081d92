"""The control plane: reload, metrics, the pool, and interceptions read back."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Protocol

import orjson
from fastapi import APIRouter, Depends, HTTPException, Query, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, Field, model_validator

from ..errors import SettingsError
from ..pool import PoolMetrics
from ..providers import Provider
from ..recorder import InterceptionQuery, InterceptionStore, InvalidCursor, record_json
from ..recorder.export import ExportFormat, export
from ..recorder.usage import UsageBy, UsageQuery, UsageStore, usage_json

logger = logging.getLogger(__name__)


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


class Filters(BaseModel):
    """Which interceptions are meant. The bounds in time are half open; a parameter without a value is not set."""

    initiator_id: str | None = None
    provider: str | None = None
    model: str | None = None
    session_id: str | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: Any) -> Any:
        # Many HTTP clients write `cursor=` for a cursor that is None.
        return {name: value for name, value in values.items() if value != ""} if isinstance(values, dict) else values


# One model for all of a route's query: older FastAPI takes a model beside other parameters for one named `chosen`.


class Listing(Filters):
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    cursor: str | None = None


class Export(Filters):
    format: ExportFormat = ExportFormat.JSONL


class Summary(Filters):
    by: list[UsageBy] = []


_NO_STORE = "the recorder is switched off (AIBRIDGE_RECORDER__ENABLED), or it is the app's own and cannot be read back"
_MEDIA_TYPES = {ExportFormat.JSONL: "application/jsonl", ExportFormat.CSV: "text/csv; charset=utf-8"}


class Administration(Protocol):
    """What the routes need of the plugin."""

    @property
    def registry(self) -> CollectorRegistry: ...

    async def reload(self) -> Reload:
        """Read all settings again and swap the providers. Raises `SettingsError`."""

    def pool_metrics(self) -> PoolMetrics: ...

    def providers(self) -> Sequence[Provider]:
        """Those in force."""

    async def store(self) -> InterceptionStore | None:
        """The recorder that can be read back, if there is one."""

    async def usage_store(self) -> UsageStore | None:
        """The recorder that can add up what it holds, if there is one."""


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

    @get("/admin/providers", response_class=Response)
    async def providers() -> Response:
        """The providers, with the state of their keys and of the circuit breakers that are not at rest."""
        return _json({"items": [_provider_json(provider) for provider in administration.providers()]})

    async def store() -> InterceptionStore:
        with _reading():
            found = await administration.store()
        if found is None:
            raise HTTPException(404, f"there are no records to read: {_NO_STORE}")
        return found

    async def usage_store() -> UsageStore:
        with _reading():
            found = await administration.usage_store()
        if found is None:
            raise HTTPException(404, f"there are no records to add up: {_NO_STORE}")
        return found

    @get("/admin/interceptions", response_class=Response)
    async def interceptions(chosen: Annotated[Listing, Query()], store: InterceptionStore = Depends(store)) -> Response:
        """Interceptions, newest first, a page at a time."""
        with _reading():
            page = await store.list(InterceptionQuery(**chosen.model_dump()))
        return _json({"items": [record_json(record) for record in page.items], "next_cursor": page.next_cursor})

    @get("/admin/interceptions/export", response_class=StreamingResponse)
    async def exported(
        chosen: Annotated[Export, Query()], store: InterceptionStore = Depends(store)
    ) -> StreamingResponse:
        """All interceptions that match, as JSON lines or CSV, in any number."""
        query = InterceptionQuery(**chosen.model_dump(exclude={"format"}))
        chunks = export(store, query, format=chosen.format)
        with _reading():
            first = await anext(chunks)
        return StreamingResponse(_together(first, chunks), media_type=_MEDIA_TYPES[chosen.format])

    @get("/admin/usage", response_class=Response)
    async def usage(chosen: Annotated[Summary, Query()], store: UsageStore = Depends(usage_store)) -> Response:
        """Calls and tokens, added up by day, initiator, provider, model or client; `by` may come several times."""
        query = UsageQuery(by=tuple(chosen.by), **chosen.model_dump(exclude={"by"}))
        with _reading():
            rows = await store.usage(query)
        return _json({"items": [usage_json(query, row) for row in rows]})

    @get("/admin/interceptions/{interception_id}", response_class=Response)
    async def interception(interception_id: str, store: InterceptionStore = Depends(store)) -> Response:
        """One interception."""
        with _reading():
            record = await store.get(interception_id)
        if record is None:
            raise HTTPException(404, "there is no such interception")
        return _json(record_json(record))


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever a store raises while its database is away becomes 503: it may be the app's own, or a driver's error."""
    try:
        yield
    except InvalidCursor:
        raise HTTPException(400, "the cursor is not one that this list handed out") from None
    except Exception as error:
        # The text may quote what was asked for.
        logger.warning("the records cannot be read: %s", type(error).__name__)
        logger.debug("the records cannot be read", exc_info=error)
        raise HTTPException(503, "the records cannot be read now", {"Retry-After": "5"}) from None


async def _together(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _provider_json(provider: Provider) -> dict[str, Any]:
    now = datetime.now(UTC)

    def until(seconds: float) -> str | None:
        return (now + timedelta(seconds=seconds)).isoformat(timespec="seconds") if seconds else None

    return {
        "name": provider.name,
        "type": provider.type,
        "status": provider.status,
        "base_url": provider.base_url,
        "keys": [
            {"hint": key.hint, "state": "resting" if key.resting_for else "ready", "until": until(key.resting_for)}
            for key in provider.keys
        ],
        "breakers": [
            {
                "route": circuit.route,
                "model": circuit.model,
                "state": circuit.state,
                "failures": circuit.failures,
                "until": until(circuit.retry_in),
            }
            for circuit in provider.breakers
        ],
    }


def _json(value: object) -> Response:
    return Response(orjson.dumps(value, default=str), media_type="application/json")
