"""Routes by which callers read their own records and budgets, with their own credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from starlette.types import Receive, Scope, Send

from ..errors import GatewayError, PrincipalError
from ..host import Host
from ..principal import Principal
from ..recorder import InterceptionQuery, InterceptionRecord, record_json
from ..recorder.text import dump_bytes
from ..recorder.usage import UsageQuery, usage_json
from .admin_routes import GUARD_HEADERS, NO_STORE, UNREADABLE, GuardedRoute, json_answer, reading
from .answers import InterceptionPage, Invalid, OwnUsage, Problem
from .openapi import CallerScheme
from .queries import OwnListing, OwnSummary, refuse_unknown_parameters

if TYPE_CHECKING:
    from ..exchange.body_budget import Holding

_REFUSALS: dict[int | str, dict[str, Any]] = {
    **UNREADABLE,
    401: {"model": Problem, "description": "No valid credential was given."},
    422: {"model": Invalid, "description": "A parameter is unknown or has no valid value."},
}
_HIDDEN = "an error; administrators see its text"
"""Replaces errors in records, which may name hosts and tools that callers do not know of."""


def add_me_routes(router: APIRouter, host: Host, principal: Callable[..., Any]) -> None:
    """Add the routes; `principal` is the dependency that returns the caller."""

    async def caller(given: object = Depends(principal)) -> Principal:
        if not isinstance(given, Principal):
            raise HTTPException(500, "the principal dependency must return a Principal")
        return given

    def route(path: str, model: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            router.add_api_route(
                path,
                endpoint,
                methods=["GET"],
                response_model=model,
                dependencies=[Depends(CallerScheme()), Depends(refuse_unknown_parameters)],
                responses=_REFUSALS,
                tags=["aibridge"],
                route_class_override=_OwnRoute,
            )
            return endpoint

        return add

    @route("/me/usage", OwnUsage)
    async def usage(chosen: Annotated[OwnSummary, Query()], caller: Principal = Depends(caller)) -> Response:
        """Return the caller's calls, tokens and cost, and the budgets that apply to the caller."""
        given = chosen.model_dump(exclude={"by"})
        query = UsageQuery(by=tuple(chosen.by), initiator_id=caller.initiator_id, **given)
        with reading():
            store = await host.usage_store()
            rows = [] if store is None else await store.usage(query)
            budgets = await host.runtime.budgets.states(caller)
        return json_answer(
            {"items": [usage_json(query, row) for row in rows], "budgets": [budget.json() for budget in budgets]}
        )

    @route("/me/interceptions", InterceptionPage)
    async def interceptions(chosen: Annotated[OwnListing, Query()], caller: Principal = Depends(caller)) -> Response:
        """List the caller's interceptions, newest first, a page at a time."""
        with reading():
            store = await host.store()
            if store is None:
                raise HTTPException(404, f"there are no records to read: {NO_STORE}")
            page = await store.list(InterceptionQuery(initiator_id=caller.initiator_id, **chosen.model_dump()))
        # Filtered again: an app's own recorder may filter less well than this promises.
        own = [record for record in page.items if record.interception.initiator_id == caller.initiator_id]
        body = dump_bytes({"items": list(map(_own_json, own)), "next_cursor": page.next_cursor})
        return _HeldAnswer(body, host.runtime.holding(caller.initiator_id))


def _own_json(record: InterceptionRecord) -> dict[str, Any]:
    """Return a record without what is internal to the gateway: which of its keys paid, and texts of errors."""
    shown = record_json(record)
    if shown["credential_kind"] != "byok":
        shown["credential_hint"] = None
    if shown["error"] is not None:
        shown["error"] = _HIDDEN
    for usage in shown["tool_usages"]:
        if usage["injected"] and usage["error"] is not None:
            usage["error"] = _HIDDEN
    return shown


class _HeldAnswer(Response):
    """A page of some MiB, which counts against the caller's memory until the client has taken it."""

    media_type = "application/json"

    def __init__(self, body: bytes, holding: Holding) -> None:
        super().__init__(body)
        self._holding = holding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from ..exchange.response_writer import send_rest  # part of the engine, which the start has loaded by now

        try:
            self._holding.hold_answer(len(self.body))
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send_rest(send, bytes(self.body))
        except GatewayError as error:
            refusal = json_answer({"detail": error.message}, error.status)
            refusal.headers.update(error.headers)
            await refusal(scope, receive, send)
        finally:
            self._holding.release()


class _OwnRoute(GuardedRoute):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().handle(scope, receive, send)
        except PrincipalError as error:
            if not error.by_caller:
                raise
            response = json_answer({"detail": str(error)}, 400)
            response.headers.update(GUARD_HEADERS)
            await response(scope, receive, send)
