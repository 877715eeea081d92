"""Admin routes that erase the records of an initiator."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Request

from ..errors import RedisUnavailable
from ..host import Host
from ..principal import MAX_ID
from .access import AdminAccess, Need
from .admin_routes import NO_STORE, UNREADABLE, AdminRoutes, reading
from .answers import Erased

logger = logging.getLogger(__name__)

InitiatorId = Annotated[str, Path(min_length=1, max_length=MAX_ID)]


def add_initiator_routes(router: APIRouter, host: Host, access: AdminAccess) -> None:
    route = AdminRoutes(router, access).route

    @route("DELETE", "/admin/initiators/{initiator_id:path}/content", Need.CHANGE, Erased, UNREADABLE)
    async def erase_content(initiator_id: InitiatorId, request: Request, actor: str = Depends(access.actor)) -> Any:
        """Erase prompts, thoughts, errors, and arguments and errors of tools; the calls and their costs are kept."""
        if request.scope.get("raw_path", b"").lower().endswith(b"%2fcontent"):
            # The slash was encoded, so it belongs to the id.
            return await erased(f"{initiator_id}/content", actor, everything=True)
        return await erased(initiator_id, actor, everything=False)

    @route("DELETE", "/admin/initiators/{initiator_id:path}", Need.CHANGE, Erased, UNREADABLE)
    async def erase_all(initiator_id: InitiatorId, actor: str = Depends(access.actor)) -> Any:
        """Erase all records of the initiator, including their sums."""
        return await erased(initiator_id, actor, everything=True)

    async def erased(initiator_id: str, actor: str, *, everything: bool) -> dict[str, int]:
        from ..cluster.erasure import erase  # imports SQLAlchemy, which not every app needs

        with reading():
            if (database := await host.runtime.database()) is None:
                raise HTTPException(404, f"there is nothing to erase: {NO_STORE}")
            count = await erase(database, initiator_id, everything=everything, actor=actor)
        try:
            await host.runtime.forget(initiator_id)
        except RedisUnavailable:
            logger.warning("Redis is away: what it holds of an initiator who was erased ends within a day by itself")
        return {"interceptions": count}
