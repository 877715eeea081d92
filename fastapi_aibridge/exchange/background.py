"""Background responses, which a provider continues after their request is over (`"background": true`).

Their interceptions end when the outcome is known: from a client's request for the response, or from the gateway's own
after a while. Each interception ends once, however many requests show its outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from ..errors import GatewayError
from ..formats import responses
from ..formats.responses.message import ResponseMessage
from ..formats.single import SingleRound
from ..principal import Principal
from ..providers.provider import Provider
from ..recorder import Facts, Status
from ..upstream.keys import Credential
from .calls import UpstreamCaller, UpstreamRequest
from .interception_log import InterceptionLog

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Responses whose outcome the gateway waits for. Further ones end with what is known at the end of their request."""
FIRST_LOOK, LONGEST_PAUSE = 30.0, 600.0
"""Seconds until the gateway polls for the first time, and at most between two polls."""
GIVEN_UP = 24 * 3600.0
"""Seconds after which the gateway stops waiting for the outcome."""
ANSWER_SIZE = 16 * 1024 * 1024
"""Bytes that are read of a polled response."""
_AT_ONCE = 4
"""Responses that are polled at the same time."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A background response whose outcome is not known yet."""

    log: InterceptionLog
    principal: Principal
    provider: Provider
    credential: Credential
    response_id: str
    upstream_status: int | None
    max_text: int
    task: asyncio.Task[None] | None = None

    def observer(self) -> SingleRound:
        """Make a reader of upstream responses that tell the outcome."""
        return responses.single(b"", self.max_text, usage_asked=True)


class BackgroundResponses:
    """All background responses of an app whose outcome is not known yet."""

    def __init__(self, caller: UpstreamCaller) -> None:
        self._caller = caller
        self._waiting: dict[tuple[str, str], Waiting] = {}
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait_for(self, one: Waiting, facts: Facts) -> bool:
        """Take over an interception whose request is over; return False if it has to end now.

        The objects in `facts` are recorded at once; everything else comes with the outcome.
        """
        key = (one.provider.name, one.response_id)
        if not self.has_room or key in self._waiting:
            return False
        self._waiting[key] = one
        one.task = asyncio.create_task(self._look(one))
        masker = one.provider.masker(one.credential)
        await one.log.round_ended(Facts(objects=facts.objects), one.response_id, masker)
        return True

    @property
    def has_room(self) -> bool:
        """Whether one more response can be waited for."""
        return not self._closed and len(self._waiting) < MAX_WAITING

    def take_up(self, one: Waiting) -> Waiting:
        """Wait again for the outcome of an interrupted interception. Return it, or the one that waits already."""
        waiting = self._waiting.setdefault((one.provider.name, one.response_id), one)
        if waiting is one:
            one.log.go_on()
            one.task = asyncio.create_task(self._look(one))
        return waiting

    def waiting(self, account: tuple[str, ...], response_id: str) -> Waiting | None:
        """Find the waiting interception of this response. `account` has the names of the provider's account."""
        if not self._waiting:
            return None
        return next(
            (self._waiting[name, response_id] for name in account if (name, response_id) in self._waiting), None
        )

    async def learn(self, one: Waiting, message: ResponseMessage) -> bool:
        """End the interception if the message tells its outcome; return whether it does."""
        if message.pending or message.id != one.response_id or not message.status:
            return False
        status = {"failed": Status.FAILED, "cancelled": Status.CANCELLED}.get(message.status, Status.COMPLETED)
        await self.end(one, status, message.error, message.facts())
        return True

    async def end(self, one: Waiting, status: Status, error: str | None, facts: Facts | None = None) -> None:
        """End the interception, unless it has ended already."""
        if self._waiting.pop((one.provider.name, one.response_id), None) is not one:
            return
        if one.task is not None and one.task is not asyncio.current_task():
            one.task.cancel()
        await one.log.end(
            status,
            error,
            facts or Facts(),
            message_id=one.response_id,
            upstream_status=one.upstream_status,
            credential_hint=one.credential.hint,
            masker=one.provider.masker(one.credential),
        )

    async def aclose(self) -> None:
        """End all interceptions that still wait, as interrupted."""
        self._closed = True
        for one in tuple(self._waiting.values()):
            await self.end(one, Status.INTERRUPTED, "the app stopped before the response's outcome was known")

    async def _look(self, one: Waiting) -> None:
        for pause in _pauses():
            await asyncio.sleep(pause)
            async with self._turn:
                if await self.ask(one):
                    return
        await self.end(one, Status.FAILED, "the outcome of the response was not known after a day")

    async def ask(self, one: Waiting) -> bool:
        """Ask the provider for the outcome, and end the interception if it is known. Return whether it is."""
        try:
            return await self._ask(one)
        except GatewayError as error:
            logger.debug("a response in the background cannot be asked for: %s", error.message)
        except Exception:
            logger.exception("a response in the background cannot be asked for")
        return False

    async def _ask(self, one: Waiting) -> bool:
        target = one.provider.target(f"/v1/responses/{quote(one.response_id, safe='')}", b"")
        headers = [(b"accept", b"application/json"), (b"accept-encoding", b"identity")]
        request = UpstreamRequest("GET", target, headers, b"", one.credential)
        response = await self._caller.call(one.provider, one.principal, request)
        try:
            body = await response.read_up_to(ANSWER_SIZE)
        finally:
            response.close()
        if response.status == 404:
            await self.end(one, Status.FAILED, "the provider no longer has the response")
            return True
        observer = one.observer()
        if not 200 <= response.status < 300 or not observer.blocking(body):
            return False
        message = observer.message
        return isinstance(message, ResponseMessage) and await self.learn(one, message)


def _pauses() -> Iterator[float]:
    """Yield the seconds before each poll of a response, ever longer, for a day in all."""
    pause, total = FIRST_LOOK, 0.0
    while total < GIVEN_UP:
        yield pause
        total += pause
        pause = min(2 * pause, LONGEST_PAUSE)
