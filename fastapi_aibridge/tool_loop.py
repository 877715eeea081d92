"""Runs the tools that the model picks, and goes round with their results until it has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import aiohttp

from .errors import GatewayError
from .formats import Observer
from .formats.rounds import Held, Part, Result, Rounds, ToolCall
from .interruption import Interruption
from .mcp import Image, Text, ToolResult
from .observability import Metrics
from .recorder import Facts, ToolUsage
from .relay import decoded_answer, is_stream, read_answer, relay_answer, relay_stream, send_whole, stream_head
from .reply import RawHeaders, Reply
from .tool_memory import OwnMemory
from .toolset import Toolset
from .upstream.client import read_some

MAX_ROUNDS = 25
"""Upstream messages of one interception. In the last one the model may call nothing any more."""
PING_AFTER = 10.0
"""Seconds of silence after which a stream gets a sign of life."""

T = TypeVar("T")
CallUpstream = Callable[[bytes], Awaitable[aiohttp.ClientResponse]]
RoundEnded = Callable[[Facts], Awaitable[None]]


class ToolLoop:
    """One interception with injected tools."""

    def __init__(
        self,
        rounds: Rounds,
        toolset: Toolset,
        reply: Reply,
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
        self._metrics = metrics
        self._new_observer = new_observer
        self._call_upstream = call_upstream
        self._round_ended = round_ended
        self._accept_encoding = accept_encoding
        self._head: RawHeaders | None = None
        self._durations: dict[str, float] = {}

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
            calls = [] if observer.error or number > MAX_ROUNDS else rounds.calls()
            if not calls:
                break
            results = await self._patiently(self._run_tools(calls))
            await self._round_ended(self.facts(observer, results))
            if own := rounds.own_calls():
                memory.hold(own, Held(results=tuple(results)))
                break
            rounds.go_on(results, last=number == MAX_ROUNDS)
        if rounds.alias is not None:
            memory.name(*rounds.alias)
        await self._finish(response, interruption)

    async def _relay(self, response: aiohttp.ClientResponse, observer: Observer, interruption: Interruption) -> bool:
        """One round's message; whether the loop goes on."""
        rounds = self._rounds
        if is_stream(response):
            self._head = self._head or stream_head(response)

            def weave(block: bytes) -> bytes:
                observer.stream(block)
                return rounds.stream(block)

            await relay_stream(response, observer, weave, self._reply, self._head, self._read)
            return True
        if self._reply.begun:
            body, _ = await read_answer(response)
            observer.blocking(decoded_answer(response, body) or b"")
            raise GatewayError(502, "upstream_error", observer.error or f"upstream status {response.status}")
        if response.status != 200:
            await relay_answer(response, observer, self._accept_encoding, self._reply, interruption)
            return False
        body, whole = await read_answer(response)
        decoded = decoded_answer(response, body) if whole else None
        if decoded is None:
            raise GatewayError(502, "upstream_error", "the upstream's answer cannot be read")
        observer.blocking(decoded)
        rounds.blocking(decoded)
        return True

    async def _finish(self, response: aiohttp.ClientResponse, interruption: Interruption) -> None:
        end = self._rounds.end()
        if self._head is None:
            await send_whole(response, end, self._reply, interruption, b"content-length", b"content-encoding")
            return
        interruption.settle()
        if not self._reply.begun:
            await self._reply.begin(200, self._head)
        await self._reply.finish(end)

    # Tools

    async def _run_tools(self, calls: list[ToolCall]) -> list[Result]:
        """All at once; each gets its result or its error."""
        return list(await asyncio.gather(*(self._run_tool(call) for call in calls)))

    async def _run_tool(self, call: ToolCall) -> Result:
        arguments = call.parsed()
        if arguments is None:
            return Result(call=call, parts=(Part(text="the arguments are not a JSON object"),), is_error=True)
        outcome = await self._toolset.tools.call(call.name, arguments)
        self._durations[call.id] = outcome.duration
        if tool := self._toolset.by_name.get(call.name):
            self._metrics.tool_called(tool.server, tool.tool, outcome.duration, is_error=outcome.is_error)
        return Result(call=call, parts=_parts(outcome), is_error=outcome.is_error)

    def facts(self, observer: Observer, results: list[Result]) -> Facts:
        """What a round showed, its injected calls told apart from the client's."""
        facts = observer.facts()
        by_id = {result.call.id: result for result in results}
        facts.tool_usages = [self._usage(usage, by_id.get(usage.call_id)) for usage in facts.tool_usages]
        return facts

    def _usage(self, usage: ToolUsage, result: Result | None) -> ToolUsage:
        tool = self._toolset.by_name.get(usage.tool)
        if tool is None:
            return usage
        error = "no result: the message or the request ended before" if result is None else None
        if result is not None and result.is_error:
            error = result.text
        return replace(
            usage,
            tool=tool.tool,
            injected=True,
            server=tool.server,
            error=error,
            duration=self._durations.get(usage.call_id),
        )

    # Patience

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        return await self._patiently(read_some(response))

    async def _patiently(self, work: Awaitable[T]) -> T:
        """Await, and give the client's stream a sign of life meanwhile, once it is known to be one."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=PING_AFTER)
                if not task.done() and self._head is not None:
                    if not self._reply.begun:
                        await self._reply.begin(200, self._head)
                    await self._reply.piece(self._rounds.ping())
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))


def _parts(result: ToolResult) -> tuple[Part, ...]:
    parts = []
    for content in result.content:
        if isinstance(content, Text):
            parts.append(Part(text=content.text))
        elif isinstance(content, Image):
            parts.append(Part(image=content.data, mime_type=content.mime_type))
        else:
            parts.append(Part(text=f"[audio, {content.mime_type}]"))
    return tuple(parts)
