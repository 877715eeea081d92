"""The audit of what was changed through the admin routes and the command line, read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol

from fastapi import APIRouter, HTTPException, Query, Response

from .access import AdminAccess, Need
from .admin_routes import NO_STORE, UNREADABLE, AdminRoutes, json_answer, reading
from .answers import AuditItems
from .queries import AuditListing

if TYPE_CHECKING:
    from ..recorder.database import Database


class InDatabase(Protocol):
    """What the routes need of the plugin."""

    async def database(self) -> Database | None:
        """The recorder's database; None where records go elsewhere, or nowhere."""


def add_audit_routes(router: APIRouter, administration: InDatabase, access: AdminAccess) -> None:
    route = AdminRoutes(router, access).route

    @route("GET", "/admin/audit", Need.READ, AuditItems, UNREADABLE)
    async def audit(chosen: Annotated[AuditListing, Query()]) -> Response:
        """Changes, newest first, a page at a time. Secrets are masked."""
        from ..cluster.audit import read_page  # SQLAlchemy, which an app without records need not load

        with reading():
            if (database := await administration.database()) is None:
                raise HTTPException(404, f"there is no audit: {NO_STORE}")
            async with database.reading() as connection:
                page = await read_page(connection, limit=chosen.limit, cursor=chosen.cursor, object=chosen.object)
        return json_answer({"items": [entry.json() for entry in page.items], "next_cursor": page.next_cursor})
