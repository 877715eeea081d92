"""Ownership of objects that are stored at a provider under the organisation's key: only the caller who made an object
may read, continue, change or delete it.
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
"""Names of the providers that call the same API, so that objects stored through one can be read through the others."""


class Ownership:
    """Checks and records owners. With `refuse_foreign`, objects not made through this gateway are refused too."""

    def __init__(self, owners: ObjectOwners, *, refuse_foreign: bool = False) -> None:
        self._owners = owners
        self._refuse_foreign = refuse_foreign

    async def check(self, initiator_id: str, account: Account, references: Iterable[Reference]) -> None:
        """Check that the initiator owns these objects.

        Raises `GatewayError`: 404 if an object is another's, as if it did not exist, and 503 if its owner cannot be
        looked up.
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
        """Record who made these objects. The recorder's errors are only logged, because the object exists already."""
        for kind, id_ in made:
            try:
                await self._owners.note(provider, id_, initiator_id, kind, interception_id)
            except RecorderUnavailable:
                logger.error("the owner of a new %s could not be recorded", kind)  # noqa: TRY400 - an outage is told once


def _missing(kind: str, id_: str) -> GatewayError:
    """Make the error in the words of OpenAI's own."""
    return GatewayError(404, "not_found", f"{kind.capitalize()} with id '{id_[:_SHOWN]}' not found.")
