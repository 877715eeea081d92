"""Runs the tools that the model picks, and goes round with their results until it has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from ..errors import GatewayError
from ..formats import Observer
from ..formats.rounds import Part, Result, Rounds, ToolCall
from ..observability import Metrics
from ..recorder import Facts, ToolUsage
from ..tools import Image, Text, ToolResult
from ..upstream.response import UpstreamResponse
from .fair_queue import Share
from .interruption import Interruption
from .relay import decoded_answer, observed, read_answer, relay_answer, relay_stream, send_whole
from .reply import Reply
from .tool_memory import OwnMemory
from .toolset import Toolset

MAX_ROUNDS = 25
"""Upstream messages of one interception. In the last one the model may call nothing any more."""
PING_AFTER = 10.0
"""Seconds of silence after which a stream gets a sign of life."""
IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
"""What the vendors' models can see. With another kind of image they refuse the whole request."""

T = TypeVar("T")
CallUpstream = Callable[[bytes], Awaitable[UpstreamResponse]]
RoundEnded = Callable[[Facts], Awaitable[None]]


class WovenObserver:
    """Watches one round; what it returns is what the client gets of it."""

    def __init__(self, round_: Observer, rounds: Rounds) -> None:
        self._round = round_
        self._rounds = rounds

    @property
    def finished(self) -> bool:
        return self._round.finished

    @property
    def over(self) -> bool:
        return self._round.over

    @property
    def error(self) -> str | None:
        return self._round.error

    @property
    def message_id(self) -> str:
        return self._round.message_id

    def stream(self, block: bytes) -> bytes:
        self._round.stream(block)
        return self._rounds.stream(block)

    def blocking(self, body: bytes) -> bool:
        return self._round.blocking(body)

    def facts(self) -> Facts:
        return self._round.facts()

    def error_event(self, error: GatewayError) -> bytes:
        return self._rounds.stream(self._round.error_event(error))


class ToolLoop:
    """One interception with injected tools."""

    def __init__(
        self,
        rounds: Rounds,
        toolset: Toolset,
        reply: Reply,
        share: Share,
        metrics: Metrics,
        *,
        new_observer: Callable[[], Observer],
        call_upstream: CallUpstream,
        round_ended: RoundEnded,
        accept_encoding: bytes,
    ) -> None:
        self._rounds = rounds
        self._toolset = toolset
        self._reply = reply
        self._share = share
        self._metrics = metrics
        self._new_observer = new_observer
        self._call_upstream = call_upstream
        self._round_ended = round_ended
        self._accept_encoding = accept_encoding
        self._results: list[Result] = []  # of the running round, as they come

    async def run(self, memory: OwnMemory, interruption: Interruption) -> None:
        """All rounds, to the last byte of the client's response. Raises `GatewayError`."""
        rounds = self._rounds
        number = 0
        while True:
            number += 1
            observer = self._new_observer()
            response = await self._patiently(self._call_upstream(rounds.body))
            try:
                if not await self._relay(response, observer, interruption):
                    return
            finally:
                response.close()
            self._results = []
            calls = [] if observer.error or number == MAX_ROUNDS else rounds.calls()
            results = await self._patiently(self._run_tools(calls)) if calls else []
            own = [] if observer.error else rounds.own_calls()
            if own and (held := rounds.held(results)).size > 1:
                memory.hold(own, held)
            if own or not calls:
                break
            await self._round_ended(self.facts(observer))
            rounds.go_on(results, last=number == MAX_ROUNDS - 1)
        if rounds.alias is not None:
            memory.name(*rounds.alias)
        await self._finish(response, interruption)

    async def _relay(self, response: UpstreamResponse, observer: Observer, interruption: Interruption) -> bool:
        """One round's message; whether the loop goes on."""
        rounds = self._rounds
        if response.streams:
            await relay_stream(response, observer, self._reply, self._share, self._read)
            return True
        if self._reply.begun:
            body, _ = await read_answer(response)
            observer.blocking(decoded_answer(response, body) or b"")
            # No status can be sent any more; the event's type still tells a limit from a failure.
            status = response.status if response.status >= 400 else 502
            raise GatewayError(status, "upstream_error", observer.error or f"upstream status {response.status}")
        if response.status != 200:
            await relay_answer(response, observer, self._accept_encoding, self._reply, interruption)
            return False
        body, whole = await read_answer(response)
        decoded = observed(response, body, observer) if whole else None
        if decoded is None:
            raise GatewayError(502, "upstream_error", "the upstream's answer cannot be read")
        rounds.blocking(decoded)
        return True

    async def _finish(self, response: UpstreamResponse, interruption: Interruption) -> None:
        end = self._rounds.end()
        if not self._reply.streaming:
            await send_whole(response, end, self._reply, interruption, b"content-length", b"content-encoding")
            return
        interruption.settle()
        await self._reply.finish(end)

    # Tools

    async def _run_tools(self, calls: list[ToolCall]) -> list[Result]:
        """All at once; each gets its result or its error."""
        return list(await asyncio.gather(*(self._run_tool(call) for call in calls)))

    async def _run_tool(self, call: ToolCall) -> Result:
        result = await self._outcome(call)
        self._results.append(result)
        return result

    async def _outcome(self, call: ToolCall) -> Result:
        arguments = call.parsed()
        if arguments is None:
            return Result(call=call, parts=(Part(text="the arguments are not a JSON object"),), is_error=True)
        outcome = await self._toolset.tools.call(call.name, arguments)
        if outcome.duration is not None and (tool := self._toolset.by_name.get(call.name)):
            self._metrics.tool_called(tool.server, tool.tool, outcome.duration, is_error=outcome.is_error)
        return Result(call=call, parts=_parts(outcome), is_error=outcome.is_error, duration=outcome.duration)

    def facts(self, observer: Observer) -> Facts:
        """What a round showed so far, its injected calls told apart from the client's."""
        facts = observer.facts()
        left = list(self._results)
        usages = []
        for usage in facts.tool_usages:
            mine = next((one for one in left if (one.call.id, one.call.name) == (usage.call_id, usage.tool)), None)
            if mine is not None:
                left.remove(mine)
            usages.append(self._usage(usage, mine))
        facts.tool_usages = usages
        return facts

    def _usage(self, usage: ToolUsage, result: Result | None) -> ToolUsage:
        tool = self._toolset.by_name.get(usage.tool)
        if tool is None or usage.tool not in self._rounds.names:
            return usage
        error = "no result: the message or the request ended before" if result is None else None
        if result is not None and result.is_error:
            error = result.text
        duration = result.duration if result is not None else None
        return replace(usage, tool=tool.tool, injected=True, server=tool.server, error=error, duration=duration)

    # Patience

    async def _read(self, response: UpstreamResponse) -> bytes:
        while True:
            try:
                # No task for each piece of a stream, as `_patiently` would have it.
                async with asyncio.timeout(PING_AFTER):
                    return await response.read_some()
            except TimeoutError:
                await self._ping()

    async def _patiently(self, work: Awaitable[T]) -> T:
        """Await, and give the client's stream a sign of life meanwhile, once it is known to be one."""
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
        if self._reply.streaming:
            await self._reply.piece(self._rounds.ping())


def _parts(result: ToolResult) -> tuple[Part, ...]:
    parts = []
    for content in result.content:
        if isinstance(content, Text):
            parts.append(Part(text=content.text))
        elif isinstance(content, Image) and content.mime_type in IMAGES:
            parts.append(Part(image=content.data, mime_type=content.mime_type))
        else:
            parts.append(Part(text=f"[{type(content).__name__.lower()}, {content.mime_type}]"))
    return tuple(parts)
