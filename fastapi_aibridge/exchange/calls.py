"""One call of a provider: the breaker asked, the right key, and another try where that helps.

All of it happens before a byte of the answer has been relayed; what then breaks off has broken off.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..errors import GatewayError, UpstreamTimeout, UpstreamUnreachable
from ..observability import Metrics
from ..principal import Principal
from ..providers import Credential, Provider
from ..upstream.breaker import CircuitOpen
from ..upstream.client import UpstreamClient
from ..upstream.keys import CENTRALIZED
from ..upstream.response import RawHeaders, UpstreamResponse
from ..upstream.retries import RETRY_WINDOW, delay, is_retryable, retry_after

_UNAVAILABLE = {503, 504, 529}
"""What a breaker counts. 429 is no failure: it says how long to wait."""
_UP = b"x-aibridge-retry-count"
"""Tells the upstream that the gateway has tried before. `X-Stainless-Retry-Count` stays what the client's SDK says."""
_ATTEMPTS = "x-aibridge-attempts"
_LAST_WORD = "x-should-retry"
"""What the vendors' SDKs obey: where the gateway has tried again in vain, they shall not multiply that."""


@dataclass(slots=True)
class UpstreamRequest:
    """A request as it goes upstream, but for what the provider adds to it.

    Made for each request: not frozen, because that costs more than all the rest of a call.
    """

    method: str
    target: bytes
    """Path and query, below the provider's origin."""
    headers: list[tuple[bytes, bytes]]
    body: bytes
    credential: Credential
    """Who pays: the next key takes the place of one that is limited or rejected."""
    route: str = ""
    """With the model, what a breaker watches; empty where none does."""
    model: str = ""
    streaming: bool = False
    """Whether it asks for a stream."""
    repeatable: bool = True
    """Whether it may be sent again when the upstream may have carried it out. Making text again harms nobody."""


class UpstreamCaller:
    """Calls providers, for all bridges of an app.

    A request goes up once more with the next key where one is limited or rejected; and again after a pause where the
    vendors' SDKs would retry, `max_retries` times at most, within `RETRY_WINDOW` seconds.
    """

    def __init__(
        self,
        client: UpstreamClient,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._chance = chance

    async def call(self, provider: Provider, principal: Principal, request: UpstreamRequest) -> UpstreamResponse:
        """The response once its headers are there, whatever its status. Raises `GatewayError`.

        Where a breaker watches it, the first bytes of a stream are there, too, and all of another answer.

        Where there was more than one attempt, the response or the error says so in its headers.
        """
        started = self._clock()
        generation = provider.breakers.admit(request.route, request.model) if request.route else 0
        outcome = await self._attempt(provider, principal, request, generation, 1)
        if isinstance(outcome, UpstreamResponse) and outcome.status < 400:
            return outcome
        state = RetryState(provider, principal, request, outcome, started + RETRY_WINDOW)
        try:
            while (pause := self._plan(state)) is not None:
                if pause:
                    await self._sleep(pause)
                try:
                    generation = provider.breakers.admit(request.route, request.model) if request.route else 0
                except CircuitOpen:
                    break
                state.forget()
                state.attempts += 1
                state.outcome = await self._attempt(provider, principal, request, generation, state.attempts)
        except BaseException:
            state.forget()
            raise
        return state.result()

    async def _attempt(
        self,
        provider: Provider,
        principal: Principal,
        request: UpstreamRequest,
        generation: int,
        number: int,
    ) -> UpstreamResponse | GatewayError:
        headers = provider.with_own_headers(request.headers, request.credential, principal)
        if number > 1:
            headers.append((_UP, b"%d" % (number - 1)))
        breakers, route, model = provider.breakers, request.route, request.model
        try:
            response = await self._client.send(
                provider.origin,
                request.method,
                request.target,
                headers,
                request.body,
                provider.limits,
            )
            if route and response.status < 400:
                await response.read_ahead(stream_asked=request.streaming)
        except GatewayError as error:
            if route:
                breakers.failed(route, model, generation)
            return error
        except BaseException:
            if route:
                breakers.abandoned(route, model, generation)
            raise
        if route:
            if response.status in _UNAVAILABLE:
                breakers.failed(route, model, generation)
            else:
                breakers.succeeded(route, model, generation)
        return response

    def _plan(self, state: RetryState) -> float | None:
        """Seconds until the next attempt, whose key is chosen; None where there shall be none."""
        if state.change_key():
            self._metrics.retried(state.provider.name, "key")
            return 0.0
        pause = state.pause(self._chance)
        if pause is None or self._clock() + pause > state.deadline:
            return None
        self._metrics.retried(state.provider.name, state.reason)
        state.retry()
        return pause


class RetryState:
    """A call whose first attempt has failed."""

    __slots__ = (
        "_tried",
        "attempts",
        "deadline",
        "outcome",
        "principal",
        "provider",
        "request",
        "retries",
    )

    def __init__(
        self,
        provider: Provider,
        principal: Principal,
        request: UpstreamRequest,
        outcome: UpstreamResponse | GatewayError,
        deadline: float,
    ) -> None:
        self.provider = provider
        self.principal = principal
        self.request = request
        self.outcome = outcome
        self.deadline = deadline
        self.attempts = 1
        self.retries = 0
        self._tried = [request.credential]

    @property
    def reason(self) -> str:
        """A word for metrics."""
        if isinstance(self.outcome, UpstreamTimeout):
            return "timeout"
        if isinstance(self.outcome, GatewayError):
            return "unreachable"
        return str(self.outcome.status)

    def change_key(self) -> bool:
        """Whether the next key can be tried at once; the one that was tried is sent to rest."""
        answer, credential = self.outcome, self.request.credential
        if isinstance(answer, GatewayError) or answer.status not in (401, 429) or credential.kind != CENTRALIZED:
            return False
        keys = self.provider.keys
        keys.rest(credential, answer.status, retry_after(answer.headers) if answer.status == 429 else None)
        other = keys.another(self.principal.initiator_id, self._tried)
        if other is None:
            return False
        self.request.credential = other
        self._tried.append(other)
        return True

    def pause(self, chance: Callable[[], float]) -> float | None:
        """Seconds to wait before a retry; None where none is left or none would help."""
        if self.retries >= self.provider.settings.max_retries or not self._is_retryable():
            return None
        asked = None if isinstance(self.outcome, GatewayError) else retry_after(self.outcome.headers)
        return delay(self.retries, asked, chance)

    def retry(self) -> None:
        self.retries += 1
        if self.request.credential.kind == CENTRALIZED:
            self.request.credential = self.provider.keys.choose(self.principal.initiator_id)
            self._tried = [self.request.credential]

    def _is_retryable(self) -> bool:
        outcome = self.outcome
        if isinstance(outcome, GatewayError):
            sent = not isinstance(outcome, UpstreamUnreachable) or outcome.sent
            return self.request.repeatable or not sent
        return is_retryable(outcome.status, outcome.headers) and (self.request.repeatable or outcome.status == 429)

    def forget(self) -> None:
        """Let go of an answer that the client will not get; its connection is kept where it has been read."""
        if isinstance(self.outcome, UpstreamResponse):
            self.outcome.release()

    def result(self) -> UpstreamResponse:
        """The last answer. Raises the last error."""
        notes: dict[str, str] = {}
        if self.attempts > 1:
            notes[_ATTEMPTS] = str(self.attempts)
            if self.retries and self._is_retryable():
                notes[_LAST_WORD] = "false"
        if isinstance(self.outcome, GatewayError):
            self.outcome.headers.update(notes)
            raise self.outcome
        raw: RawHeaders = tuple((name.encode(), value.encode()) for name, value in notes.items())
        self.outcome.notes = raw
        return self.outcome
