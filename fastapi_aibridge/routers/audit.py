"""The admin route that reads the audit of changes by the admin routes and the command line."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response

from ..host import Host
from ..recorder.jsonform import members
from .access import AdminAccess, Need
from .admin_routes import NO_STORE, UNREADABLE, AdminRoutes, json_answer, reading
from .answers import AuditItems
from .queries import AuditListing


def add_audit_routes(router: APIRouter, host: Host, access: AdminAccess) -> None:
    route = AdminRoutes(router, access).route

    @route("GET", "/admin/audit", Need.READ, AuditItems, UNREADABLE)
    async def audit(chosen: Annotated[AuditListing, Query()]) -> Response:
        """List changes, newest first, a page at a time. Secrets are masked."""
        from ..cluster.audit import read_page  # imports SQLAlchemy, which not every app needs

        with reading():
            if (database := await host.runtime.database()) is None:
                raise HTTPException(404, f"there is no audit: {NO_STORE}")
            async with database.reading() as connection:
                page = await read_page(connection, limit=chosen.limit, cursor=chosen.cursor, object=chosen.object)
        return json_answer({"items": [members(entry) for entry in page.items], "next_cursor": page.next_cursor})
