"""The rounds of an interception: call upstream, relay the response, run the injected tools that the model calls, until
it calls none.

Without injected tools there is one round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from ..errors import GatewayError, UpstreamTimeout, UpstreamUnreachable
from ..formats.large_text import BodyText
from ..formats.responses.message import ResponseMessage
from ..formats.rounds import AnsweredCall, Rounds
from ..recorder import Facts
from ..upstream.response import UpstreamResponse
from .costs import Costs
from .fair_queue import Share
from .interception_log import InterceptionLog
from .interruption import Interruption
from .opening import Opening
from .reason import reason_of
from .relay import Answer, read_answer, relay_rest, relay_stream, send_answer
from .response_writer import ResponseWriter
from .steps import in_steps
from .tool_memory import OwnMemory
from .tool_runs import ToolRuns
from .upstream_calls import UpstreamCalls

MAX_ROUNDS = 25
"""Upstream messages of one interception. In the last one the model may call no tools."""
PING_AFTER = 10.0
"""Seconds of silence after which a stream gets a ping."""

_REFUSALS = (400, 404, 422)

T = TypeVar("T")


class Loop:
    """The rounds of one interception."""

    __slots__ = (
        "_accept_encoding",
        "_calls",
        "_costs",
        "_log",
        "_memory",
        "_opening",
        "_recorded",
        "_runs",
        "_share",
        "_timer",
        "_waits_since",
        "_writer",
        "problem",
        "rounds",
    )  # fmt: skip

    def __init__(
        self,
        opening: Opening,
        calls: UpstreamCalls,
        memory: OwnMemory,
        writer: ResponseWriter,
        share: Share,
        log: InterceptionLog,
        runs: ToolRuns | None,
        accept_encoding: bytes,
        costs: Costs | None = None,
    ) -> None:
        self._opening = opening
        self._calls = calls
        self._memory = memory
        self._writer = writer
        self._share = share
        self._log = log
        self._runs = runs
        self._accept_encoding = accept_encoding
        self._costs = costs
        self._recorded = False
        self._timer: asyncio.TimerHandle | None = None
        self._waits_since = 0.0
        self.rounds: Rounds
        self.problem: str | None = None
        """Why a successful upstream response could not be read as a message; None if it could."""

    async def prepare(self) -> None:
        """Make the first request; call it before `run`. Raises `GatewayError` 503 if there is no memory for it."""
        self.rounds = await in_steps(self._opening.rounds(), self._share)
        self._opening.hold(self.rounds.body)

    async def run(self, interruption: Interruption) -> None:
        """Run all rounds, to the last byte of the client's response. Raises `GatewayError`."""
        response = await self._open()
        number = 1
        while True:
            try:
                answer = await self._relay(response, interruption)
            finally:
                self._stop_looking()
                response.close()
            if answer is None:
                return
            rounds = self.rounds
            results: list[AnsweredCall] = []
            if rounds.message.error is None:
                calls = rounds.calls() if number < MAX_ROUNDS else []
                if calls and self._runs is not None:
                    results = await self._patiently(self._runs.run(calls))
                client_calls = rounds.client_calls()
                if client_calls or not results:
                    self._remember(results)
                    if self._memory.is_shared:
                        await self._memory.tell()
            if not results or client_calls:
                break
            await self._log.round_ended(self.facts(), rounds.message.id, self._calls.masker())
            self._recorded = True
            await in_steps(rounds.go_on(results, last=number == MAX_ROUNDS - 1), self._share)
            self._opening.hold(rounds.body)
            if self._runs is not None:
                self._runs.forget()
            self._recorded = False
            number += 1
            await self._log.reserve(rounds.body, self._share)
            response = await self._patiently(self._call_again())
        await self._finish(answer, interruption)

    def _remember(self, results: Sequence[AnsweredCall]) -> None:
        """Keep what later requests need but the client does not know: injected calls, and response ids."""
        rounds = self.rounds
        if (under := rounds.held_under()) and (held := rounds.held(results)).size > 1:
            self._memory.hold(under, held)
        if rounds.alias is not None:
            self._memory.name(*rounds.alias)

    async def _open(self) -> UpstreamResponse:
        """Return the first response. A request refused for the gateway's additions is sent again without them."""
        opening = self._opening
        while True:
            response = await self._call(self.rounds.body)
            if response.status < 400:
                opening.taken()
                return response
            status = response.status
            if not opening.can_go_without(status) and (
                status < 500
                or not await in_steps(opening.fails_for_tools(status, await reason_of(response)), self._share)
            ):
                return response
            try:
                refusal, _ = await read_answer(response, opening.holding)
            finally:
                response.close()
            opening.go_without(refusal)
            if opening.toolset is None:
                self._runs = None
            await self.prepare()

    async def _call(self, body: BodyText) -> UpstreamResponse:
        costs = self._costs
        if costs is None:
            return await self._calls.call(body)
        costs.called(body)
        try:
            response = await self._calls.call(body)
        except GatewayError as error:
            if not _is_carried_out(error):
                costs.refused()
            raise
        if response.status >= 400:
            costs.refused()
        return response

    async def _call_again(self) -> UpstreamResponse:
        """Return the response of a later round. Retry once without what the provider refuses to get back."""
        rounds = self.rounds
        response = await self._call(rounds.body)
        if response.status in _REFUSALS and await in_steps(rounds.take_out(await reason_of(response)), self._share):
            response.close()
            self._opening.hold(rounds.body)
            response = await self._call(rounds.body)
        return response

    async def _relay(self, response: UpstreamResponse, interruption: Interruption) -> Answer | None:
        """Relay or read one round's message. None if the client's response is complete, so that no round follows."""
        rounds, writer, holding = self.rounds, self._writer, self._opening.holding
        if response.streams:
            read = self._read if self._runs else None
            seen = None if self._costs is None else self._costs.text.add
            rest = await relay_stream(response, rounds, writer, self._share, holding, read, self._claim, seen)
            return Answer(response, rest, is_message=True)
        body, whole = await read_answer(response, holding)
        if not whole and not writer.begun:
            # The body is too large to be observed.
            await relay_rest(response, body, writer, interruption)
            return None
        answer = await Answer.read(response, body, rounds, self._share, holding)
        if self._costs is not None:
            self._costs.answer = answer.decoded or body
        if writer.begun:
            # It is too late for a status, but the error event's type still tells a limit from a failure.
            status = response.status if response.status >= 400 else 502
            raise GatewayError(status, "upstream_error", rounds.message.error or f"upstream status {response.status}")
        if answer.is_message and not rounds.untouched:
            return answer
        self.problem = answer.problem
        await self._claim()
        await send_answer(answer, writer, interruption, self._accept_encoding)
        return None

    async def _claim(self) -> None:
        """Record the owner of the message before the client learns its id, because then others could name it."""
        message = self.rounds.message
        # Only messages of the Responses API are stored at their provider.
        if isinstance(message, ResponseMessage) and (made := message.facts().objects):
            await self._log.made(made)

    async def _finish(self, answer: Answer, interruption: Interruption) -> None:
        end = self.rounds.end()
        if self._writer.streaming:
            interruption.settle()
            await self._writer.finish(answer.body + end)
        else:
            await self._claim()
            await send_answer(answer.woven(end), self._writer, interruption, self._accept_encoding)

    def facts(self) -> Facts:
        """Return the facts of this round that are not recorded yet, with injected calls marked."""
        if self._recorded:
            return Facts()
        message = self.rounds.message
        facts = message.facts()
        if self._costs is not None and (message.error is not None or self.problem is not None):
            self._costs.failed()
        if self._runs is not None:
            self._runs.mark(facts, self.rounds.names)
        return facts

    # Pings

    async def _read(self, response: UpstreamResponse) -> bytes:
        # One timer checks how long the wait has been, instead of a task or a timer for each chunk.
        loop = asyncio.get_running_loop()
        self._waits_since = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(PING_AFTER, self._look, loop, response)
        return await response.read_some(self._ping)

    def _look(self, loop: asyncio.AbstractEventLoop, response: UpstreamResponse) -> None:
        now = loop.time()
        if now - self._waits_since >= PING_AFTER:
            self._waits_since = now
            response.wake()
        self._timer = loop.call_later(self._waits_since + PING_AFTER - now, self._look, loop, response)

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _patiently(self, work: Awaitable[T]) -> T:
        """Await the work, and meanwhile send pings to the client if its response is a stream that has begun."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=PING_AFTER)
                if not task.done():
                    await self._ping()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    async def _ping(self) -> None:
        if self._writer.streaming:
            await self._writer.piece(self.rounds.ping())


def _is_carried_out(error: GatewayError) -> bool:
    """Whether the upstream may carry the request out: it is silent, or its answer broke off behind a good status."""
    if isinstance(error, UpstreamTimeout):
        return error.sent
    return isinstance(error, UpstreamUnreachable) and 200 <= (error.upstream_status or 0) < 300
