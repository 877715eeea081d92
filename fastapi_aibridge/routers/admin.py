"""Admin routes for metrics, the pool, providers, and recorded interceptions and usage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from fastapi.responses import StreamingResponse

from ..host import Host
from ..pool.metrics import PoolMetrics
from ..recorder import InterceptionQuery, InterceptionStore, record_json
from ..recorder.export import ExportFormat, export
from ..recorder.usage import UsageQuery, UsageStore, usage_json
from .access import AdminAccess, Need
from .admin_routes import NO_STORE, UNREADABLE, AdminRoutes, json_answer, reading
from .answers import InterceptionItem, InterceptionPage, ProviderStates, UsageItems
from .queries import Export, Listing, Summary

if TYPE_CHECKING:
    from ..cluster.managed_form import BrokenEntry
    from ..providers.provider import Provider

_CSV = "text/csv; charset=utf-8"
_MEDIA_TYPES = {ExportFormat.JSONL: "application/jsonl", ExportFormat.CSV: _CSV, ExportFormat.FOCUS: _CSV}


def add_admin_routes(router: APIRouter, host: Host, access: AdminAccess) -> None:
    """Add the routes, all of which `access` guards."""
    route = AdminRoutes(router, access).route

    # Imported late: it brings HTTP and WSGI servers along.
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    @route("GET", "/admin/metrics", Need.METRICS, None,
           {**UNREADABLE, 200: {"content": {CONTENT_TYPE_LATEST: {}}}})  # fmt: skip
    async def metrics(worker: Annotated[str | None, Query(max_length=64)] = None) -> Response:
        """Return the metrics in Prometheus format; with `worker`, those of one worker of this server."""
        with reading():
            registry = await host.exposed(worker)
        if registry is None:
            raise HTTPException(404, "the metrics of this worker cannot be read from here: scrape it, or its server")
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @route("GET", "/admin/pool", Need.READ, PoolMetrics)
    async def pool() -> Response:
        """Return the pool's counters."""
        metrics = host.pool.metrics()
        counts = {field.name: getattr(metrics, field.name) for field in fields(metrics)}
        return json_answer(counts | {"evictions": dict(metrics.evictions)})

    @route("GET", "/admin/providers", Need.READ, ProviderStates)
    async def providers() -> Response:
        """List the providers, with the state of their keys and of the circuit breakers that are not at rest."""
        told = [
            _provider_json(provider, managed=not host.runtime.is_fixed("provider", provider.name))
            for provider in host.providers()
        ]
        return json_answer({"items": told + [_broken_json(entry) for entry in host.runtime.broken_providers]})

    async def store() -> InterceptionStore:
        with reading():
            found = await host.store()
        if found is None:
            raise HTTPException(404, f"there are no records to read: {NO_STORE}")
        return found

    async def usage_store() -> UsageStore:
        with reading():
            found = await host.usage_store()
        if found is None:
            raise HTTPException(404, f"there are no records to add up: {NO_STORE}")
        return found

    @route("GET", "/admin/interceptions", Need.READ, InterceptionPage, UNREADABLE)
    async def interceptions(chosen: Annotated[Listing, Query()], store: InterceptionStore = Depends(store)) -> Response:
        """List interceptions, newest first, a page at a time."""
        with reading():
            page = await store.list(InterceptionQuery(**chosen.model_dump()))
        return json_answer({"items": [record_json(record) for record in page.items], "next_cursor": page.next_cursor})

    @route("GET", "/admin/interceptions/export", Need.READ, None,
           {**UNREADABLE, 200: {"content": {name: {} for name in _MEDIA_TYPES.values()}}})  # fmt: skip
    async def exported(
        chosen: Annotated[Export, Query()], store: InterceptionStore = Depends(store)
    ) -> StreamingResponse:
        """Export all interceptions that match, in any number, as JSON lines, CSV or charges of FOCUS 1.2."""
        query = InterceptionQuery(**chosen.model_dump(exclude={"format"}))
        chunks = export(store, query, format=chosen.format)
        with reading():
            first = await anext(chunks)
        return StreamingResponse(_together(first, chunks), media_type=_MEDIA_TYPES[chosen.format])

    @route("GET", "/admin/usage", Need.READ, UsageItems, UNREADABLE)
    async def usage(chosen: Annotated[Summary, Query()], store: UsageStore = Depends(usage_store)) -> Response:
        """Add up calls and tokens by day, initiator, provider, model or client; `by` may be repeated."""
        query = UsageQuery(by=tuple(chosen.by), **chosen.model_dump(exclude={"by"}))
        with reading():
            rows = await store.usage(query)
        return json_answer({"items": [usage_json(query, row) for row in rows]})

    @route("GET", "/admin/interceptions/{interception_id}", Need.READ, InterceptionItem, UNREADABLE)
    async def interception(interception_id: str, store: InterceptionStore = Depends(store)) -> Response:
        """Return one interception."""
        with reading():
            record = await store.get(interception_id)
        if record is None:
            raise HTTPException(404, "there is no such interception")
        return json_answer(record_json(record))


async def _together(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _broken_json(entry: BrokenEntry) -> dict[str, Any]:
    told = {"name": entry.name, "type": entry.type, "status": "error", "base_url": "", "keys": [], "breakers": []}
    return {**told, "managed": True, "error": entry.error}


def _provider_json(provider: Provider, *, managed: bool) -> dict[str, Any]:
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
                "initiator_id": circuit.initiator,
                "state": circuit.state,
                "failures": circuit.failures,
                "until": until(circuit.retry_in),
            }
            for circuit in provider.breakers
        ],
        "managed": managed,
        "error": None,
    }
