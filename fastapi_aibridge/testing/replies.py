"""What a scripted model answers, said once for all wire formats."""

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
    """Tokens of one reply. `input_tokens` leaves cached tokens out, `output_tokens` counts reasoning in.

    Each wire format puts them as its vendor does: OpenAI's input is the sum of the three kinds of input.
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
    """A call that the model makes; `arguments` given as text are sent as they are, even if they are not JSON."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"call_{uuid4().hex[:24]}")

    @property
    def arguments_text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else orjson.dumps(dict(self.arguments)).decode()

    @property
    def arguments_object(self) -> dict[str, Any]:
        """The arguments for a format that can only carry an object: empty where the text is none."""
        try:
            value = orjson.loads(self.arguments_text)
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model: thinking, then text, then tool calls.

    Thinking is a `thinking` block in Messages and a reasoning summary in Responses; Chat Completions has no place for
    it, only for the count in `usage`.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: Sequence[ToolCall] = ()
    usage: Usage = field(default_factory=Usage)
    delay: float = 0.0
    """Seconds before each event of a stream, and before an answer that is not streamed."""
    status: int = 200
    """From 400 on, the request is refused with an error in the provider's shape."""
    error: str | None = None
    """The message of a refusal. With status 200 a stream ends in an error event after its text, before its tool calls
    and its end; an answer that is not streamed is refused with 500 instead."""
    hang_up: bool = False
    """The connection is closed after the text, as if the provider had died; before any byte if nothing is streamed."""
    stop_reason: StopReason | None = None
    """Why the model stopped; by default what follows from `tool_calls`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers of the answer, such as `Retry-After`."""

    @property
    def stopped_by(self) -> StopReason:
        return self.stop_reason or ("tool_calls" if self.tool_calls else "end")

    @property
    def breaks_off(self) -> bool:
        """Whether a stream of this reply never gets to its end."""
        return self.hang_up or self.error is not None

    def refusal(self, *, streamed: bool) -> int | None:
        """The status with which the request is refused, None if it is answered."""
        if self.status >= 400:
            return self.status
        return 500 if self.error is not None and not streamed else None


def words(text: str) -> Iterator[str]:
    """The pieces in which text is streamed; joined they are the text."""
    return (match.group() for match in _WORD.finditer(text))


def argument_pieces(text: str) -> Iterator[str]:
    return (text[start : start + _ARGUMENT_PIECE] for start in range(0, len(text), _ARGUMENT_PIECE))
