"""On-demand erasure of one initiator from the tables that all workers share."""

from __future__ import annotations

from ..recorder.database import Database
from ..recorder.erasure import ask, carry_out
from . import audit


async def erase(database: Database, initiator_id: str, *, everything: bool, actor: str) -> int:
    """Erase the content recorded of an initiator until now, or with `everything` all of their records.

    Returns the number of interceptions erased. Those that still run are erased once they have ended. The audit keeps
    who was erased, when and by whom.

    May be called again, and continues where it was interrupted. Raises what the database's driver raises.
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
