"""The replies of a scripted model, in a form common to all wire formats."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

import orjson

StopReason = Literal["end", "tool_calls", "max_tokens", "refusal"]

_WORD = re.compile(r"\s*\S+|\s+$")
_ARGUMENT_PIECE = 12
"""Characters of a tool call's arguments in one event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one reply. `input_tokens` excludes cached tokens, `output_tokens` includes reasoning.

    Each wire format counts them as its vendor does: OpenAI's input is the sum of the three kinds of input.
    """

    input_tokens: int = 12
    output_tokens: int = 6
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def all_input_tokens(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that the model makes; `arguments` given as text are sent as they are, even if they are not JSON."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"call_{uuid4().hex[:24]}")

    @property
    def arguments_text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else orjson.dumps(dict(self.arguments)).decode()

    @property
    def arguments_object(self) -> dict[str, Any]:
        """The arguments for a format that can only carry an object; empty if the text is no object."""
        try:
            value = orjson.loads(self.arguments_text)
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of the model: thinking, then text, then tool calls.

    Thinking is a `thinking` block in Messages and a reasoning summary in Responses; Chat Completions has no place for
    it, only for its count in `usage`.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: Sequence[ToolCall] = ()
    usage: Usage = field(default_factory=Usage)
    delay: float = 0.0
    """Seconds before each event of a stream, and before a response that is not streamed."""
    status: int = 200
    """The HTTP status. From 400 on, the request is refused with an error in the provider's format."""
    error: str | None = None
    """The message of a refusal. With status 200, a stream ends in an error event after its text, before its tool calls
    and its end; a response that is not streamed becomes a refusal with 500 instead.
    """
    hang_up: bool = False
    """Whether the connection is closed early, as if the provider died: after a stream's text, else in mid-body."""
    stop_reason: StopReason | None = None
    """The reason why the model stopped; by default the one that follows from `tool_calls`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers of the response, such as `Retry-After`."""

    @property
    def stopped_by(self) -> StopReason:
        return self.stop_reason or ("tool_calls" if self.tool_calls else "end")

    @property
    def breaks_off(self) -> bool:
        """Whether a stream of this reply breaks off before its end."""
        return self.hang_up or self.error is not None

    def refusal(self, *, streamed: bool) -> int | None:
        """Return the status with which the request is refused; None if it is answered."""
        if self.status >= 400:
            return self.status
        return 500 if self.error is not None and not streamed else None


def words(text: str) -> Iterator[str]:
    """Split text into the pieces in which it is streamed; joined they are the text."""
    return (match.group() for match in _WORD.finditer(text))


def argument_pieces(text: str) -> Iterator[str]:
    return (text[start : start + _ARGUMENT_PIECE] for start in range(0, len(text), _ARGUMENT_PIECE))
