"""Admin routes that create, list and revoke client keys in the database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException, Query, Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict

from ..cluster.client_key import ClientKey, KeyRequest
from ..errors import ConfigurationError, PrincipalError
from ..host import Host
from ..recorder.jsonform import members
from .access import AdminAccess, Need
from .admin_routes import UNREADABLE, AdminRoutes, json_answer, reading
from .answers import ClientKeyItems, NewClientKey, Problem
from .queries import ClientKeyListing

if TYPE_CHECKING:
    from ..cluster.managed_keys import ManagedKeys

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_UNMANAGED = (
    "client keys are not managed here: AIBRIDGE_MANAGED is not true, or the app has a principal dependency of its own"
)
_FIXED: dict[int | str, dict[str, Any]] = {
    **UNREADABLE,
    409: {"model": Problem, "description": "The key comes from the settings and can only be removed there."},
}


def _written_out(value: object) -> object:
    """Refuse all but RFC 3339 text: a number would be taken for seconds since 1970."""
    if value is None or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise ValueError("a moment is written as in RFC 3339: 2026-12-31T00:00:00Z")


class KeyBody(BaseModel):
    """A new key. Null is the same as a missing member: no label, no expiry, no groups, all models."""

    model_config = ConfigDict(extra="forbid")

    initiator_id: str
    label: str | None = None
    expires_at: Annotated[AwareDatetime | None, BeforeValidator(_written_out)] = None
    groups: list[str] | None = None
    models: list[str] | None = None


def add_client_key_routes(router: APIRouter, host: Host, access: AdminAccess) -> None:
    route = AdminRoutes(router, access).route

    def managed() -> ManagedKeys:
        if (keys := host.runtime.managed_keys) is None:
            raise HTTPException(404, _UNMANAGED)
        return keys

    @route("POST", "/admin/client-keys", Need.CHANGE, NewClientKey, UNREADABLE, 201)
    async def create(asked: Annotated[KeyBody, Body()], actor: str = Depends(access.actor)) -> Response:
        """Create a key. `key` is shown only this once, and only its digest is stored."""
        keys = managed()
        try:
            request = KeyRequest(
                initiator_id=asked.initiator_id,
                label=asked.label or "",
                expires_at=asked.expires_at,
                groups=tuple(asked.groups or ()),
                models=None if asked.models is None else tuple(asked.models),
            )
        except (PrincipalError, ValueError) as error:
            raise HTTPException(422, str(error)) from None
        with reading():
            key, text = await keys.create(request, actor)
        return json_answer({"key": text, **members(key)}, 201)

    @route("GET", "/admin/client-keys", Need.READ, ClientKeyItems, UNREADABLE)
    async def listed(chosen: Annotated[ClientKeyListing, Query()]) -> Response:
        """List keys without their texts, newest first, a page at a time; those of the settings come first."""
        keys = managed()
        with reading():
            page = await keys.page(
                host.runtime.settings.client_keys,
                limit=chosen.limit,
                cursor=chosen.cursor,
                initiator_id=chosen.initiator_id,
            )
        return json_answer({"items": [members(key) for key in page.items], "next_cursor": page.next_cursor})

    @route("DELETE", "/admin/client-keys/{key_id}", Need.CHANGE, ClientKey, _FIXED)
    async def revoke(key_id: str, actor: str = Depends(access.actor)) -> Response:
        """Revoke a key. Within two seconds all workers refuse it, and requests that run with it end in an error."""
        keys = managed()
        with reading():
            try:
                key = await keys.revoke(key_id, actor)
            except ConfigurationError as error:
                raise HTTPException(409, str(error)) from None
        if key is None:
            raise HTTPException(404, "there is no such client key")
        return json_answer(members(key))
