"""The rounds of a response with injected tools: several upstream messages woven into the one that the client sees.

Formats do no I/O here either: upstream bytes go in, bytes for the client and the next request come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import orjson

from ..errors import GatewayError
from ..tools import Tool, ToolResult
from .decoder import Message
from .edits import elements, ends_with, find, list_member, replaced, with_member, with_new_member
from .large_text import LARGE, BodyText, Steps, contains
from .lenient import load, member, text


@dataclass(slots=True, kw_only=True)
class ToolCall:
    """A call of an injected tool by the model."""

    id: str
    name: str
    arguments: str
    """The arguments as the model wrote them: JSON, or an attempt at it."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further members that the provider put into the call and expects back, such as a signature."""

    def parsed(self) -> dict[str, Any] | None:
        """Return the arguments, empty where there are none; None where they are not a JSON object.

        Some models write the object as JSON within a JSON string, and `null` for no arguments.
        """
        value: object = self.arguments
        for _ in range(2):
            if not isinstance(value, str):
                break
            if not value.strip():
                return {}
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError:
                return None
        return {} if value is None else value if isinstance(value, dict) else None

    def sent_back(self) -> str:
        """Return the arguments for the history: providers refuse one whose arguments are not a JSON object.

        The tool result tells the model what it wrote.
        """
        parsed = self.parsed()
        if parsed is not None and self.arguments.lstrip().startswith("{"):
            return self.arguments
        return orjson.dumps(parsed or {}).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredCall:
    """A call and its result. Images in the result are of kinds that all vendors' models can see."""

    call: ToolCall
    result: ToolResult


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenCall:
    """An injected call and its result, hidden from the client, as JSON for the provider."""

    id: str
    call: bytes
    output: bytes
    place: int = 0
    """Number of the message's visible items before the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A round whose calls were all injected, so that the client saw only the content beside them."""

    said: tuple[str, ...]
    """Marks of the content that the client saw, by which its format recognizes it in later requests."""
    written: tuple[bytes, ...] = ()
    """The message and the tool results as they went back to the provider: JSON."""
    hidden: tuple[HiddenCall, ...] = ()
    """The hidden calls, in place of `written` where the client has the rest of the message item by item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The parts of a response that are hidden from the client.

    They are put back when the client sends the results of its own calls, and in all later requests that repeat them: a
    model without its tools' results would call them again and again.
    """

    hidden: tuple[HiddenCall, ...] = ()
    """Injected calls of the last round, which the model made together with the client's."""
    order: tuple[str, ...] = ()
    """Ids of the last round's calls, in order: all of them in Chat Completions, only the client's in Responses."""
    ending: tuple[str, ...] = ()
    """Marks of the content of the last round before those calls."""
    earlier: tuple[Turn, ...] = ()

    @property
    def size(self) -> int:
        """Bytes, approximately; 1 where nothing is hidden."""
        marks = [*self.ending, *(mark for turn in self.earlier for mark in turn.said)] if self.hidden_at_all else []
        written = [one for turn in self.earlier for one in turn.written]
        hidden = [*self.hidden, *(one for turn in self.earlier for one in turn.hidden)]
        written += [one for call in hidden for one in (call.call, call.output)]
        return 1 + sum(map(len, marks)) + sum(map(len, written))

    @property
    def hidden_at_all(self) -> bool:
        return bool(self.hidden or self.earlier)


class Memory(Protocol):
    """The hidden parts of earlier responses to the same principal."""

    @property
    def empty(self) -> bool: ...

    def held(self, key: str) -> Held | None:
        """Return the parts held under a key of `Rounds.held_under`, mostly the id of a call of the client's tool."""

    def named(self, response_id: str) -> str:
        """Return the upstream id of a response for the id that the client has seen; mostly the same."""


class Rounds(Protocol):
    """The upstream messages of one interception, and the one response that the client gets.

    Feed each round to `stream` or `blocking`, then ask `calls`. Without injected tools the first round is the last.
    """

    body: BodyText
    """The body of the next upstream request."""
    names: frozenset[str]
    """Names of the tools injected into the request, without names that the client's own tools have."""

    @property
    def message(self) -> Message:
        """The upstream message of the current round."""

    @property
    def alias(self) -> tuple[str, str] | None:
        """The response id that the client has seen and the upstream's own; None where they are the same."""

    @property
    def untouched(self) -> bool:
        """Whether the client gets a non-streaming response of this round unchanged."""

    def stream(self, block: bytes) -> bytes:
        """Take whole events of this round; return the bytes that the client gets now. Raises `GatewayError`."""

    def blocking(self, body: bytes) -> bool:
        """Take the round's non-streaming response, or its error. Return whether it is a JSON object."""

    def calls(self) -> list[ToolCall]:
        """Return the injected calls of this round's message that can be run; an empty list ends the rounds.

        Raises `GatewayError` where the message was too large to be kept.
        """

    def client_calls(self) -> list[str]:
        """Return the ids of this message's calls of the client's tools; if there are any, this is the last round."""

    def held(self, results: Sequence[AnsweredCall]) -> Held:
        """Return the parts of this response that stay hidden from the client; `results` are the last round's."""

    def held_under(self) -> list[str]:
        """Return the keys by which a later request shows that it knows this response."""

    def go_on(self, results: Sequence[AnsweredCall], *, last: bool) -> Steps[None]:
        """Begin the next round with these results. In the `last` one the model may call no more tools."""

    def take_out(self, refusal: bytes) -> Steps[bool]:
        """Remove from the next request what the provider itself gave and its refusal names: ids that it has not stored,
        members that it does not accept. Return whether something was removed.
        """

    def end(self) -> bytes:
        """Return the end of the client's response: the held-back end of a stream, or a whole non-streaming body."""

    def ping(self) -> bytes:
        """Return an event that keeps a silent stream alive."""

    def error_events(self, error: GatewayError, *, failed: bool = False) -> bytes:
        """Return the end of a broken stream, in the provider's shape, so that the vendor's SDK raises.

        With `failed`, the format's own final event follows, if it has one: some clients read nothing else.
        """


_ID_LENGTH = 9
"""Characters of an id that is made here: Mistral accepts no other length."""


def unique_id(given: str, taken: set[str]) -> str:
    """Return the id, or a new one where it is missing or taken; it is taken then.

    Some providers send no ids, or the same for several calls, and refuse a history with those all the same.
    """
    id_ = given
    while not id_ or id_ in taken:
        id_ = uuid4().hex[:_ID_LENGTH]
    taken.add(id_)
    return id_


def parameters(tool: Tool) -> dict[str, Any]:
    """Return the tool's schema as all vendors accept it: an object with properties.

    They refuse a whole request for one tool without those, or with alternatives at the top of its schema.
    """
    schema = {key: value for key, value in tool.input_schema.items() if key not in _NOT_AT_THE_TOP}
    if not isinstance(schema.get("properties"), Mapping):
        schema["properties"] = {}
    return {**schema, "type": "object"}


_NOT_AT_THE_TOP = {"oneOf", "anyOf", "allOf", "not", "enum"}


PREFIX = "bmcp_"
"""Prefix of the names of all injected tools."""
_MARK = f'"{PREFIX}'.encode()


def offered(
    body: BodyText, names: frozenset[str], definitions: bytes, max_tools: int | None
) -> Steps[tuple[frozenset[str], bytes]]:
    """Return the names and definitions of the injected tools that can be offered in this request.

    A tool that shares its name with one of the client's own (the client may itself be a gateway) is left out: providers
    refuse two tools of one name, and a call of it is the client's. The last tools beyond `max_tools` are left out, too.
    """
    given: list[bytes] = []
    if (yield from contains(body, (_MARK,), 0, len(body))) or (max_tools is not None and _may_be_crowded(body)):
        given = yield from list_member(body, "tools")
    own = {_name_of(load(tool)) for tool in given if _MARK in tool}
    room = len(names) if max_tools is None else max(0, max_tools - len(given))
    if names.isdisjoint(own) and len(names) <= room:
        return names, definitions
    left: dict[str, bytes] = {}
    for one in (yield from elements(b"[" + definitions + b"]")):
        name = _name_of(load(one))
        if name not in own and len(left) < room:
            left[name] = one
    return frozenset(left), b",".join(left.values())


def _may_be_crowded(body: BodyText) -> bool:
    """Whether the client's tools may be many, so that they must be counted. Each of them has a `type`."""
    return len(body) >= LARGE or body[:].count(b'"type"') >= _FEW_TOOLS


_FEW_TOOLS = 64


def _name_of(tool: Mapping[str, Any]) -> str:
    return text(tool.get("name")) or text(member(tool, "function").get("name"))


def with_tools(body: BodyText, definitions: bytes) -> Steps[BodyText]:
    """Return a request with these tools before the client's own. `definitions` is the inside of a JSON list."""
    if not definitions:
        return body
    span = yield from find(body, "tools")
    if span is None:
        return (yield from with_new_member(body, "tools", b"[" + definitions + b"]"))
    begin, end = span
    if not body.startswith(b"[", begin):
        return (yield from replaced(body, begin, end, b"[" + definitions + b"]"))
    empty = end - begin <= _FEW_TOOLS and not body[begin + 1 : end - 1].strip()
    return (yield from replaced(body, begin + 1, begin + 1, definitions, b"" if empty else b","))


def extended(body: BodyText, name: str, added: Iterable[bytes]) -> Steps[BodyText]:
    """Return the request with these JSON values at the end of one of its lists."""
    new = b",".join(added)
    span = yield from find(body, name)
    if span is None or not body.startswith(b"[", span[0]):
        return (yield from with_member(body, name, b"[" + new + b"]"))
    closing = span[1] - 1
    comma = b"," if new and not ends_with(body, closing, b"[") else b""
    return (yield from replaced(body, closing, closing, comma, new))


def forced(choice: object, auto: object) -> object | None:
    """Return the replacement for a `tool_choice` that forces a call, once one has been made; None where it forces none.

    It holds for the first round only, else the model could never finish.
    """
    if isinstance(choice, str) and choice.lower() in ("required", "any"):
        return auto
    if not isinstance(choice, Mapping):
        return None
    if choice.get("type") == "allowed_tools":
        listed = member(choice, "allowed_tools")
        if listed.get("mode") == "required":
            return {**choice, "allowed_tools": {**listed, "mode": "auto"}}
        return {**choice, "mode": "auto"} if choice.get("mode") == "required" else None
    return None if choice.get("type") in ("auto", "none") else auto


def too_large() -> GatewayError:
    return GatewayError(502, "upstream_error", "the provider's message is too large to go on with the results of tools")


TAIL = 1024 * 1024
"""Bytes after the end of a message that are held back."""


class Tail:
    """Events from the end of a message on, held back until it is known whether another round follows."""

    __slots__ = ("_room", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._room = TAIL

    def add(self, raw: bytes) -> None:
        """Hold back an event. Raises `GatewayError` beyond `TAIL` bytes."""
        self._room -= len(raw)
        if self._room < 0 and self.pieces:
            raise GatewayError(502, "upstream_error", "the provider's stream goes on behind its end")
        self.pieces.append(raw)

    def __bool__(self) -> bool:
        return bool(self.pieces)

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)
