"""Data that later requests of a principal need, kept in Redis for any worker: encrypted, bounded in size and time."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from .cipher import Cipher
from .limit_rules import digest
from .redis import SharedRedis

if TYPE_CHECKING:
    from redis.asyncio import Redis

KEPT = 24 * 3600
"""Seconds after its last use until an owner's memory is dropped."""
OWNER_SIZE = 8 * 2**20
"""Bytes kept for one owner; the oldest items are dropped."""
MAX_SIZE = 2**20
"""Bytes of one encrypted item; a larger one stays in the process."""
MAX_IDS = 4096
"""Ids that are looked up at once: the last ones of a long history."""

Owner = tuple[str, str, str]
"""An initiator, their key, and the provider's name. No owner can read another's items."""

# A hash maps each id to the name of an item, and each name to the item's data. A list holds the names, oldest first,
# each with its ids and its size.
_PUT = """
local kept, order = KEYS[1], KEYS[2]
local name, data, most, seconds = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local ids = {}
for number = 5, #ARGV do
  ids[#ids + 1] = ARGV[number]
  redis.call('HSET', kept, 'i' .. ARGV[number], name)
end
redis.call('HSET', kept, 'd' .. name, data)
redis.call('RPUSH', order, cmsgpack.pack({name, #data, ids}))
local size = redis.call('HINCRBY', kept, 'size', #data)
while size > most do
  local oldest = redis.call('LPOP', order)
  if not oldest then break end
  oldest = cmsgpack.unpack(oldest)
  redis.call('HDEL', kept, 'd' .. oldest[1])
  for _, id in ipairs(oldest[3]) do
    if redis.call('HGET', kept, 'i' .. id) == oldest[1] then redis.call('HDEL', kept, 'i' .. id) end
  end
  size = redis.call('HINCRBY', kept, 'size', -oldest[2])
end
redis.call('EXPIRE', kept, seconds)
redis.call('EXPIRE', order, seconds)
"""
_GET = """
local kept = KEYS[1]
local found, places = {}, {}
for number = 2, #ARGV do
  local name = redis.call('HGET', kept, 'i' .. ARGV[number])
  local data = name and not places[name] and redis.call('HGET', kept, 'd' .. name)
  if data then
    found[#found + 1] = {data}
    places[name] = found[#found]
  end
  if name and places[name] then table.insert(places[name], number - 1) end
end
if #found > 0 then
  redis.call('EXPIRE', kept, ARGV[1])
  redis.call('EXPIRE', KEYS[2], ARGV[1])
end
return found
"""


class RedisMemory:
    """Items by owner and id. Its methods raise `RedisUnavailable`."""

    def __init__(self, redis: SharedRedis, cipher: Cipher) -> None:
        self._redis = redis
        self._cipher = cipher
        self._put = redis.script(_PUT)
        self._get = redis.script(_GET)

    @property
    def available(self) -> bool:
        return self._redis.available

    async def put(self, owner: Owner, ids: Collection[str], data: bytes) -> None:
        """Store an item under each of the ids. Does nothing if it is too large."""
        token = self._cipher.encrypted(msgspec.msgpack.encode((owner, data)))
        if len(token) > MAX_SIZE:
            return
        name = os.urandom(8).hex()
        arguments = [name, token, OWNER_SIZE, KEPT, *(_id(one) for one in ids)]
        await self._redis.call(lambda client: self._run(client, self._put, owner, arguments))

    async def get(self, owner: Owner, ids: Sequence[str]) -> list[tuple[bytes, list[str]]]:
        """Return the items stored under these ids, each with the ids that lead to it."""
        asked = ids[-MAX_IDS:]
        arguments = [KEPT, *(_id(one) for one in asked)]
        answer = await self._redis.call(lambda client: self._run(client, self._get, owner, arguments))
        found = []
        for token, *places in answer:
            if (plain := self._cipher.decrypted(token)) is None:
                continue
            whose, data = _PAIR.decode(plain)
            # Whoever can write to Redis must not be able to give one owner's item to another.
            if whose == owner:
                found.append((data, [asked[place - 1] for place in places]))
        return found

    async def _run(self, client: Redis, script: Any, owner: Owner, arguments: Sequence[Any]) -> Any:
        begins = f"{memory_of(owner[0])}{digest(chr(0).join(owner))}"
        keys = [self._redis.key(f"{begins}:kept"), self._redis.key(f"{begins}:order")]
        return await script(client, *arguments, keys=keys)


_PAIR: msgspec.msgpack.Decoder[tuple[Owner, bytes]] = msgspec.msgpack.Decoder(tuple[Owner, bytes])


def memory_of(initiator_id: str) -> str:
    """The prefix of the keys that hold an initiator's items."""
    return f"memory:{digest(f'initiator:{initiator_id}')}:"


def _id(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()
