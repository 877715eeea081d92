"""What comes from upstream, event by event: the one place where a message's bytes are read.

`Decoder` is given whole events and gives each back with what it holds; a `Message` takes in what they say. What is
recorded is a view of the message, and weaving rounds changes the events on their way: neither reads bytes.
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
"""Bytes of events that wait to be read; beyond that they are, all at once."""


class Message(Protocol):
    """One upstream message, as far as it has come. Nothing that it is given makes it fail."""

    id: str
    complete: bool
    """Whether the message has come to its end: a stream that stops earlier has broken off."""
    error: str | None
    """The error that the upstream itself reported, within the message or instead of it."""

    @property
    def stream_complete(self) -> bool:
        """Whether the stream's last event has been seen."""

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in what one event of a stream says."""

    def done(self) -> None:
        """The stream has said `[DONE]`."""

    def read(self, answer: Mapping[str, Any]) -> None:
        """Take in a whole answer that is no stream; also an error's."""

    def facts(self) -> Facts:
        """What is to be recorded; usages are marked partial while the message is not complete."""


class Decoder:
    """Reads the events of one upstream message. An event that has nothing to tell is passed over by its bytes."""

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
        """Whether each event is read, as it must be where its text may go back to the provider."""
        self.last = b""
        """The last block with the mark that is in `numbered` events."""
        self._goes_back = goes_back  # whether these may have all that was said before go back to the provider
        self._tells = tells  # whether anything in these events can matter; most bytes of most streams do not
        self._numbered = numbered
        self._begun = False
        self._postponed: list[bytes] = []
        self._size = 0  # of what is postponed
        # Events with numbers are never the same.
        self._alike = None if every or numbered is not None else Likeness()

    def passes(self, block: bytes) -> bool:
        """Whether these events can be passed on unread."""
        if not self._begun or self.every:
            return False
        alike = self._alike
        if alike is not None and b"\r" not in block:
            if alike.end(block) == len(block):
                return True
            if alike.hopes and block.find(b"\n\n") < len(block) - 2:
                return False  # there are several, and each is compared
        if self._tells(block):
            return False
        if alike is not None:
            alike.learn(block)
        if self._numbered is not None and self._numbered in block:
            self.last = block
        return True

    def postpones(self, block: bytes) -> bool:
        """Whether these events can be passed on before they are read: what they say is needed only where the message
        goes back to the provider, and they are read once it shows that it may.
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
        """Each event of a block as it came, and what it says: nothing where that has not been read.

        Events in a row that are not read may come as one, unless `every` is.
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
                # What no empty line ends is at most a line break more than an event needs.
                end = sse.end_of_event(block, begin) or len(block)
                raw = block[begin:end]
                yield raw, self._take(raw)
            begin = end

    def _take(self, raw: bytes) -> Mapping[str, Any]:
        """What one event says."""
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
        """A whole answer that is no stream; None where it is no JSON object."""
        answer = load_answer(body)
        if answer is not None:
            self.message.read(answer)
        return answer
