"""Who made what at a provider: responses, conversations, files and other objects that later requests can name."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol, runtime_checkable

MOST_OWNERS = 20_000
"""Owners that a process remembers."""


@runtime_checkable
class ObjectOwners(Protocol):
    """A recorder that knows the owners of provider objects. Objects are told apart by the provider's name and their
    id there.
    """

    async def owner(self, provider: str, object_id: str) -> str | None:
        """The id of the initiator who made it through the gateway; None where nobody did.

        Raises `RecorderUnavailable` where it cannot be found out.
        """

    async def note(
        self, provider: str, object_id: str, initiator_id: str, kind: str, interception_id: str | None = None
    ) -> None:
        """Remember who made it. `owner` knows it when this returns, in other processes a moment later. Whoever is
        noted first stays the owner.
        """


class MemoryOwners:
    """The owners of the objects that this process saw last, `max_items` at most: for recorders that keep none."""

    def __init__(self, max_items: int = MOST_OWNERS) -> None:
        if max_items < 1:
            raise ValueError(f"max_items must be at least 1, not {max_items!r}")
        self._max_items = max_items
        self._owners: OrderedDict[tuple[str, str], str] = OrderedDict()

    @property
    def count(self) -> int:
        """Not `len()`: a recorder that is one of these would be false while it knows nobody."""
        return len(self._owners)

    def known(self, provider: str, object_id: str) -> str | None:
        key = (provider, object_id)
        owner = self._owners.get(key)
        if owner is not None:
            self._owners.move_to_end(key)
        return owner

    def remember(self, provider: str, object_id: str, initiator_id: str) -> bool:
        """Returns whether that is news."""
        if self.known(provider, object_id) is not None:
            return False
        self._owners[provider, object_id] = initiator_id
        if len(self._owners) > self._max_items:
            self._owners.popitem(last=False)
        return True

    def forget(self, initiator_id: str) -> None:
        for key in [key for key, owner in self._owners.items() if owner == initiator_id]:
            del self._owners[key]

    async def owner(self, provider: str, object_id: str) -> str | None:
        return self.known(provider, object_id)

    async def note(
        self,
        provider: str,
        object_id: str,
        initiator_id: str,
        kind: str,  # noqa: ARG002
        interception_id: str | None = None,  # noqa: ARG002
    ) -> None:
        self.remember(provider, object_id, initiator_id)


def owners_of(recorder: object) -> ObjectOwners:
    """The recorder itself where it knows owners, else a memory of this process alone."""
    return recorder if isinstance(recorder, ObjectOwners) else MemoryOwners()
