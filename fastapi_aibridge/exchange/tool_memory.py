"""Remembers injected tool calls and their results between requests, because the client never sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from typing import Protocol

import msgspec
from cachetools import LRUCache

from ..errors import RedisUnavailable
from ..formats.rounds import Held, Memory
from .fair_queue import Share
from .steps import in_steps

HELD_SIZE = 32 * 1024 * 1024
"""Bytes of tool results that are held, for all principals together."""
ALIASES = 50_000
UNKNOWN = 50_000
"""Ids, unknown to all workers, that Redis is not asked for again."""
MAX_ID = 512
"""Characters of an id; a longer one is not remembered, because providers choose them."""
_STORED = "/v1/responses/"
_COUNTED = re.compile(r"(.*[^A-Za-z0-9])?[0-9]{0,5}")
"""Ids such as `call_0` or `functions.read:1`, which some providers give out again in each conversation."""
_ALIAS = "response:"
"""The prefix of aliases among the shared ids."""
SHARED_SIZE = 512 * 1024
"""Bytes of one shared entry; larger ones stay in the process."""

Owner = tuple[str, str, str]
"""The owner of memories: the principal's key and the provider's name. Nobody can read another owner's."""


class SharedMemory(Protocol):
    """The memory that all workers share. Its methods raise `RedisUnavailable`."""

    async def put(self, owner: Owner, ids: Collection[str], data: bytes) -> None:
        """Store the data under each of the ids."""

    async def get(self, owner: Owner, ids: Sequence[str]) -> list[tuple[bytes, list[str]]]:
        """Return the stored data, each with those of the ids under which it was found."""


class ToolMemory:
    """The memory of one process, bounded; the least recently used entries are dropped first. After a loss the model at
    worst calls its tools again.

    With `shared`, workers find each other's entries, and this memory is a cache of them.
    """

    def __init__(self, shared: SharedMemory | None = None) -> None:
        self.shared = shared
        self._held: LRUCache[tuple[Owner, str], Held] = LRUCache(HELD_SIZE, getsizeof=lambda held: held.size)
        self._aliases: LRUCache[tuple[Owner, str], str] = LRUCache(ALIASES)
        self._unknown: LRUCache[tuple[Owner, str], None] = LRUCache(UNKNOWN)

    def of(self, owner: Owner) -> OwnMemory:
        return OwnMemory(self._held, self._aliases, self._unknown, owner, self.shared)

    def forget(self, initiator_id: str) -> None:
        """Forget everything of an initiator in this process."""
        for cache in (self._held, self._aliases, self._unknown):
            for key in [key for key in cache if key[0][0] == initiator_id]:
                del cache[key]


class OwnMemory:
    """The memory of one owner: of a principal at a provider."""

    __slots__ = ("_aliases", "_held", "_new", "_owner", "_shared", "_unknown")

    def __init__(
        self,
        held: LRUCache[tuple[Owner, str], Held],
        aliases: LRUCache[tuple[Owner, str], str],
        unknown: LRUCache[tuple[Owner, str], None],
        owner: Owner,
        shared: SharedMemory | None = None,
    ) -> None:
        self._held = held
        self._aliases = aliases
        self._unknown = unknown
        self._owner = owner
        self._shared = shared
        self._new: list[tuple[list[str], bytes]] = []

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered of any owner, which is always so in most apps."""
        return not self._held and not self._aliases

    def hold(self, call_ids: Iterable[str], held: Held) -> None:
        """Keep `held` until the client sends the results of its own calls of the same turn, which have these ids."""
        if held.size > HELD_SIZE:
            return
        ids = [call_id for call_id in call_ids if len(call_id) <= MAX_ID and not _COUNTED.fullmatch(call_id)]
        for call_id in ids:
            self._held[self._owner, call_id] = held
            self._unknown.pop((self._owner, call_id), None)
        if self._shared is not None and ids and held.size <= SHARED_SIZE:
            self._new.append((ids, msgspec.msgpack.encode(held)))

    def held(self, call_id: str) -> Held | None:
        """Return what is held of the response that called the client's tool with this id; None if nothing is."""
        return self._held.get((self._owner, call_id)) if self._held else None

    def name(self, seen: str, stands_for: str) -> None:
        """Remember which upstream response a response id stands for that the client has seen."""
        if len(seen) <= MAX_ID and len(stands_for) <= MAX_ID:
            self._aliases[self._owner, seen] = stands_for
            self._unknown.pop((self._owner, _ALIAS + seen), None)
            if self._shared is not None:
                self._new.append(([_ALIAS + seen], stands_for.encode()))

    def named(self, seen: str) -> str:
        """Return the id of the upstream response for a response id that the client has seen; mostly the same."""
        return self._aliases.get((self._owner, seen), seen)

    def path(self, raw_path: str) -> str:
        """Return the upstream path for a request about a stored response, with the id that the provider knows.

        The provider's response to it is relayed as it is, with the provider's own id.
        """
        if not self._aliases or not raw_path.startswith(_STORED):
            return raw_path
        seen, slash, rest = raw_path.removeprefix(_STORED).partition("/")
        return f"{_STORED}{self.named(seen)}{slash}{rest}"

    # Sharing between workers

    @property
    def is_shared(self) -> bool:
        return self._shared is not None

    async def tell(self) -> None:
        """Store new entries for the other workers, before the client can send its next request. Without Redis they
        remain in this process only.
        """
        new, self._new = self._new, []
        if self._shared is None:
            return
        try:
            for ids, data in new:
                await self._shared.put(self._owner, ids, data)
        except RedisUnavailable:
            return

    async def recall(self, restore: Callable[[Memory], Generator[None, None, object]], share: Share) -> None:
        """Fetch the entries that `restore`, which puts them back into a request, will look up."""
        asked = _Asked()
        await in_steps(restore(asked), share)
        await self._learn(asked.calls, asked.responses)

    async def recall_path(self, raw_path: str) -> None:
        """Fetch the alias of the stored response that a path names."""
        if raw_path.startswith(_STORED):
            await self._learn([], [raw_path.removeprefix(_STORED).partition("/")[0]])

    async def _learn(self, calls: Iterable[str], responses: Iterable[str]) -> None:
        owner = self._owner
        names = [one for one in calls if 0 < len(one) <= MAX_ID and (owner, one) not in self._held]
        names += [_ALIAS + one for one in responses if 0 < len(one) <= MAX_ID and (owner, one) not in self._aliases]
        names = [one for one in dict.fromkeys(names) if (owner, one) not in self._unknown]
        if self._shared is None or not names:
            return
        try:
            found = await self._shared.get(owner, names)
        except RedisUnavailable:
            return
        unknown = set(names)
        for data, ids in found:
            unknown.difference_update(ids)
            if ids[0].startswith(_ALIAS):
                self._aliases[owner, ids[0].removeprefix(_ALIAS)] = data.decode()
                continue
            try:
                held = _HELD.decode(data)
            except msgspec.DecodeError:  # written by another version
                continue
            if held.size <= HELD_SIZE:
                for one in ids:
                    self._held[owner, one] = held
        for one in unknown:
            self._unknown[owner, one] = None


_HELD: msgspec.msgpack.Decoder[Held] = msgspec.msgpack.Decoder(Held)


class _Asked:
    """A memory that is empty and notes the ids that are looked up."""

    empty = False

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.responses: list[str] = []

    def held(self, key: str) -> Held | None:
        self.calls.append(key)
        return None

    def named(self, response_id: str) -> str:
        self.responses.append(response_id)
        return response_id
