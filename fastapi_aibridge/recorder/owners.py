"""Owners of provider objects: responses, conversations, files and other objects that later requests can name."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol, runtime_checkable

MOST_OWNERS = 20_000
"""Objects whose owners a process remembers."""


@runtime_checkable
class ObjectOwners(Protocol):
    """A recorder that knows the owners of provider objects. The provider's name and the object's id there identify an
    object.
    """

    async def owner(self, provider: str, object_id: str) -> str | None:
        """Return the id of the initiator who made the object through the gateway; None if it is not known.

        Raises `RecorderUnavailable`.
        """

    async def note(
        self, provider: str, object_id: str, initiator_id: str, kind: str, interception_id: str | None = None
    ) -> None:
        """Store the owner of an object; the first one noted stays. `owner` returns it at once in this process, a moment
        later in others.
        """


class MemoryOwners:
    """The owners of the `max_items` objects that this process used last; stands in for recorders without owners."""

    def __init__(self, max_items: int = MOST_OWNERS) -> None:
        if max_items < 1:
            raise ValueError(f"max_items must be at least 1, not {max_items!r}")
        self._max_items = max_items
        self._owners: OrderedDict[tuple[str, str], str] = OrderedDict()

    @property
    def count(self) -> int:
        """The number of owners. Not `len()`, which would make an empty recorder of a subclass false."""
        return len(self._owners)

    def known(self, provider: str, object_id: str) -> str | None:
        key = (provider, object_id)
        owner = self._owners.get(key)
        if owner is not None:
            self._owners.move_to_end(key)
        return owner

    def remember(self, provider: str, object_id: str, initiator_id: str) -> bool:
        """Store the owner unless the object has one. Returns whether it was stored."""
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
    """Return the recorder itself if it knows owners, else a new `MemoryOwners`."""
    return recorder if isinstance(recorder, ObjectOwners) else MemoryOwners()
