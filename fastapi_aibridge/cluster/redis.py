"""The one connection to Redis (or Valkey) that all features share: its keys, its health, its messages.

Redis holds only data that may be lost. So nothing here waits for its return: a call that cannot be answered now raises
`RedisUnavailable` at once, and its caller continues without Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import RedisUnavailable, SettingsError
from ..installing import install_command

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

logger = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT = 0.5
"""Seconds that a connection or a response may take before Redis counts as unavailable."""
CONNECTIONS = 16
"""Commands that run at the same time; others wait."""
PROBE_EVERY = 1.0
"""Seconds between two attempts to reach an unavailable Redis."""
QUIET = 5.0
"""Seconds of silence after which the connection for messages is tested."""

_CANNOT_SERVE = ("LOADING", "READONLY", "MASTERDOWN", "BUSY", "OOM", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")
"""Prefixes of errors that concern Redis itself, not the command."""

Handler = Callable[[bytes], None]


class SharedRedis:
    """One Redis for all features of a process, as an async context manager.

    Entering connects, and does not fail if Redis is unavailable; a lost connection is restored in the background.
    `prefix` begins all keys and channels. Raises `SettingsError` without the extra `redis`, and for an invalid URL.
    """

    def __init__(self, url: str, *, prefix: str = "aibridge:") -> None:
        try:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import ConnectionError as ConnectionBroken
            from redis.exceptions import NoScriptError, RedisError, ResponseError
        except ImportError:
            raise SettingsError(f"AIBRIDGE_REDIS_URL needs the redis package: {install_command('redis')}") from None

        def client(retries: int) -> Redis:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=TIMEOUT,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=Retry(NoBackoff(), retries, supported_errors=(ConnectionBroken,)),
                client_name="aibridge",
            )
            return Redis.from_pool(pool)

        try:
            # A connection that broke while idle says nothing about Redis, so commands are retried once.
            self._client = client(retries=1)
            # A broken connection for messages may have lost some of them, so its failure must be seen.
            self._client_for_messages = client(retries=0)
        except (ValueError, TypeError) as error:
            # Its text may contain the password.
            raise SettingsError(
                "AIBRIDGE_REDIS_URL is no URL of a Redis: redis://host:6379/0, rediss://... for TLS, or "
                "unix:///path/to/socket, with user:password@ before the host where it needs them "
                f"({type(error).__name__})"
            ) from None
        self.failures = 0
        """The number of times that Redis was lost."""
        self._prefix = prefix
        self._away: tuple[type[BaseException], ...] = (RedisError, OSError, TimeoutError)
        self._refusal = ResponseError
        self._no_script = NoScriptError
        self._told_refusals: set[str] = set()
        self._is_available = False
        self._has_been_told = False
        self._probe: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._handlers: dict[bytes, list[tuple[Handler, Callable[[], None] | None]]] = {}
        self._is_listening = False
        self._came_back: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        with suppress(RedisUnavailable):
            await self._check()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for task in (self._probe, self._listener) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._probe = self._listener = None
        for client in (self._client, self._client_for_messages):
            with suppress(*self._away):
                await client.aclose()

    @property
    def available(self) -> bool:
        """Whether Redis answered the last command."""
        return self._is_available

    def key(self, *parts: str) -> str:
        """Return a key with the prefix. The parts must be short: callers digest the ids of initiators."""
        return self._prefix + ":".join(parts)

    def channel(self, name: str) -> str:
        return self.key("told", name)

    async def call(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """Run commands and return their result. Raises `RedisUnavailable`, at once while Redis is known to be lost."""
        if not self._is_available:
            raise RedisUnavailable
        return await self._call(work)

    async def _call(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        try:
            result = await work(self._client)
        except self._away as error:
            if isinstance(error, self._refusal) and not _cannot_serve(error):
                self._refused(str(error))
            else:
                self._lost(error)
            raise RedisUnavailable from None
        if not self._is_available:
            self._found()
        return result

    async def delete(self, begins: str) -> None:
        """Delete all keys that begin with this, by a scan of the whole database. Raises `RedisUnavailable`."""

        async def delete_all(client: Redis) -> None:
            keys = [key async for key in client.scan_iter(match=self.key(begins) + "*", count=1000)]
            for start in range(0, len(keys), 1000):
                await client.unlink(*keys[start : start + 1000])

        await self.call(delete_all)

    def script(self, text: str) -> Script:
        """A Lua script, to be awaited within `call` with the client and its arguments. Its text is sent only once."""
        return Script(text, self._no_script)

    def when_back(self, action: Callable[[], None]) -> None:
        """Call `action` each time that Redis has become available, and now if it is."""
        self._came_back.append(action)
        if self._is_available:
            action()

    # Health

    async def _check(self) -> None:
        """Find out whether Redis serves. It must take a write: one that is full or a replica still answers a ping."""

        async def write(client: Redis) -> None:
            await client.set(self.key("check"), b"", px=1)

        await self._call(write)

    def _found(self) -> None:
        self._is_available = True
        logger.log(logging.WARNING if self._has_been_told else logging.INFO, "Redis is there")
        self._has_been_told = False
        for action in self._came_back:
            _guarded(action)

    def _lost(self, error: BaseException) -> None:
        self._is_available = False
        if not self._has_been_told:
            self._has_been_told = True
            self.failures += 1
            # The error's text may name hosts, which the log's reader needs, but no URL and no password.
            logger.error("Redis is away, each worker goes on by itself: %s: %s", type(error).__name__, error)
        if self._probe is None:
            self._probe = asyncio.get_running_loop().create_task(self._look_for_it())

    def _refused(self, text: str) -> None:
        """Log a command that a reachable Redis refuses: its user may lack a right, or the command is unknown."""
        kind = text.partition(" ")[0]
        if kind not in self._told_refusals:
            self._told_refusals.add(kind)
            logger.error("Redis refuses a command, the gateway goes on without (told once): %s", text[:500])

    async def _look_for_it(self) -> None:
        try:
            while not self._is_available:
                await asyncio.sleep(PROBE_EVERY)
                with suppress(RedisUnavailable):
                    await self._check()
        finally:
            self._probe = None

    # Messages

    async def publish(self, channel: str, message: bytes = b"") -> bool:
        """Send a message to all listening workers and this one. Returns whether Redis took it; it may still be lost."""

        async def send(client: Redis) -> None:
            await client.publish(self.channel(channel), message)

        try:
            await self.call(send)
        except RedisUnavailable:
            return False
        return True

    def subscribe(self, channel: str, handler: Handler, subscribed: Callable[[], None] | None = None) -> None:
        """Call `handler` with each message of the channel, on the event loop; it must neither raise nor block.

        `subscribed` is called whenever messages begin to arrive: at first, and after each outage, in which some may
        have been lost. It should read the state that the messages are about.
        """
        self._handlers.setdefault(self.channel(channel).encode(), []).append((handler, subscribed))
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        elif self._is_listening and subscribed is not None:
            subscribed()

    async def _listen(self) -> None:
        while True:
            messages = self._client_for_messages.pubsub(ignore_subscribe_messages=True)
            try:
                await messages.psubscribe(self.key("told", "*"))
                await messages.get_message(timeout=TIMEOUT)  # the reply to psubscribe
                self._is_listening = True
                self._tell_subscribed()
                await self._hear(messages)
            except self._away as error:
                # Commands report an outage; this connection may also have been cut alone.
                logger.debug("the connection for messages of Redis broke: %s", type(error).__name__)
            finally:
                self._is_listening = False
                with suppress(*self._away):
                    await messages.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(PROBE_EVERY)

    async def _hear(self, messages: PubSub) -> None:
        asked = False
        while True:
            message: dict[str, Any] | None = await messages.get_message(timeout=QUIET)
            if message is None:
                if asked:
                    raise TimeoutError
                asked = True
                await messages.ping()
                continue
            asked = False
            if message["type"] == "pmessage":
                for handler, _ in self._handlers.get(message["channel"], ()):
                    _guarded(handler, message["data"])

    def _tell_subscribed(self) -> None:
        for subscribers in self._handlers.values():
            for _, subscribed in subscribers:
                if subscribed is not None:
                    _guarded(subscribed)


def _cannot_serve(error: Exception) -> bool:
    """Whether the error concerns Redis itself. redis-py takes the code out of the text where it has a class for it."""
    return str(getattr(error, "status_code", None) or error).startswith(_CANNOT_SERVE)


class Script:
    """A Lua script that Redis runs as one command."""

    def __init__(self, text: str, unknown: type[Exception]) -> None:
        self._text = text
        self._digest = sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._unknown = unknown

    async def __call__(self, client: Redis, *arguments: bytes | str | int, keys: Sequence[str] = ()) -> Any:
        try:
            return await client.evalsha(self._digest, len(keys), *keys, *arguments)
        except self._unknown:
            return await client.eval(self._text, len(keys), *keys, *arguments)


def _guarded(action: Callable[..., None], *arguments: object) -> None:
    """Call an action, and log its error, so that the others are called too."""
    try:
        action(*arguments)
    except Exception:
        logger.exception("a message of another worker could not be dealt with")
