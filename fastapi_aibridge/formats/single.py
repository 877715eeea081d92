"""The only round of a request without injected tools: one upstream message, which the client gets unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import GatewayError
from .decoder import Decoder, Message
from .large_text import BodyText, Steps, unchanged
from .rounds import AnsweredCall, Held, ToolCall

ErrorEvents = Callable[[GatewayError, Decoder, bool], bytes]
"""Makes the end of a broken stream; the flag is the `failed` of `Rounds.error_events`."""


class SingleRound:
    """Relays event by event; events with nothing to record are passed on unparsed."""

    __slots__ = ("_decoder", "_drops", "_error_events", "body", "message")

    names: frozenset[str] = frozenset()
    alias = None
    untouched = True

    def __init__(
        self,
        body: BodyText,
        decoder: Decoder,
        error_events: ErrorEvents,
        drops: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        self.body = body
        self.message: Message = decoder.message
        self._decoder = decoder
        self._error_events = error_events
        self._drops = drops

    def stream(self, block: bytes) -> bytes:
        decoder, drops = self._decoder, self._drops
        if decoder.passes(block):
            return block
        if drops is None:
            for _ in decoder.feed(block):
                pass
            return block
        kept: list[bytes] = []
        dropped = False
        for raw, event in decoder.feed(block):
            if event and drops(event):
                dropped = True
            else:
                kept.append(raw)
        return b"".join(kept) if dropped else block

    def blocking(self, body: bytes) -> bool:
        return self._decoder.read(body) is not None

    def calls(self) -> list[ToolCall]:
        return []

    def client_calls(self) -> list[str]:
        return []

    def held(self, results: Sequence[AnsweredCall]) -> Held:  # noqa: ARG002 - nothing is hidden
        return Held()

    def held_under(self) -> list[str]:
        return []

    def go_on(self, results: Sequence[AnsweredCall], *, last: bool) -> Steps[None]:
        raise NotImplementedError("there is one round only")

    def take_out(self, refusal: bytes) -> Steps[bool]:  # noqa: ARG002 - nothing is named by ids
        return unchanged(False)

    def end(self) -> bytes:
        return b""

    def ping(self) -> bytes:
        return b""

    def error_events(self, error: GatewayError, *, failed: bool = False) -> bytes:
        return self._error_events(error, self._decoder, failed)
