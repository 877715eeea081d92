"""What a wire format has to offer the exchange engine: requests read, answers observed, errors written.

Formats do no I/O and know no framework: bytes in, bytes to relay and facts to record out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from ..errors import GatewayError
from ..recorder.records import Facts

if TYPE_CHECKING:
    from .rounds import RoundsFormat


@dataclass(slots=True, kw_only=True)
class ModelRequest:
    """An intercepted request, as far as the gateway has to understand it."""

    model: str
    streaming: bool
    body: bytes
    """What goes upstream: the client's bytes, edited only where the format needs it."""
    prompt: str | None = None
    correlating_tool_call_id: str | None = None
    user_id: str | None = None
    """`metadata.user_id`, where clients hide their session."""
    takes_tools: bool = True
    """Whether tools can be injected into it."""
    usage_asked: bool = True
    """Whether the client itself asked a streamed chat for its usage."""


class Observer(Protocol):
    """Watches one upstream message go by and keeps what is to be recorded; nothing it is fed makes it fail."""

    @property
    def finished(self) -> bool:
        """Whether the message has come to its end: a stream that stops earlier has broken off."""

    @property
    def over(self) -> bool:
        """Whether the stream's last event has been seen."""

    @property
    def error(self) -> str | None:
        """The error that the upstream itself reported, within the message or instead of it."""

    def stream(self, block: bytes) -> bytes:
        """One or more whole events; returns those that the client gets."""

    def blocking(self, body: bytes) -> bool:
        """The whole body of an answer that is no stream, decoded; also of an error. Whether it is a JSON object."""

    def facts(self) -> Facts:
        """What was seen, prompts aside; usages are marked partial while the message is not finished."""

    @property
    def message_id(self) -> str: ...

    def error_event(self, error: GatewayError) -> bytes:
        """The event that ends a broken stream, in the provider's shape."""


class Format(Protocol):
    name: str

    def parse(self, body: bytes) -> ModelRequest:
        """Read a request. Raises `GatewayError` with status 400."""

    def observer(self, request: ModelRequest) -> Observer: ...

    @property
    def rounds(self) -> RoundsFormat:
        """How the format goes round with injected tools."""


def parse_object(body: bytes) -> dict[str, Any]:
    """The request's JSON object, with a model and the stream flag checked. Raises `GatewayError`, 400."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise GatewayError(400, "invalid_json", f"the request body is not valid JSON: {error.msg}") from None
    if not isinstance(value, dict):
        raise GatewayError(400, "invalid_request", "the request body is not a JSON object")
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise GatewayError(400, "missing_model", "the request body names no model: 'model' must be a non-empty string")
    return value


def last_message(messages: object, *, passed_over: tuple[str, ...] = ()) -> dict[str, Any]:
    """Who spoke last, and what; empty if nobody did. Roles that are `passed_over` do not count."""
    if not isinstance(messages, list):
        return {}
    spoken = (one for one in reversed(messages) if not (isinstance(one, dict) and one.get("role") in passed_over))
    last = next(spoken, None)
    return last if isinstance(last, dict) else {}


def load(data: bytes) -> dict[str, Any]:
    """The JSON object in an upstream's bytes, empty where it is none: an observer never fails."""
    return load_answer(data) or {}


def load_answer(data: bytes) -> dict[str, Any] | None:
    """The same, where it matters that it is none."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = _load_loosely(data)
    return value if isinstance(value, dict) else None


def _load_loosely(data: bytes) -> Any:
    """What some providers send and most clients read, though it is no JSON: NaN, half a surrogate pair."""
    try:
        value = json.loads(data.decode("utf-8-sig", errors="replace"), parse_int=_integer)
        # Half a pair is no character, and no database takes it.
        return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | float:
    """As orjson has it: what is no 64-bit number is a float."""
    return int(digits) if len(digits) < 19 else float(digits)


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in what should be a list of them."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def member(value: object, name: str) -> dict[str, Any]:
    """The object in a member, empty where there is none."""
    inner = value.get(name) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


_MOST = 10**12
"""Tokens; a larger number is no count, and sums of such would not fit into a database."""


def count(value: object) -> int:
    """A number of tokens, or an index; 0 where it is none."""
    return value if type(value) is int and 0 < value <= _MOST else 0


def counts(value: dict[str, Any], names: dict[str, str]) -> dict[str, int]:
    """The token kinds that a provider reported: its name to ours."""
    return {ours: count(value[theirs]) for theirs, ours in names.items() if type(value.get(theirs)) is int}


def arguments_of(raw: object) -> Any:
    """Tool arguments, parsed where they are JSON, else as they are. None at all are an empty object."""
    if not isinstance(raw, str):
        return raw
    if not raw.strip():
        return {}
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw


def error_text(value: object) -> str:
    """What the record says of a provider's error object or string."""
    if isinstance(value, dict):
        words = [text(value.get("type")) or text(value.get("code")), text(value.get("message"))]
        value = ": ".join(word for word in words if word)
    return text(value) or "the upstream reported an error without a message"
