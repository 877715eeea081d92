"""The state that all requests of one principal share and the pool keeps: providers, tools, running requests."""

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
"""A function that leases a principal's bridge."""


class BridgeState(ABC):
    """The shared state of one principal's bridge. Of the principal it knows only the initiator: the rest may differ
    between requests.

    `acquire` leases the successor of this bridge once it has been retired.
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
        """Makes the error for requests to a closed bridge."""
        self._tools: Tools = tools or NoTools()
        self._toolset: Toolset | None = None
        self._running: set[Interruption] = set()
        self._idle: asyncio.Event | None = None

    @property
    def tools(self) -> Tools:
        return self._tools

    @property
    def has_tool_servers(self) -> bool:
        """Whether the bridge can have tools, even if none is available now."""
        return not isinstance(self._tools, NoTools)

    @property
    def degraded(self) -> bool:
        """Whether an MCP server failed to start, so that the bridge works without its tools."""
        return self._tools.degraded

    def toolset(self) -> Toolset | None:
        """Return the current tools, None if there are none. A server's list may have changed since the last call."""
        tools = self._tools.tools
        if not tools:
            return None
        if self._toolset is None or self._toolset.listed is not tools:
            self._toolset = Toolset(self._tools)
        return self._toolset

    def begin(self, interruption: Interruption) -> None:
        """Note a request as running until `end`. Raises `GatewayError`, or the error of `cut`, on a closed bridge."""
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
        """Return what this principal has spent and what its budgets leave. Raises `RecorderUnavailable`."""

    async def start(self) -> None:
        """Connect to the MCP servers."""
        await self._tools.start()

    def retire(self) -> None:
        self.retired = True

    def cut(self, error: Callable[[], Exception]) -> None:
        """Close the bridge at once: running requests and all later ones get the error."""
        self.closed = True
        self.refusal = error
        for interruption in tuple(self._running):
            interruption.interrupt(error())

    async def aclose(self) -> None:
        """End the running requests with an error to their clients, wait for them, and close the MCP sessions."""
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
    """Map each provider's name to the names of all providers with the same base URL, its own included."""
    by_url: dict[str, list[str]] = {}
    for provider in providers:
        by_url.setdefault(provider.base_url, []).append(provider.name)
    return {name: tuple(names) for names in by_url.values() for name in names}


def closing() -> GatewayError:
    return GatewayError(
        503, "shutting_down", "the gateway is closing this session; try again", headers={"retry-after": "1"}
    )
