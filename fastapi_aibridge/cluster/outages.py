"""What one worker finds out of a provider, told to the others: breakers that open, keys that rest.

Each still decides for itself when it is over: what is told is how long the provider is left alone at first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b
from typing import Annotated

import msgspec

from ..providers.provider import Provider
from ..upstream.keys import Credential
from .redis import SharedRedis

logger = logging.getLogger(__name__)

_CHANNEL = "outages"
MOST_AT_ONCE = 64
"""Messages that are on their way; further ones are dropped."""

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]


class _Opened(msgspec.Struct, tag="opened"):
    provider: str
    route: str
    model: str
    seconds: _Seconds


class _Rested(msgspec.Struct, tag="rested"):
    provider: str
    key: str
    seconds: _Seconds


class Outages:
    """`providers` gives those that are in force when a message comes."""

    def __init__(self, redis: SharedRedis, providers: Callable[[], Iterable[Provider]]) -> None:
        self._redis = redis
        self._providers = providers
        self._telling: set[asyncio.Task[bool]] = set()
        redis.subscribe(_CHANNEL, self._hear)

    def watch(self, providers: Iterable[Provider]) -> None:
        """Tell the others what these find out from now on."""
        for provider in providers:
            provider.breakers.opened = partial(self._opened, _mark(provider))
            provider.keys.rested = partial(self._rested, _mark(provider))

    def _opened(self, provider: str, route: str, model: str, seconds: float) -> None:
        self._tell(_Opened(provider, route, model, seconds))

    def _rested(self, provider: str, credential: Credential, seconds: float) -> None:
        self._tell(_Rested(provider, _digest(credential.key), seconds))

    def _tell(self, message: _Opened | _Rested) -> None:
        if len(self._telling) < MOST_AT_ONCE:
            task = asyncio.get_running_loop().create_task(
                self._redis.publish(_CHANNEL, msgspec.msgpack.encode(message))
            )
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    def _hear(self, data: bytes) -> None:
        try:
            message = _MESSAGE.decode(data)
        except msgspec.DecodeError:  # of another version
            logger.debug("a message of another worker on an outage cannot be read")
            return
        for provider in self._providers():
            if _mark(provider) != message.provider:
                continue
            if isinstance(message, _Rested):
                key = message.key
                provider.keys.hear(lambda credential: _digest(credential.key) == key, message.seconds)  # noqa: B023
            elif message.route in provider.intercepted:
                provider.breakers.hear(message.route, message.model, message.seconds)

    async def aclose(self) -> None:
        if self._telling:
            await asyncio.wait(self._telling, timeout=1.0)


_MESSAGE: msgspec.msgpack.Decoder[_Opened | _Rested] = msgspec.msgpack.Decoder(_Opened | _Rested)


def _mark(provider: Provider) -> str:
    """The same in all workers for a provider of this name and address."""
    return f"{provider.name} {provider.base_url}"


def _digest(key: str) -> str:
    """By which a worker that has the key knows it; it does not tell others the key."""
    return blake2b(key.encode(), digest_size=16).hexdigest()
