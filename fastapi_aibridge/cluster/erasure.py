"""Erasing one initiator from all that workers share, on demand."""

from __future__ import annotations

from ..recorder.database import Database
from ..recorder.erasure import ask, carry_out
from . import audit


async def erase(database: Database, initiator_id: str, *, everything: bool, actor: str) -> int:
    """Erase what an initiator said until now, or `everything` that is recorded of them; returns of how many
    interceptions. Those that run are erased once they have ended. The audit keeps who was erased, when and by whom.

    May be called again, and goes on where it was interrupted. Raises what the database's driver raises.
    """
    async with database.writing() as connection:
        await ask(connection, initiator_id, everything=everything)
        await audit.record(
            connection,
            actor=actor,
            action="initiator.erase" if everything else "initiator.erase_content",
            object=f"initiator/{initiator_id}",
        )
    return await carry_out(database, initiator_id)
