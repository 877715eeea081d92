"""The bridge of one principal: an ASGI app that answers as the providers' own APIs would."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from .errors import ConfigurationError
from .inprocess import clients
from .principal import Principal

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from httpx2 import AsyncClient
    from openai import AsyncOpenAI

    from .bridge_state import BridgeState
    from .money.caller_usage import CallerUsage
    from .providers.provider import Provider
    from .tools import Tool

logger = logging.getLogger(__name__)


class RequestBridge:
    """An ASGI app that relays one principal's requests to the providers that were configured when it was built.

    `principal` is the principal of the request that leased the bridge; its metadata goes into the records.

    Paths are `/{provider}/v1/...`, below the scope's `root_path`. Safe for concurrent use.
    """

    __slots__ = ("_goes_on", "_state", "principal")

    def __init__(self, principal: Principal, state: BridgeState) -> None:
        self.principal = principal
        self._state = state
        self._goes_on = state.retired  # leased although retired already: serves until it is closed

    @property
    def providers(self) -> tuple[Provider, ...]:
        return tuple(self._state.providers.values())

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that are injected into the principal's requests, in the order in which models see them."""
        return self._state.tools.tools

    async def usage(self) -> CallerUsage:
        """Return what the principal has spent this month and what its budgets leave. Raises `RecorderUnavailable`."""
        return await self._state.usage(self.principal)

    def openai(self, provider: str = "openai", *, api_key: str | None = None) -> AsyncOpenAI:
        """Return OpenAI's own SDK client for one provider. It calls this bridge directly: no socket, no key.

        `api_key` is the principal's own key, for a provider that takes one. The client neither retries nor times out,
        because the gateway does both. It takes some 50 µs to make and holds no resources, so make one where you need
        it, and use it only while you hold the bridge. Raises `ConfigurationError` without the extra `openai`, and for a
        provider that is unknown or speaks another API.
        """
        return clients.openai_client(self, self._provider(provider), api_key)

    def anthropic(self, provider: str = "anthropic", *, api_key: str | None = None) -> AsyncAnthropic:
        """Return Anthropic's own SDK client for one provider, as `openai` does. Needs the extra `anthropic`."""
        return clients.anthropic_client(self, self._provider(provider), api_key)

    def http_client(self, provider: str, *, api_key: str | None = None) -> AsyncClient:
        """Return the HTTP client that the SDK clients use, for a library that takes one; paths begin with `/v1`.

        All its requests go to this provider through this bridge, whatever the host of their URL. A key in a request is
        dropped unless `X-AIBridge-Token` is sent with it: then it is the principal's own key, like `api_key`. Raises
        `ConfigurationError` without httpx2, and for an unknown provider.
        """
        return clients.http_client(self, self._provider(provider), api_key)

    def _provider(self, name: str) -> Provider:
        if (provider := self._state.providers.get(name)) is not None:
            return provider
        raise ConfigurationError(
            f"there is no provider {name!r}; there are: {', '.join(sorted(self._state.providers)) or 'none'}"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request.

        A holder such as a WebSocket may keep a bridge after the pool has retired it. Requests then go to its successor
        if that can be leased.
        """
        state = self._state
        if state.retired and state.acquire is not None and (state.closed or not self._goes_on):
            try:
                lease = state.acquire(self.principal)
                successor: RequestBridge = await lease.__aenter__()
            except Exception as error:  # noqa: BLE001 - a build may raise anything; this bridge then answers
                logger.debug("a retired bridge has no successor: %s", type(error).__name__)
            else:
                try:
                    await successor._state.answer(self.principal, scope, receive, send)
                finally:
                    await lease.__aexit__(None, None, None)
                return
        await state.answer(self.principal, scope, receive, send)
