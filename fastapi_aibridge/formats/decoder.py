"""Parsing of upstream messages, event by event.

A `Decoder` takes whole events and yields each with its parsed data; a `Message` accumulates these. Records are made
from the message, and weavers change the events on their way to the client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from .. import sse
from ..recorder.records import Facts
from .lenient import load, load_answer
from .likeness import Likeness

NOTHING: Mapping[str, Any] = {}
DONE = b"[DONE]"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TOGETHER = 64 * 1024
"""Bytes of postponed events; beyond that all of them are parsed at once."""


class Message(Protocol):
    """One upstream message, as far as it has arrived. Its methods accept any input and never raise."""

    id: str
    complete: bool
    """Whether the message has reached its end; a stream that stops earlier was broken off."""
    error: str | None
    """The error that the upstream itself reported, within the message or in place of it."""

    @property
    def stream_complete(self) -> bool:
        """Whether the stream's last event has been seen."""

    def apply(self, event: Mapping[str, Any]) -> None:
        """Add the data of one event of a stream."""

    def done(self) -> None:
        """Note that the stream has sent `[DONE]`."""

    def read(self, answer: Mapping[str, Any]) -> None:
        """Add a whole non-streaming response, which may be an error."""

    def facts(self) -> Facts:
        """Return the facts to record; usages are marked partial while the message is not complete."""


class Decoder:
    """Parses the events of one upstream message, except those whose bytes show nothing of interest."""

    __slots__ = (
        "_alike", "_begun", "_goes_back", "_numbered", "_postponed", "_size", "_tells", "every", "last", "message",
    )  # fmt: skip

    def __init__(
        self,
        message: Message,
        tells: Callable[[bytes], bool],
        *,
        every: bool = False,
        numbered: bytes | None = None,
        goes_back: Callable[[bytes], bool] = lambda _: True,
    ) -> None:
        self.message = message
        self.every = every
        """Whether every event is parsed, as is needed where the message may go back to the provider."""
        self.last = b""
        """The last block that contains the mark `numbered`."""
        self._goes_back = goes_back  # whether postponed events must be parsed before these
        self._tells = tells  # whether anything in these events matters; most bytes of most streams do not
        self._numbered = numbered
        self._begun = False
        self._postponed: list[bytes] = []
        self._size = 0  # bytes of the postponed blocks
        # Numbered events are never alike.
        self._alike = None if every or numbered is not None else Likeness()

    def passes(self, block: bytes) -> bool:
        """Whether these events can be passed on unparsed."""
        if not self._begun or self.every:
            return False
        alike = self._alike
        if alike is not None and b"\r" not in block:
            if alike.end(block) == len(block):
                return True
            if alike.hopes and block.find(b"\n\n") < len(block) - 2:
                return False  # several events, which `feed` compares one by one
        if self._tells(block):
            return False
        if alike is not None:
            alike.learn(block)
        if self._numbered is not None and self._numbered in block:
            self.last = block
        return True

    def postpones(self, block: bytes) -> bool:
        """Whether these events can be passed on now and parsed later.

        Their content is needed only if the message goes back to the provider; `feed` parses them once that becomes
        possible.
        """
        if not self._begun or self._tells(block):
            return False
        self._postponed.append(block)
        self._size += len(block)
        if self._size > _TOGETHER:
            self._catch_up()
        return True

    def _catch_up(self) -> None:
        for raw in sse.events(b"".join(self._postponed)):
            self._take(raw)
        self._postponed.clear()
        self._size = 0

    def feed(self, block: bytes) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
        """Yield each event of a block as received, with its data, which is empty where the event was not parsed.

        Consecutive unparsed events may come as one, unless `every` is set.
        """
        if self._postponed and self._goes_back(block):
            self._catch_up()
        if self._numbered is not None and self._numbered in block:
            self.last = block
        alike = self._alike
        if alike is None or b"\r" in block:
            for raw in sse.events(block):
                yield raw, self._take(raw)
            return
        begin = 0
        while begin < len(block):
            end = alike.end(block, begin) if self._begun else begin
            if end > begin:
                yield block[begin:end], NOTHING
            else:
                # A rest that no empty line ends is at most a surplus line break.
                end = sse.end_of_event(block, begin) or len(block)
                raw = block[begin:end]
                yield raw, self._take(raw)
            begin = end

    def _take(self, raw: bytes) -> Mapping[str, Any]:
        """Parse one event and return its data, empty where it is skipped."""
        if self._begun and not self.every and not self._tells(raw):
            if self._alike is not None:
                self._alike.learn(raw)
            return NOTHING
        data = sse.data_of(raw if self._begun else raw.removeprefix(_BYTE_ORDER_MARK))
        if data.strip() == DONE:
            self._begun = True
            self.message.done()
            return NOTHING
        event = load(data)
        if event:
            self.message.apply(event)
            self._begun = self._begun or bool(self.message.id)
        return event

    def read(self, body: bytes) -> Mapping[str, Any] | None:
        """Parse a whole non-streaming response; return None where it is not a JSON object."""
        answer = load_answer(body)
        if answer is not None:
            self.message.read(answer)
        return answer
