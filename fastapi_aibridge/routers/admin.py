"""The control plane: reload, metrics, the pool, and interceptions read back."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from ..errors import PoolShutdown, SettingsError
from ..pool import PoolMetrics
from ..providers import Provider
from ..recorder import InterceptionQuery, InterceptionStore, InvalidCursor, record_json
from ..recorder.export import ExportFormat, export
from ..recorder.text import dump_bytes
from ..recorder.usage import UsageQuery, UsageStore, usage_json
from .access import AdminAccess, Need
from .answers import InterceptionItem, InterceptionPage, Invalid, Problem, ProviderStates, Reload, UsageItems
from .queries import Export, Listing, Summary, refuse_unknown_parameters

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)


_NO_STORE = "the recorder is switched off (AIBRIDGE_RECORDER__ENABLED), or it is the app's own and cannot be read back"
_MEDIA_TYPES = {ExportFormat.JSONL: "application/jsonl", ExportFormat.CSV: "text/csv; charset=utf-8"}


class Administration(Protocol):
    """What the routes need of the plugin."""

    @property
    def registry(self) -> CollectorRegistry: ...

    async def reload(self) -> object:
        """Read all settings again and swap the providers. The value has the members of `answers.Reload`.

        Raises `SettingsError`, and `PoolShutdown` where the app stops.
        """

    def pool_metrics(self) -> PoolMetrics: ...

    def providers(self) -> Sequence[Provider]:
        """Those in force."""

    async def store(self) -> InterceptionStore | None:
        """The recorder that can be read back, if there is one."""

    async def usage_store(self) -> UsageStore | None:
        """The recorder that can add up what it holds, if there is one."""


class _AdminRoute(APIRoute):
    """No answer of these routes, a refusal included, may stay in a cache or be taken for another type."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_GUARDS]}
            await send(message)

        await super().handle(scope, receive, guarded)


_GUARDS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No valid credential was given."},
    403: {"model": Problem, "description": "The credential does not open this route."},
    422: {"model": Invalid, "description": "A parameter is unknown or has no valid value."},
}
_UNREADABLE: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such record, or there are no records to read."},
    503: {"model": Problem, "description": "The records cannot be read now."},
}


def add_admin_routes(router: APIRouter, administration: Administration, access: AdminAccess) -> None:
    """Add the routes; nobody whom `access` does not let through gets an answer."""

    def route(
        method: str,
        path: str,
        need: Need,
        model: Any,
        responses: Mapping[int | str, dict[str, Any]] = MappingProxyType({}),
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            router.add_api_route(
                path,
                endpoint,
                methods=[method],
                response_model=model,
                dependencies=[*access.dependencies(need), Depends(refuse_unknown_parameters)],
                responses={**_REFUSALS, **responses},
                tags=["aibridge"],
                route_class_override=_AdminRoute,
            )
            return endpoint

        return add

    @route("POST", "/admin/reload", Need.CHANGE, Reload,
           {422: {"model": Invalid, "description": "The settings do not validate; nothing was changed."}})  # fmt: skip
    async def reload() -> Any:
        """Read the settings' sources again and swap the providers; running requests are not touched."""
        try:
            return await administration.reload()
        except SettingsError as error:
            raise HTTPException(422, str(error)) from None
        except PoolShutdown as error:
            raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from None

    # Not before: it brings HTTP and WSGI servers along.
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    @route("GET", "/admin/metrics", Need.METRICS, None, {200: {"content": {CONTENT_TYPE_LATEST: {}}}})
    async def metrics() -> Response:
        """Prometheus exposition."""
        return Response(generate_latest(administration.registry), media_type=CONTENT_TYPE_LATEST)

    @route("GET", "/admin/pool", Need.READ, PoolMetrics)
    async def pool() -> Response:
        """The pool's counters."""
        metrics = administration.pool_metrics()
        counts = {field.name: getattr(metrics, field.name) for field in fields(metrics)}
        return _json(counts | {"evictions": dict(metrics.evictions)})

    @route("GET", "/admin/providers", Need.READ, ProviderStates)
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

    @route("GET", "/admin/interceptions", Need.READ, InterceptionPage, _UNREADABLE)
    async def interceptions(chosen: Annotated[Listing, Query()], store: InterceptionStore = Depends(store)) -> Response:
        """Interceptions, newest first, a page at a time."""
        with _reading():
            page = await store.list(InterceptionQuery(**chosen.model_dump()))
        return _json({"items": [record_json(record) for record in page.items], "next_cursor": page.next_cursor})

    @route("GET", "/admin/interceptions/export", Need.READ, None,
           {**_UNREADABLE, 200: {"content": {name: {} for name in _MEDIA_TYPES.values()}}})  # fmt: skip
    async def exported(
        chosen: Annotated[Export, Query()], store: InterceptionStore = Depends(store)
    ) -> StreamingResponse:
        """All interceptions that match, as JSON lines or CSV, in any number."""
        query = InterceptionQuery(**chosen.model_dump(exclude={"format"}))
        chunks = export(store, query, format=chosen.format)
        with _reading():
            first = await anext(chunks)
        return StreamingResponse(_together(first, chunks), media_type=_MEDIA_TYPES[chosen.format])

    @route("GET", "/admin/usage", Need.READ, UsageItems, _UNREADABLE)
    async def usage(chosen: Annotated[Summary, Query()], store: UsageStore = Depends(usage_store)) -> Response:
        """Calls and tokens, added up by day, initiator, provider, model or client; `by` may come several times."""
        query = UsageQuery(by=tuple(chosen.by), **chosen.model_dump(exclude={"by"}))
        with _reading():
            rows = await store.usage(query)
        return _json({"items": [usage_json(query, row) for row in rows]})

    @route("GET", "/admin/interceptions/{interception_id}", Need.READ, InterceptionItem, _UNREADABLE)
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
                "initiator_id": circuit.initiator,
                "state": circuit.state,
                "failures": circuit.failures,
                "until": until(circuit.retry_in),
            }
            for circuit in provider.breakers
        ],
    }


def _json(value: object) -> Response:
    return Response(dump_bytes(value), media_type="application/json")
