"""Whose the objects are that are stored at a provider under the organisation's key: what one caller made, no other
may read, go on from, change or delete.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..errors import GatewayError, RecorderUnavailable
from ..formats.references import Reference
from ..recorder.owners import ObjectOwners

logger = logging.getLogger(__name__)

_SHOWN = 80
"""Characters of an id in an error."""


Account = tuple[str, ...]
"""Names of providers that call the same API: what one of them stores can be read through the others."""


class Ownership:
    """`refuse_foreign`: ids of objects that nobody made through this gateway are refused, too."""

    def __init__(self, owners: ObjectOwners, *, refuse_foreign: bool = False) -> None:
        self._owners = owners
        self._refuse_foreign = refuse_foreign

    async def check(self, initiator_id: str, account: Account, references: Iterable[Reference]) -> None:
        """Raises `GatewayError`: 404 where an object is another's, as where there is none, and 503 where that cannot
        be found out now.
        """
        for kind, id_ in dict.fromkeys(references):
            owner = await self._owner(account, id_) if id_ else None
            if owner == initiator_id or (owner is None and not self._refuse_foreign):
                continue
            if owner is not None:
                logger.warning("%r asked for the %s %r of another", initiator_id, kind, id_[:_SHOWN])
            raise _missing(kind, id_)

    async def _owner(self, account: Account, id_: str) -> str | None:
        try:
            for name in account:
                if (owner := await self._owners.owner(name, id_)) is not None:
                    return owner
        except RecorderUnavailable:
            message = "the gateway cannot look up whose object that is; try again"
            raise GatewayError(503, "recorder_unavailable", message, headers={"retry-after": "5"}) from None
        return None

    async def note(
        self, initiator_id: str, provider: str, made: Iterable[Reference], interception_id: str | None = None
    ) -> None:
        """Remember who made these. A recorder that cannot is logged: the answer is under way already."""
        for kind, id_ in made:
            try:
                await self._owners.note(provider, id_, initiator_id, kind, interception_id)
            except RecorderUnavailable:
                logger.error("the owner of a new %s could not be recorded", kind)  # noqa: TRY400 - an outage is told once


def _missing(kind: str, id_: str) -> GatewayError:
    """In the words of OpenAI's own."""
    return GatewayError(404, "not_found", f"{kind.capitalize()} with id '{id_[:_SHOWN]}' not found.")
