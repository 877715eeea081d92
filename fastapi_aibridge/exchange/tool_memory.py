"""What has to be remembered between two requests because the client never sees injected calls."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cachetools import LRUCache

from ..formats.rounds import Held

HELD_SIZE = 32 * 1024 * 1024
"""Bytes of tool results that are held, for all principals together."""
ALIASES = 50_000
MAX_ID = 512
"""Characters of an id; a longer one is not remembered, because providers choose them."""
_STORED = "/v1/responses/"
_COUNTED = re.compile(r"(.*[^A-Za-z0-9])?[0-9]{0,5}")
"""Ids such as `call_0` or `functions.read:1`, which some providers give out again in each conversation."""

Owner = tuple[str, str, str]
"""Whose memory: the principal's key and the provider's name. Nobody reaches another's."""


class ToolMemory:
    """Bounded: the least recently used goes first. What is lost costs the model a second look, nothing else."""

    def __init__(self) -> None:
        self._held: LRUCache[tuple[Owner, str], Held] = LRUCache(HELD_SIZE, getsizeof=lambda held: held.size)
        self._aliases: LRUCache[tuple[Owner, str], str] = LRUCache(ALIASES)

    def of(self, owner: Owner) -> OwnMemory:
        return OwnMemory(self._held, self._aliases, owner)


class OwnMemory:
    """What one principal can remember of one provider."""

    def __init__(
        self, held: LRUCache[tuple[Owner, str], Held], aliases: LRUCache[tuple[Owner, str], str], owner: Owner
    ) -> None:
        self._held = held
        self._aliases = aliases
        self._owner = owner

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered of anybody: most apps never get to remember anything."""
        return not self._held and not self._aliases

    def hold(self, call_ids: Iterable[str], held: Held) -> None:
        """Keep it until the client comes with the results of its own calls of the same turn."""
        if held.size <= HELD_SIZE:
            for call_id in call_ids:
                if len(call_id) <= MAX_ID and not _COUNTED.fullmatch(call_id):
                    self._held[self._owner, call_id] = held

    def held(self, call_id: str) -> Held | None:
        """What is held of the response in which the client's tool was called under this id."""
        return self._held.get((self._owner, call_id)) if self._held else None

    def name(self, seen: str, stands_for: str) -> None:
        """Remember which response a response id that the client has seen stands for."""
        if len(seen) <= MAX_ID and len(stands_for) <= MAX_ID:
            self._aliases[self._owner, seen] = stands_for

    def named(self, seen: str) -> str:
        """The response that an id which the client has seen stands for; mostly itself."""
        return self._aliases.get((self._owner, seen), seen)

    def path(self, raw_path: str) -> str:
        """The path upstream of a stored response that a client asks for, changes or deletes: that of the response
        which holds the whole. What it answers is the provider's own, under the provider's own id.
        """
        if not self._aliases or not raw_path.startswith(_STORED):
            return raw_path
        seen, slash, rest = raw_path.removeprefix(_STORED).partition("/")
        return f"{_STORED}{self.named(seen)}{slash}{rest}"
