"""Strategies and helpers shared by the tests of the three formats."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fastapi_aibridge.formats.format import Format
from fastapi_aibridge.formats.rounds import Rounds
from fastapi_aibridge.recorder.records import Facts

from .parsing import parse

lean = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")])
FRAMES = st.sampled_from(
    [
        "data: {}\n\n",
        "data:{}\n\n",
        "event: any\ndata: {}\n\n",
        "data: {}\r\n\r\n",
        ": ping\n\ndata: {}\n\n",
        "id: 1\r\ndata: {}\r\nretry: 5\r\n\r\n",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_KEYS = """id type usage choices index delta tool_calls function_call function custom name arguments input finish_reason
    error message content text role messages model stream stream_options include_usage metadata user_id tools system
    content_block partial_json thinking response output item status summary phase call_id sequence_number
    prompt_tokens completion_tokens prompt_tokens_details completion_tokens_details cached_tokens reasoning_tokens
    input_tokens output_tokens input_tokens_details cache_creation cache_read_input_tokens server_tool_use"""
KEYS = st.sampled_from(_KEYS.split())
_WORDS = """user assistant tool text input_text message function_call custom_tool_call reasoning commentary tool_use
    thinking message_start message_delta message_stop content_block_start content_block_delta error tool_result
    response.created response.completed response.failed response.output_item.done function_call_output failed
    [DONE] gpt-5"""
WORDS = st.sampled_from(_WORDS.split())
PLAUSIBLE = st.recursive(
    JSON | WORDS | st.integers(-5, 5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)
"""JSON values with the formats' own member names in unexpected places."""


@st.composite
def blocks(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> bytes:
    """A server-sent event around a value, in any spelling and framing that is allowed."""
    value = json.dumps(draw(values), separators=draw(SEPARATORS), ensure_ascii=draw(st.booleans()))
    return draw(FRAMES).replace("{}", value).encode("utf-8", "replace")


def request_of(format_: Format, **members: Any) -> bytes:
    return json.dumps({"model": "m", "stream": True, **members}).encode()


class Observer:
    """A round that is relayed without injected tools, and the facts read from it."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self.stream = rounds.stream
        self.blocking = rounds.blocking
        self.error_event = rounds.error_events

    @property
    def message_id(self) -> str:
        return self._rounds.message.id

    @property
    def finished(self) -> bool:
        return self._rounds.message.complete

    @property
    def error(self) -> str | None:
        return self._rounds.message.error

    def facts(self) -> Facts:
        return self._rounds.message.facts()


def observer(format_: Format, *, max_text: int = 2**20, **members: Any) -> Observer:
    request = parse(format_, request_of(format_, **members))
    return Observer(format_.single(request.body, max_text, usage_asked=request.usage_asked))


def streamed(format_: Format, *values: Any, **members: Any) -> Observer:
    """Return an observer that has read these events, each as a block of its own."""
    watching = observer(format_, **members)
    for value in values:
        data = value if isinstance(value, str) else json.dumps(value)
        watching.stream(f"data: {data}\n\n".encode())
    return watching


def answered(format_: Format, value: Any) -> Observer:
    """Return an observer that has read this blocking response."""
    watching = observer(format_)
    watching.blocking(json.dumps(value).encode())
    return watching


def seen(watching: Observer) -> tuple[str, bool, str | None, Facts]:
    return watching.message_id, watching.finished, watching.error, watching.facts()


def tools(watching: Observer) -> list[tuple[str, str, Any]]:
    return [(usage.call_id, usage.tool, usage.arguments) for usage in watching.facts().tool_usages]
