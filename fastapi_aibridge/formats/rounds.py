"""How a format goes round with injected tools: several upstream messages woven into the one that the client sees.

No I/O here either: bytes of the upstream in, bytes for the client and the next request out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from ..errors import GatewayError
from ..tools import Tool, ToolResult
from .decoder import Message
from .edits import elements, ends_with, find, list_member, replaced, with_member, with_new_member
from .large_text import LARGE, BodyText, Steps, contains
from .lenient import load, member, text


@dataclass(slots=True, kw_only=True)
class ToolCall:
    """A call that the model made of an injected tool."""

    id: str
    name: str
    arguments: str
    """As the model wrote them: JSON, or what should have been."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What else the provider put into the call and wants back, such as a signature."""

    def parsed(self) -> dict[str, Any] | None:
        """The arguments, empty where there are none; None where they are no JSON object. Some models write the
        object's JSON as a string of JSON, and `null` for none.
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
        """The arguments as a provider takes them in a history: those refuse one whose arguments are no JSON object.
        The result tells the model what it wrote.
        """
        parsed = self.parsed()
        if parsed is not None and self.arguments.lstrip().startswith("{"):
            return self.arguments
        return orjson.dumps(parsed or {}).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredCall:
    """A call and its result. Of the result's content, images are of kinds that all vendors' models can see."""

    call: ToolCall
    result: ToolResult


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenCall:
    """A call of an injected tool and its result, as they go back to the provider: JSON."""

    id: str
    call: bytes
    output: bytes
    place: int = 0
    """How many of the message's items that the client sees stand before the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A round whose calls were all injected ones, so that the client saw only what the model said beside them."""

    said: tuple[str, ...]
    """What the client saw, in marks of the format's own by which it is found again."""
    written: tuple[bytes, ...] = ()
    """The message and its results, as they went back to the provider: JSON."""
    hidden: tuple[HiddenCall, ...] = ()
    """In place of those, where the client has the rest of the message item by item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the client does not know of a response.

    It is put back when the client comes with the results of its own calls, and in all later requests that repeat them:
    a model that forgot what its tools said would ask them again and again.
    """

    hidden: tuple[HiddenCall, ...] = ()
    """The injected calls of the last round, which the model made together with the client's."""
    order: tuple[str, ...] = ()
    """The ids of all calls of the last round."""
    ending: tuple[str, ...] = ()
    """What the model said in the last round before those calls, in marks."""
    earlier: tuple[Turn, ...] = ()

    @property
    def size(self) -> int:
        """Bytes, more or less; 1 where nothing is hidden."""
        marks = [*self.ending, *(mark for turn in self.earlier for mark in turn.said)] if self.hidden_at_all else []
        written = [one for turn in self.earlier for one in turn.written]
        hidden = [*self.hidden, *(one for turn in self.earlier for one in turn.hidden)]
        written += [one for call in hidden for one in (call.call, call.output)]
        return 1 + sum(map(len, marks)) + sum(map(len, written))

    @property
    def hidden_at_all(self) -> bool:
        return bool(self.hidden or self.earlier)


class Memory(Protocol):
    """What earlier requests of the same principal left behind."""

    @property
    def empty(self) -> bool: ...

    def held(self, key: str) -> Held | None:
        """What is held of the response in which the client's tool was called under this id."""

    def named(self, response_id: str) -> str:
        """The response that an id which the client has seen stands for; mostly itself."""


class Rounds(Protocol):
    """The upstream messages of one interception, and the one response that the client gets of them.

    Each round is fed to `stream` or `blocking`, then `calls` is asked. Without injected tools the first is the last.
    """

    body: BodyText
    """The next upstream request."""
    names: frozenset[str]
    """The tools that are injected into it: none that is called as one of the client's own."""

    @property
    def message(self) -> Message:
        """The message of the running round."""

    @property
    def alias(self) -> tuple[str, str] | None:
        """The response id that the client has seen, and the one that stands for it upstream, where they differ."""

    @property
    def untouched(self) -> bool:
        """Whether the client gets this round's answer as it came, where it is no stream."""

    def stream(self, block: bytes) -> bytes:
        """Whole events of this round; returns what the client gets of them now. Raises `GatewayError`."""

    def blocking(self, body: bytes) -> bool:
        """The round's answer, where it is no stream, or an error's. Whether it is a JSON object."""

    def calls(self) -> list[ToolCall]:
        """The injected calls that this round's message made and that can be run; none ends the rounds.

        Raises `GatewayError` where the message was too large to be kept.
        """

    def client_calls(self) -> list[str]:
        """The ids of the calls that this round's message made of the client's tools: it is the last round then."""

    def held(self, results: Sequence[AnsweredCall]) -> Held:
        """What the client will not know of this response; the results are those of its last round."""

    def held_under(self) -> list[str]:
        """By what a later request shows that it knows this response."""

    def go_on(self, results: Sequence[AnsweredCall], *, last: bool) -> Steps[None]:
        """Begin the next round with these results; in the `last` one the model may call nothing any more."""

    def forget_ids(self, refusal: bytes) -> Steps[bool]:
        """Take out of the next request what only a provider that keeps its messages can know, where its refusal names
        such a thing. Whether there was any.
        """

    def end(self) -> bytes:
        """What completes the client's response: the held-back end of a stream, or a whole blocking body."""

    def ping(self) -> bytes:
        """Keeps a silent stream alive."""

    def error_events(self, error: GatewayError, *, failed: bool = False) -> bytes:
        """What ends a broken stream, in the provider's shape, so that the vendor's SDK raises.

        With `failed`, the response's own end follows, where the format has one: some clients read nothing else.
        """


def parameters(tool: Tool) -> dict[str, Any]:
    """The tool's schema as all vendors take it: an object with properties. They refuse a whole request for one tool
    without those, or with alternatives at the top of its schema.
    """
    schema = {key: value for key, value in tool.input_schema.items() if key not in _NOT_AT_THE_TOP}
    if not isinstance(schema.get("properties"), Mapping):
        schema["properties"] = {}
    return {**schema, "type": "object"}


_NOT_AT_THE_TOP = {"oneOf", "anyOf", "allOf", "not", "enum"}


PREFIX = "bmcp_"
"""How the names of all injected tools begin."""
_MARK = f'"{PREFIX}'.encode()


def offered(
    body: BodyText, names: frozenset[str], definitions: bytes, max_tools: int | None
) -> Steps[tuple[frozenset[str], bytes]]:
    """The injected tools without those that are called as one of the client's own, which may itself be a gateway, and
    without the last ones where the provider takes no more than `max_tools` in all.

    Providers refuse two tools of a name, and a call of it is the client's.
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
    """Each of the client's tools says what type it is: only where that is often is it worth counting them."""
    return len(body) >= LARGE or body[:].count(b'"type"') >= _FEW_TOOLS


_FEW_TOOLS = 64


def _name_of(tool: Mapping[str, Any]) -> str:
    return text(tool.get("name")) or text(member(tool, "function").get("name"))


def with_tools(body: BodyText, definitions: bytes) -> Steps[BodyText]:
    """A request with these tools before the client's own. `definitions` is the inside of a JSON list."""
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
    """The request with these JSON values at the end of one of its lists, all else untouched."""
    new = b",".join(added)
    span = yield from find(body, name)
    if span is None or not body.startswith(b"[", span[0]):
        return (yield from with_member(body, name, b"[" + new + b"]"))
    closing = span[1] - 1
    comma = b"," if new and not ends_with(body, closing, b"[") else b""
    return (yield from replaced(body, closing, closing, comma, new))


def forced(choice: object, auto: object) -> object | None:
    """What takes the place of a `tool_choice` that forces a call, once one has been made: it holds for the first round
    only, else the model could never answer. None where it forces nothing.
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
"""Bytes behind the end of a message that are held back."""


class Tail:
    """Events from the end of a message on, held back until it is known whether another round follows."""

    __slots__ = ("_room", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._room = TAIL

    def add(self, raw: bytes) -> None:
        """Raises `GatewayError`."""
        self._room -= len(raw)
        if self._room < 0 and self.pieces:
            raise GatewayError(502, "upstream_error", "the provider's stream goes on behind its end")
        self.pieces.append(raw)

    def __bool__(self) -> bool:
        return bool(self.pieces)

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)
