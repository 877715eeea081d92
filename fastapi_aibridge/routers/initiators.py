"""Erasing what is recorded of an initiator."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path

from ..principal import MAX_ID
from .access import AdminAccess, Need
from .admin_routes import NO_STORE, UNREADABLE, AdminRoutes, reading
from .answers import Erased
from .audit import InDatabase

InitiatorId = Annotated[str, Path(min_length=1, max_length=MAX_ID)]


def add_initiator_routes(router: APIRouter, administration: InDatabase, access: AdminAccess) -> None:
    route = AdminRoutes(router, access).route

    @route("DELETE", "/admin/initiators/{initiator_id:path}/content", Need.CHANGE, Erased, UNREADABLE)
    async def erase_content(initiator_id: InitiatorId, actor: str = Depends(access.actor)) -> Any:
        """Erase prompts, arguments and errors of tools, thoughts and errors; who called what at which cost stays."""
        return await erased(initiator_id, actor, everything=False)

    @route("DELETE", "/admin/initiators/{initiator_id:path}", Need.CHANGE, Erased, UNREADABLE)
    async def erase_all(initiator_id: InitiatorId, actor: str = Depends(access.actor)) -> Any:
        """Erase all records of the initiator, their sums included."""
        return await erased(initiator_id, actor, everything=True)

    async def erased(initiator_id: str, actor: str, *, everything: bool) -> dict[str, int]:
        from ..cluster.erasure import erase  # SQLAlchemy, which an app without records need not load

        with reading():
            if (database := await administration.database()) is None:
                raise HTTPException(404, f"there is nothing to erase: {NO_STORE}")
            return {"interceptions": await erase(database, initiator_id, everything=everything, actor=actor)}
