"""Calls a provider: asks the circuit breaker, chooses the key, and retries where that helps.

All retries happen before a byte of the response has been relayed; a response that breaks off later is not retried.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..errors import GatewayError, UpstreamTimeout, UpstreamUnreachable
from ..observability import Metrics
from ..principal import Principal
from ..providers.provider import Provider
from ..upstream.breaker import Admission, CircuitOpen
from ..upstream.client import UpstreamClient
from ..upstream.failures import redirected
from ..upstream.keys import CENTRALIZED, Credential, speaks_of_key
from ..upstream.message import RawHeaders, RequestBody
from ..upstream.response import UpstreamResponse
from ..upstream.retries import RETRY_WINDOW, delay, is_retryable, retry_after
from .body_budget import Holding
from .reason import reason_of

logger = logging.getLogger(__name__)

_UNAVAILABLE = {503, 504, 529}
"""Statuses that a circuit breaker counts as failures. 429 is none: it says how long to wait."""
_UP = b"x-aibridge-retry-count"
"""Tells the upstream how often the gateway has retried. `X-Stainless-Retry-Count` stays as the client's SDK set it."""
_ATTEMPTS = "x-aibridge-attempts"
_LAST_WORD = "x-should-retry"
"""Tells the vendors' SDKs not to retry: after the gateway's own retries, theirs would multiply the load."""


@dataclass(slots=True)
class UpstreamRequest:
    """A request as it goes upstream, without the headers that the provider adds.

    Not frozen, because freezing costs more than everything else in a call.
    """

    method: str
    target: bytes
    """Path and query."""
    headers: list[tuple[bytes, bytes]]
    body: RequestBody
    credential: Credential
    """The key that pays; replaced by the next key if it is rate-limited or rejected."""
    route: str = ""
    """The route, which selects the circuit breaker together with the model; empty if none watches the call."""
    model: str = ""
    streaming: bool = False
    """Whether the request asks for a stream."""
    holding: Holding | None = None
    """What counts the bytes of the response that are read ahead; None if they are few."""
    repeatable: bool = True
    """Whether a retry is safe even if the upstream has carried out the request: generating text twice does no harm."""


class UpstreamCaller:
    """Calls providers, for all bridges of an app.

    A request is sent again at once with the next key if its key is rate-limited or rejected. It is sent again after a
    pause if the vendors' SDKs would retry: `max_retries` times at most, within `RETRY_WINDOW` seconds.
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
        """Return the response once its headers are there, whatever its status. Raises `GatewayError`.

        If a circuit breaker watches the call, the first bytes of a stream have arrived too, or all of another body.
        After more than one attempt, the headers of the response or error give their number.
        """
        started = self._clock()
        admission = self._admit(provider, principal, request)
        outcome = await self._attempt(provider, principal, request, admission, 1)
        if isinstance(outcome, UpstreamResponse) and outcome.status < 400:
            return outcome
        state = RetryState(provider, principal, request, outcome, started + RETRY_WINDOW)
        try:
            while (pause := await self._plan(state)) is not None:
                if pause:
                    await self._sleep(pause)
                try:
                    admission = self._admit(provider, principal, request)
                except CircuitOpen:
                    break
                state.forget()
                state.attempts += 1
                state.outcome = await self._attempt(provider, principal, request, admission, state.attempts)
        except BaseException:
            state.forget()
            raise
        return state.result()

    async def _attempt(
        self,
        provider: Provider,
        principal: Principal,
        request: UpstreamRequest,
        admission: Admission | None,
        number: int,
    ) -> UpstreamResponse | GatewayError:
        headers = provider.with_own_headers(request.headers, request.credential, principal)
        if number > 1:
            headers.append((_UP, b"%d" % (number - 1)))
        breakers, watched = provider.breakers, (request.route, request.model, principal.initiator_id)
        try:
            response = await self._client.send(
                provider.origin,
                request.method,
                request.target,
                headers,
                request.body,
                provider.limits,
            )
            if admission is not None and response.status < 300:
                hold = None if request.holding is None else request.holding.hold_answer
                await response.read_ahead(stream_asked=request.streaming, hold=hold)
        except (UpstreamUnreachable, UpstreamTimeout) as error:
            if admission is not None:
                if error.is_final:  # the upstream has responded
                    breakers.succeeded(*watched, admission)
                else:
                    breakers.failed(*watched, admission)
            return error
        except BaseException:
            if admission is not None:
                breakers.abandoned(*watched, admission)
            raise
        if admission is not None:
            if response.status in _UNAVAILABLE:
                breakers.failed(*watched, admission)
            else:
                breakers.succeeded(*watched, admission)
        if (
            response.status // 100 == 3
            and response.status != 304
            and (location := response.headers.get("location")) is not None
        ):
            response.close()
            return redirected(response.status, location)
        return response

    @staticmethod
    def _admit(provider: Provider, principal: Principal, request: UpstreamRequest) -> Admission | None:
        """Ask the circuit breaker; None if none watches the call. Raises `CircuitOpen`."""
        if not request.route:
            return None
        return provider.breakers.admit(request.route, request.model, principal.initiator_id)

    async def _plan(self, state: RetryState) -> float | None:
        """Choose the key of the next attempt. Return the seconds until then, None if there is no next attempt."""
        if await state.change_key():
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
        """The reason of the retry, for metrics."""
        if isinstance(self.outcome, UpstreamTimeout):
            return "timeout"
        if isinstance(self.outcome, GatewayError):
            return "unreachable"
        return str(self.outcome.status)

    async def change_key(self) -> bool:
        """Rest a rate-limited or rejected key and choose the next one; return whether there is one to try at once."""
        answer, credential = self.outcome, self.request.credential
        if isinstance(answer, GatewayError) or answer.status not in (401, 429) or credential.kind != CENTRALIZED:
            return False
        keys = self.provider.keys
        if answer.status == 429:
            keys.rest(credential, 429, retry_after(answer.headers))
        else:
            await self._judge(answer, credential)
        other = keys.another(self.principal.initiator_id, self._tried)
        if other is None:
            return False
        self.request.credential = other
        self._tried.append(other)
        return True

    async def _judge(self, answer: UpstreamResponse, credential: Credential) -> None:
        """Rest the key if its 401 is about the key and not about the request."""
        body = await reason_of(answer)
        keys, caller = self.provider.keys, self.principal.initiator_id
        rested = keys.is_resting(credential)
        if not keys.rejected(credential, caller, certain=speaks_of_key(body)):
            return
        answer.problem = f"provider_key_rejected: the provider rejects the gateway's key {credential.hint}"
        if not rested:
            logger.warning("provider %r rejects the gateway's key %s", self.provider.name, credential.hint)

    def pause(self, chance: Callable[[], float]) -> float | None:
        """Return the seconds to wait before a retry; None if no retry is left or none would help."""
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
            if outcome.is_final:
                return False
            sent = not isinstance(outcome, UpstreamUnreachable | UpstreamTimeout) or outcome.sent
            return self.request.repeatable or not sent
        return is_retryable(outcome.status, outcome.headers) and (self.request.repeatable or outcome.status == 429)

    def forget(self) -> None:
        """Release a response that the client will not get; its connection is kept if it has been read to the end."""
        if isinstance(self.outcome, UpstreamResponse):
            self.outcome.close()

    def result(self) -> UpstreamResponse:
        """Return the last response, or raise the last error."""
        notes: dict[str, str] = {}
        if self.attempts > 1:
            notes[_ATTEMPTS] = str(self.attempts)
            if self.retries and self._is_retryable():
                notes[_LAST_WORD] = "false"
        if isinstance(self.outcome, GatewayError):
            if self.outcome.is_final:
                notes[_LAST_WORD] = "false"
            self.outcome.headers.update(notes)
            raise self.outcome
        if self.outcome.status == 401 and self.request.credential.kind == CENTRALIZED:
            notes[_LAST_WORD] = "false"  # the key is the gateway's, so no caller can correct it
        raw: RawHeaders = tuple((name.encode(), value.encode()) for name, value in notes.items())
        self.outcome.notes = raw
        return self.outcome
