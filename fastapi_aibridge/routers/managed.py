"""Admin routes that read, write and remove providers and MCP servers in the database."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic_core import from_json
from starlette.datastructures import Headers

from ..cluster.managed_edit import merged, with_secrets
from ..cluster.managed_form import InvalidSettings, Kind, ManagedEntry, shown, usable
from ..cluster.plain_members import plain_members
from ..cluster.worker import WorkersOutcome
from ..errors import AIBridgeError, SettingsError
from ..host import Host
from ..settings import MCPServerSettings
from .access import AdminAccess, Need
from .admin_routes import UNREADABLE, AdminRoutes, json_answer, problem_list, reading
from .answers import ChangedItem, Invalid, ManagedItem, ManagedItems, Problem

if TYPE_CHECKING:
    from ..cluster.managed_settings import ManagedSettings

logger = logging.getLogger(__name__)

_UNMANAGED = "providers and MCP servers are not managed here: AIBRIDGE_MANAGED is not true"
_CHANGES: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is none of this name, or settings are not managed here."},
    409: {"model": Problem, "description": "It comes from the settings or the app, or there are too many."},
    412: {"model": Problem, "description": "Somebody else has changed it: `If-Match` does not hold."},
    413: {"model": Problem, "description": "The body is too large."},
    422: {"model": Invalid, "description": "What the body says does not validate; nothing was changed."},
    503: {
        "model": Problem,
        "description": "The records cannot be read now; or the change is stored, but not in force, as the text says.",
    },
}


def add_managed_routes(router: APIRouter, host: Host, access: AdminAccess) -> None:
    for kind, place in ((Kind.PROVIDER, "providers"), (Kind.MCP_SERVER, "mcp-servers")):
        _Routes(router, host, access, kind, f"/admin/{place}").add()


class _Routes:
    def __init__(self, router: APIRouter, host: Host, access: AdminAccess, kind: Kind, path: str) -> None:
        self._host = host
        self._actor = access.actor
        self._kind = kind
        self._path = path
        self._route = AdminRoutes(router, access).route

    def add(self) -> None:
        path, route, one = self._path, self._route, f"{self._path}/{{name}}"
        actor = Depends(self._actor)

        @route("GET", one, Need.READ, ManagedItem, _CHANGES)
        async def read(name: str) -> Response:
            """Return an entry of the database without its secrets; `ETag` is for `If-Match`."""
            with reading():
                entry = await self._store().one(self._kind, name)
            return self._answer(self._present(entry))

        @route("PUT", one, Need.CHANGE, ChangedItem, _CHANGES)
        async def put(name: str, request: Request, actor: str = actor) -> Response:
            """Write an entry as a whole. `If-Match` guards against concurrent changes, `If-None-Match: *` only creates.

            A hint that was read stands for its secret.
            """
            return await self._write(name, request, actor, patch=False)

        @route("PATCH", one, Need.CHANGE, ChangedItem, _CHANGES)
        async def patch(name: str, request: Request, actor: str = actor) -> Response:
            """Change the members that the body has, at all depths (RFC 7396); null removes one."""
            return await self._write(name, request, actor, patch=True)

        @route("DELETE", one, Need.CHANGE, None, _CHANGES, 204)
        async def remove(name: str, request: Request, actor: str = actor) -> Response:
            """Remove an entry from the database."""

            def gone(before: ManagedEntry | None) -> None:
                _check(request.headers, self._present(before))

            await self._change(name, gone, actor, "delete")
            return Response(status_code=204)

        if self._kind is Kind.MCP_SERVER:

            @route("GET", path, Need.READ, ManagedItems, UNREADABLE)
            async def listed() -> Response:
                """List all entries without their secrets: those of the settings, then those in the database."""
                with reading():
                    entries = [one for one in await self._store().all() if one.kind is self._kind]
                names = {entry.name for entry in entries if not self._is_fixed(entry.name)}
                in_force = self._host.runtime.settings.mcp_servers.items()
                fixed = {name: _fixed_json(name, server) for name, server in in_force if name not in names}
                managed = [_json(entry) for entry in entries if entry.name not in fixed]
                return json_answer({"items": [*fixed.values(), *managed]})

    def _is_fixed(self, name: str) -> bool:
        return self._host.runtime.is_fixed(self._kind, name)

    def _store(self) -> ManagedSettings:
        if (store := self._host.runtime.managed_settings) is None:
            raise HTTPException(404, _UNMANAGED)
        return store

    async def _write(self, name: str, request: Request, actor: str, *, patch: bool) -> Response:
        self._store()
        given = await _body(request)

        def edited(before: ManagedEntry | None) -> Mapping[str, Any]:
            if patch and (problem := self._present(before).problem) is not None:
                raise SettingsError(f"{problem}; PUT writes it anew")  # otherwise its secrets would be lost
            _check(request.headers, before)
            known = before.body if before is not None else {}
            return merged(known if patch else {}, with_secrets(self._kind, given, known))

        entry, workers = await self._change(name, edited, actor, "patch" if patch else "put")
        return self._answer(self._present(entry), workers)

    async def _change(
        self, name: str, edit: Any, actor: str, action: str
    ) -> tuple[ManagedEntry | None, WorkersOutcome]:
        # Imports SQLAlchemy, which an app without records does not need.
        from ..cluster.managed_settings import TooManyEntries

        store = self._store()
        if self._is_fixed(name):
            raise HTTPException(409, f"{name!r} comes from the settings or the app and can only be changed there")
        try:
            with reading(SettingsError, TooManyEntries):
                entry = await store.change(self._kind, name, edit, actor=actor, action=action)
        except InvalidSettings as error:
            problems = ((one.kind, ("body", *one.place), one.text) for one in error.members)
            raise HTTPException(422, problem_list(problems)) from None
        except SettingsError as error:
            raise HTTPException(422, str(error)) from None
        except TooManyEntries as error:
            raise HTTPException(409, str(error)) from None
        return entry, await self._in_force()

    async def _in_force(self) -> WorkersOutcome:
        """Put the change in force on all workers. Raises `HTTPException` (503) if this worker fails to."""
        try:
            return await self._host.runtime.reloads.follow()
        except Exception as error:
            # The texts of errors other than our own may quote secrets.
            told = str(error) if isinstance(error, AIBridgeError) else type(error).__name__
            logger.warning("a change of managed settings is stored, but not in force: %s", told)
            logger.debug("a change of managed settings is not in force", exc_info=error)
            raise HTTPException(
                503, f"the change is stored, but not in force on this worker: {told}", headers={"Retry-After": "5"}
            ) from None

    def _present(self, entry: ManagedEntry | None) -> ManagedEntry:
        if entry is None:
            raise HTTPException(404, f"there is no such {self._kind.replace('_', ' ')} in the database")
        return entry

    def _answer(self, entry: ManagedEntry, workers: WorkersOutcome | None = None) -> Response:
        answer = json_answer(_json(entry) | ({} if workers is None else {"workers": asdict(workers)}))
        answer.headers["ETag"] = entry.etag
        return answer


def _json(entry: ManagedEntry) -> dict[str, Any]:
    error: str | None = None
    try:
        status = "enabled" if getattr(usable(entry), "enabled", True) else "disabled"
    except SettingsError as reason:
        status, error = "error", str(reason)
    return {
        "name": entry.name,
        "settings": shown(entry.kind, entry.body),
        "etag": entry.etag,
        "managed": True,
        "status": status,
        "error": error,
    }


def _fixed_json(name: str, server: MCPServerSettings) -> dict[str, Any]:
    settings = shown(Kind.MCP_SERVER, plain_members(server, with_secrets=True))
    return {"name": name, "settings": settings, "etag": None, "managed": False, "status": "enabled", "error": None}


def _check(headers: Headers, entry: ManagedEntry | None) -> None:
    """Check the request's preconditions against the entry, by RFC 9110. Raises `HTTPException` (412)."""
    wanted, unwanted = _tags(headers, "if-match"), _tags(headers, "if-none-match")
    # Only `If-None-Match` takes a weak tag for the strong one.
    unwanted = [tag.removeprefix("W/") for tag in unwanted]
    if (wanted and not _names(wanted, entry)) or _names(unwanted, entry):
        raise HTTPException(412, "somebody else has changed this: read it again")


def _tags(headers: Headers, name: str) -> Sequence[str]:
    return [tag.strip() for line in headers.getlist(name) for tag in line.split(",")]


def _names(tags: Sequence[str], entry: ManagedEntry | None) -> bool:
    return entry is not None and ("*" in tags or entry.etag in tags)


async def _body(request: Request) -> dict[str, Any]:
    """Return the body, a JSON object. Raises `HTTPException` (422)."""
    try:
        given = from_json(await request.body(), allow_inf_nan=False)
    except ValueError:
        raise HTTPException(422, [{"type": "json_invalid", "loc": ["body"], "msg": "the body is no JSON"}]) from None
    if not isinstance(given, dict):
        raise HTTPException(422, [{"type": "dict_type", "loc": ["body"], "msg": "the body is no JSON object"}])
    return given
