"""Texts assembled from the pieces of a stream, in bounded time and memory."""

from __future__ import annotations

from io import StringIO

WHOLE = 32 * 2**20
"""Characters kept of an interception's messages where they may have to go back to the provider."""
TEXTS = 4
"""Texts of the largest size that are recorded of one message."""
ITEMS = 4096
"""Calls, blocks and parts of one message that are kept apart."""


class Budget:
    """The characters and items that may still be kept of one message, or of all messages of an interception."""

    __slots__ = ("each", "exceeded", "items", "left", "recorded")

    def __init__(self, each: int, total: int, recorded: int) -> None:
        self.each = each
        self.left = total
        self.recorded = recorded
        """Characters of each text that go into the record."""
        self.items = ITEMS
        self.exceeded = False
        """Whether something has been left out."""

    @classmethod
    def of_record(cls, max_text: int) -> Budget:
        """Make the budget of a message that is only recorded: `max_text` characters of each text."""
        return cls(max_text, TEXTS * max_text, max_text)

    @classmethod
    def of_rounds(cls, max_text: int) -> Budget:
        """Make the budget of messages that may go back to the provider, and must be kept whole for that."""
        return cls(WHOLE, WHOLE, max_text)

    def take(self, size: int, items: int = 0) -> bool:
        """Spend these characters and items if there are enough left; return whether there were."""
        if size > self.left or items > self.items:
            self.exceeded = True
            return False
        self.left -= size
        self.items -= items
        return True


class TextBuffer:
    """A text that comes in pieces, cut where the budget ends."""

    __slots__ = ("_budget", "_buffer", "_first", "_last", "_room", "truncated")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._last = ""
        self._first = ""  # most texts of some kinds come in one piece
        self._buffer: StringIO | None = None
        self._room = budget.each
        self.truncated = False

    def add(self, piece: str) -> None:
        if not piece or self.truncated:
            return
        budget = self._budget
        size, room = len(piece), min(self._room, budget.left)
        if size > room:
            self.truncated = budget.exceeded = True
            piece, size = piece[:room], room
        self._room -= size
        budget.left -= size
        self._last = piece.rstrip()[-1:] or self._last
        if self._buffer is not None:
            self._buffer.write(piece)
        elif not self._first:
            self._first = piece
        else:
            self._buffer = StringIO(newline="")
            self._buffer.write(self._first)
            self._buffer.write(piece)

    @property
    def last(self) -> str:
        """The last character that was kept, blanks aside."""
        return self._last

    def __bool__(self) -> bool:
        return bool(self._first)

    def __str__(self) -> str:
        return self._first if self._buffer is None else self._buffer.getvalue()
