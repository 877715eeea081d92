"""What all requests of one principal share, and the pool keeps: providers, tools, running requests."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from starlette.types import Receive, Scope, Send

from .errors import GatewayError
from .exchange.engine import Engine
from .exchange.interruption import Interruption
from .exchange.toolset import Toolset
from .money.caller_usage import CallerUsage
from .observability.tracing import tracer
from .principal import Principal
from .providers.provider import Provider
from .tools import NoTools, Tools

Acquire: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]
"""Leases a principal's bridge."""


class BridgeState(ABC):
    """Knows nothing of its principal but the initiator: all else may differ from request to request.

    `acquire` leases the bridge that has taken the place of this one, once it has been retired.
    """

    __slots__ = (
        "_idle",
        "_running",
        "_tools",
        "_toolset",
        "accounts",
        "acquire",
        "closed",
        "engine",
        "providers",
        "refusal",
        "retired",
        "share",
        "tracer",
    )

    def __init__(
        self,
        initiator_id: str,
        providers: Iterable[Provider],
        engine: Engine,
        tools: Tools | None = None,
        acquire: Acquire | None = None,
    ) -> None:
        self.providers = {provider.name: provider for provider in providers}
        self.accounts = _accounts(self.providers.values())
        self.engine = engine
        self.share = engine.queue.share(initiator_id)
        self.tracer = tracer()
        self.acquire = acquire
        self.retired = False
        self.closed = False
        self.refusal: Callable[[], Exception] = closing
        """What a request gets once it is closed."""
        self._tools: Tools = tools or NoTools()
        self._toolset: Toolset | None = None
        self._running: set[Interruption] = set()
        self._idle: asyncio.Event | None = None

    @property
    def tools(self) -> Tools:
        return self._tools

    @property
    def has_tool_servers(self) -> bool:
        """Whether tools are injected, or would be if their servers were there."""
        return not isinstance(self._tools, NoTools)

    @property
    def degraded(self) -> bool:
        """Whether an MCP server failed to start: the bridge works without its tools."""
        return self._tools.degraded

    def toolset(self) -> Toolset | None:
        """The tools as they are now: a server may tell that its list has changed."""
        tools = self._tools.tools
        if not tools:
            return None
        if self._toolset is None or self._toolset.listed is not tools:
            self._toolset = Toolset(self._tools)
        return self._toolset

    def begin(self, interruption: Interruption) -> None:
        """A request runs from now on, and `end` follows. Raises `GatewayError` once the bridge is closing."""
        if self.closed:
            raise self.refusal()
        self._running.add(interruption)

    def end(self, interruption: Interruption) -> None:
        self._running.discard(interruption)
        if self._idle is not None and not self._running:
            self._idle.set()

    @abstractmethod
    async def answer(self, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request of this principal."""

    @abstractmethod
    async def usage(self, principal: Principal) -> CallerUsage:
        """What this principal has spent, and what is left. Raises `RecorderUnavailable`."""

    async def start(self) -> None:
        """Connect to the MCP servers."""
        await self._tools.start()

    def retire(self) -> None:
        self.retired = True

    def cut(self, error: Callable[[], Exception]) -> None:
        """End what runs on this bridge with the error, at once, and give it to whatever comes."""
        self.closed = True
        self.refusal = error
        for interruption in tuple(self._running):
            interruption.interrupt(error())

    async def aclose(self) -> None:
        """End what still runs on this bridge, with an error to its clients, and then its MCP sessions."""
        self.closed = True
        try:
            if self._running:
                self._idle = asyncio.Event()
                for interruption in tuple(self._running):
                    interruption.interrupt(self.refusal())
                await self._idle.wait()
        finally:
            await self._tools.aclose()


def _accounts(providers: Iterable[Provider]) -> dict[str, tuple[str, ...]]:
    """Each provider's name, and the names of all that call the same API."""
    by_url: dict[str, list[str]] = {}
    for provider in providers:
        by_url.setdefault(provider.base_url, []).append(provider.name)
    return {name: tuple(names) for names in by_url.values() for name in names}


def closing() -> GatewayError:
    return GatewayError(
        503, "shutting_down", "the gateway is closing this session; try again", headers={"retry-after": "1"}
    )
