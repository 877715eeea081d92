"""The state that this process shares with others through Redis, put together from the settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Self

from ..settings import Settings

if TYPE_CHECKING:
    from ..providers.provider import Provider
    from .outages import Outages
    from .redis import SharedRedis
    from .redis_memory import RedisMemory

logger = logging.getLogger(__name__)

_ERASED = "erased"
"""The Redis channel that announces erased initiators."""


async def forget_initiator(redis: SharedRedis, initiator_id: str) -> None:
    """Delete what Redis remembers of an initiator, and have all workers do the same. Raises `RedisUnavailable`."""
    from .redis_memory import memory_of

    await redis.delete(memory_of(initiator_id))
    await redis.publish(_ERASED, initiator_id.encode())


class SharedState:
    """Redis and the features that use it, as an async context manager. Without `REDIS_URL` it is empty, and no Redis
    module is imported.

    Raises `SettingsError` if an extra is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self.redis: SharedRedis | None = None
        self.memory: RedisMemory | None = None
        """The memory of tool rounds; None without `SECRET_KEYS`, because it is stored only encrypted."""
        self.outages: Outages | None = None
        if settings.redis_url is None:
            return
        from .redis import SharedRedis

        self.redis = SharedRedis(settings.redis_url.get_secret_value(), prefix=settings.redis_prefix)
        if settings.secret_keys:
            from .cipher import Cipher
            from .redis_memory import RedisMemory

            self.memory = RedisMemory(self.redis, Cipher(settings.secret_keys))

    async def __aenter__(self) -> Self:
        if self.redis is not None:
            await self.redis.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.outages is not None:
            await self.outages.aclose()
        if self.redis is not None:
            await self.redis.__aexit__()

    def follow_outages(self, providers: Callable[[], Iterable[Provider]]) -> None:
        """Share the outages of the providers in force with other workers, in both directions."""
        if self.redis is not None:
            from .outages import Outages

            self.outages = Outages(self.redis, providers)
            self.outages.watch(providers())

    def watch(self, providers: Iterable[Provider]) -> None:
        """Share the outages of these providers, which are about to be in force."""
        if self.outages is not None:
            self.outages.watch(providers)

    def components(self, *, has_tools: bool) -> dict[str, str]:
        """The state of Redis and of the tool memory, for `/readyz?verbose`."""
        if self.redis is None:
            return {}
        found = {"redis": "ok" if self.redis.available else "away"}
        if has_tools:
            found["tool_memory"] = "in this process only: SECRET_KEYS is not set" if self.memory is None else "ok"
        return found

    def warn_of_what_is_missing(self, *, has_tools: bool) -> None:
        if self.redis is not None and self.memory is None and has_tools:
            logger.warning(
                "AIBRIDGE_SECRET_KEYS is not set, so results of tools are kept in each process alone: a conversation "
                "that goes on in another worker or replica loses those that its client has not seen"
            )

    def when_erased(self, forget: Callable[[str], None]) -> None:
        """Call `forget` with each initiator that any worker erases."""
        if self.redis is not None:
            self.redis.subscribe(_ERASED, lambda data: forget(data.decode()))

    async def erase(self, initiator_id: str) -> None:
        """Delete what Redis and all workers remember of an initiator. Raises `RedisUnavailable`."""
        if self.redis is not None:
            await forget_initiator(self.redis, initiator_id)
