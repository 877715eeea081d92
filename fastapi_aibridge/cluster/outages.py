"""Outages of providers, shared between workers: circuit breakers that open, and keys that rest.

A message says how long the provider or key is left alone at first; each worker decides for itself when the outage is
over. Redis keeps the message for that time, for workers that start meanwhile or missed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any, TypeVar

import msgspec

from ..errors import RedisUnavailable
from ..providers.provider import Provider
from ..upstream.keys import Credential
from .redis import Script, SharedRedis

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CHANNEL = "outages"
MOST_AT_ONCE = 64
"""Messages that are sent at the same time; further ones are dropped."""
MOST_KEPT = 1000
"""Outages that Redis keeps; those that end last stay."""

# Arguments: milliseconds of the outage, the most outages kept, the outage, and the message for subscribers.
_TELL = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[1], 'GT', string.format('%.0f', now + ARGV[1]), ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[2])
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if last[2] then redis.call('PEXPIREAT', KEYS[1], last[2]) end
redis.call('PUBLISH', KEYS[2], ARGV[4])
"""
# Returns the outages still in force, each with the milliseconds left.
_LEFT = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf', 'WITHSCORES')
for place = 2, #found, 2 do found[place] = found[place] - now end
return found
"""

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]


class _Opened(msgspec.Struct, tag="opened"):
    provider: str
    route: str
    model: str


class _Rested(msgspec.Struct, tag="rested"):
    provider: str
    key: str


_Outage = _Opened | _Rested


class Outages:
    """Announces this worker's outages to the others, and applies theirs. `providers` returns the providers in force."""

    def __init__(self, redis: SharedRedis, providers: Callable[[], Iterable[Provider]]) -> None:
        self._redis = redis
        self._providers = providers
        self._tasks: set[asyncio.Task[None]] = set()
        self._tell_all = redis.script(_TELL)
        self._left = redis.script(_LEFT)
        redis.subscribe(_CHANNEL, self._hear, lambda: self._begin(self._catch_up()))

    def watch(self, providers: Iterable[Provider]) -> None:
        """Announce the outages of these providers from now on."""
        for provider in providers:
            provider.breakers.opened = partial(self._opened, _mark(provider))
            provider.keys.rested = partial(self._rested, _mark(provider))

    def _opened(self, provider: str, route: str, model: str, seconds: float) -> None:
        self._begin(self._tell(_Opened(provider, route, model), seconds))

    def _rested(self, provider: str, credential: Credential, seconds: float) -> None:
        self._begin(self._tell(_Rested(provider, _digest(credential.key)), seconds))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= MOST_AT_ONCE:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, outage: _Outage, seconds: float) -> None:
        about, message = (msgspec.msgpack.encode(one) for one in (outage, (outage, seconds)))
        await self._run(self._tell_all, round(seconds * 1000), MOST_KEPT, about, message)

    async def _catch_up(self) -> None:
        """Apply the outages of other workers whose messages may have been missed."""
        found = await self._run(self._left) or []
        for about, left in zip(found[::2], found[1::2], strict=True):
            self._take(_decoded(_OUTAGE, about), float(left) / 1000)

    async def _run(self, script: Script, *arguments: bytes | int) -> Any:
        """Run a script. Returns None if Redis is unavailable; the message may be lost then."""
        keys = (self._redis.key(_CHANNEL), self._redis.channel(_CHANNEL))
        with suppress(RedisUnavailable):
            return await self._redis.call(lambda client: script(client, *arguments, keys=keys))

    def _hear(self, data: bytes) -> None:
        outage, seconds = _decoded(_MESSAGE, data) or (None, 0.0)
        self._take(outage, seconds)

    def _take(self, outage: _Outage | None, seconds: float) -> None:
        for provider in self._providers():
            if outage is None or _mark(provider) != outage.provider:
                continue
            if isinstance(outage, _Rested):
                key = outage.key
                provider.keys.hear(lambda credential: _digest(credential.key) == key, seconds)  # noqa: B023
            elif outage.route in provider.intercepted:
                provider.breakers.hear(outage.route, outage.model, seconds)

    async def aclose(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)


_OUTAGE: msgspec.msgpack.Decoder[_Outage] = msgspec.msgpack.Decoder(_Outage)
_MESSAGE: msgspec.msgpack.Decoder[tuple[_Outage, float]] = msgspec.msgpack.Decoder(tuple[_Outage, _Seconds])


def _decoded(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T | None:
    try:
        return decoder.decode(data)
    except msgspec.DecodeError:  # sent by another version
        logger.debug("what another worker says of an outage cannot be read")
        return None


def _mark(provider: Provider) -> str:
    """An identifier of a provider by its name and address, the same in all workers."""
    return f"{provider.name} {provider.base_url}"


def _digest(key: str) -> str:
    """A digest by which workers that have the key recognize it, and which does not reveal the key."""
    return blake2b(key.encode(), digest_size=16).hexdigest()
