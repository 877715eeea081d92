"""Plays scripted model replies through one format's rounds, without I/O, and reads the client's response."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx2
import openai
from hypothesis import HealthCheck, settings

from fastapi_aibridge import sse
from fastapi_aibridge.exchange.tool_memory import OwnMemory, ToolMemory
from fastapi_aibridge.formats import chat_completions, messages, responses
from fastapi_aibridge.formats.format import Format
from fastapi_aibridge.formats.rounds import AnsweredCall, Rounds, ToolCall
from fastapi_aibridge.formats.scanner import finish
from fastapi_aibridge.testing import Reply
from fastapi_aibridge.testing import ToolCall as ScriptedCall
from fastapi_aibridge.testing.wire_formats import BY_PATH, WireFormat
from fastapi_aibridge.tools import Text, Tool, ToolResult

from ..parsing import parse

lean = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
TOOLS = [
    Tool(name=f"bmcp_box_{name}", server="box", tool=name, description=name, input_schema=SCHEMA)
    for name in ("echo", "time")
]
NAMES = frozenset(tool.name for tool in TOOLS)
OWNER = ("alice", "", "any")


@dataclass(frozen=True, eq=False)
class Kind:
    """A format, with its path and a client's request members."""

    format: Format
    path: str
    members: Mapping[str, Any]
    """The members that a request of the format needs besides the model."""
    own_tool: Mapping[str, Any]

    @property
    def wire(self) -> WireFormat:
        return BY_PATH[self.path]

    def request(self, *, streamed: bool, **members: Any) -> bytes:
        asked = {"model": "m", **self.members, **({"stream": True} if streamed else {}), **members}
        return json.dumps(asked).encode()

    def __str__(self) -> str:
        return self.format.name


_PARAMETERS = {"type": "object", "properties": {}}
CHAT = Kind(
    chat_completions,
    "/v1/chat/completions",
    {"messages": [{"role": "user", "content": "hi"}]},
    {"type": "function", "function": {"name": "read", "parameters": _PARAMETERS}},
)
RESPONSES = Kind(
    responses,
    "/v1/responses",
    {"input": "hi"},
    {"type": "function", "name": "read", "parameters": _PARAMETERS, "strict": True},
)
MESSAGES = Kind(
    messages,
    "/v1/messages",
    {"max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]},
    {"name": "read", "input_schema": _PARAMETERS},
)
KINDS = (CHAT, RESPONSES, MESSAGES)


@dataclass
class Played:
    kind: Kind
    streamed: bool
    request: bytes
    body: bytes = b""
    """The bytes that the client received."""
    asked: list[bytes] = field(default_factory=list)
    """The bodies that were sent upstream."""
    answers: list[bytes] = field(default_factory=list)
    """The upstream's responses."""
    calls: list[ToolCall] = field(default_factory=list)
    alias: tuple[str, str] | None = None

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.asked]

    @property
    def events(self) -> list[dict[str, Any]]:
        return events_of(self.body)

    @property
    def answer(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    def seen(self) -> Seen:
        return read(self.kind, self.body, streamed=self.streamed)


@dataclass
class Seen:
    """The client's response as read by the vendor's own SDK."""

    text: str
    calls: list[tuple[str, str, Any]]
    finish: str | None
    tokens: tuple[int, int] | None
    whole: dict[str, Any]


def events_of(body: bytes) -> list[dict[str, Any]]:
    datas = [sse.data_of(event) for event in sse.events(body)]
    return [json.loads(data) for data in datas if data and data != b"[DONE]"]


def own_call(id_: str = "call_own", **arguments: Any) -> ScriptedCall:
    return ScriptedCall("read", arguments, id_)


def call(id_: str = "call_1", arguments: Mapping[str, Any] | str | None = None, tool: str = "echo") -> ScriptedCall:
    return ScriptedCall(f"bmcp_box_{tool}", {"text": "x"} if arguments is None else arguments, id_)


def answer_to(one: ToolCall) -> AnsweredCall:
    """Return a result that names the call, or an error if its arguments are no JSON."""
    if one.parsed() is None:
        return AnsweredCall(call=one, result=ToolResult(content=(Text("no JSON"),), is_error=True))
    return AnsweredCall(call=one, result=ToolResult(content=(Text(f"result of {one.id}"),)))


def remembering() -> OwnMemory:
    return ToolMemory().of(OWNER)


Grouping = Callable[[Sequence[bytes]], Iterator[bytes]]


def singly(events: Sequence[bytes]) -> Iterator[bytes]:
    yield from events


def encoded(kind: Kind, reply: Reply | bytes, asked: bytes, *, streamed: bool) -> list[bytes]:
    if isinstance(reply, bytes):
        return [reply]
    request = json.loads(asked)
    return list(kind.wire.stream(reply, request)) if streamed else [kind.wire.blocking(reply, request)]


def woven(kind: Kind, body: bytes, memory: OwnMemory, *, usage_asked: bool = True) -> Rounds:
    """Return the rounds of a request into which the tools are injected."""
    definitions = kind.format.definitions(TOOLS)
    return finish(kind.format.woven(body, NAMES, definitions, memory, 2**20, usage_asked=usage_asked))


def play(
    kind: Kind,
    replies: Sequence[Reply | bytes],
    *,
    streamed: bool,
    memory: OwnMemory | None = None,
    grouped: Grouping = singly,
    last: int = 25,
    respond: Callable[[ToolCall], AnsweredCall] = answer_to,
    body: bytes | None = None,
    **members: Any,
) -> Played:
    """Play the replies; those given as bytes are sent unchanged."""
    request = parse(kind.format, body or kind.request(streamed=streamed, **members))
    memory = memory or remembering()
    rounds = woven(kind, request.body[:], memory, usage_asked=request.usage_asked)
    played = Played(kind, streamed, request.body[:])
    for number, reply in enumerate(replies, 1):
        played.asked.append(rounds.body[:])
        answer = encoded(kind, reply, rounds.body[:], streamed=streamed)
        played.answers.append(b"".join(answer))
        if streamed:
            played.body += b"".join(rounds.stream(block) for block in grouped(answer))
        else:
            rounds.blocking(answer[0])
        calls = [] if number == last else rounds.calls()
        played.calls += calls
        results = [respond(one) for one in calls]
        own = rounds.client_calls()
        if own or not calls:
            if (held := rounds.held(results)).size > 1:
                memory.hold(rounds.held_under(), held)
            break
        finish(rounds.go_on(results, last=number == last - 1))
    played.body += rounds.end()
    played.alias = rounds.alias
    if played.alias:
        memory.name(*played.alias)
    return played


# Readers that use the vendors' SDKs


def _transport(body: bytes, *, streamed: bool) -> httpx2.Client:
    kind = "text/event-stream" if streamed else "application/json"
    return httpx2.Client(
        transport=httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"content-type": kind}, content=body))
    )


def read(kind: Kind, body: bytes, *, streamed: bool) -> Seen:
    with _transport(body, streamed=streamed) as http:
        return _READERS[kind.path](http, streamed)


def _read_chat(http: httpx2.Client, streamed: bool) -> Seen:
    client = openai.OpenAI(api_key="k", base_url="http://x/v1", http_client=http, max_retries=0)
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    if streamed:
        said = ""
        with client.chat.completions.stream(**asked) as stream:
            for event in stream:
                if event.type == "content.delta":
                    said += event.delta
            try:
                whole: Any = stream.get_final_completion()
            except openai.LengthFinishReasonError as cut_off:
                whole = cut_off.completion
        assert said == (whole.choices[0].message.content or "")
    else:
        whole = client.chat.completions.create(**asked)
    choice = whole.choices[0]
    calls = [(one.id, one.function.name, one.function.arguments) for one in choice.message.tool_calls or []]
    tokens = (whole.usage.prompt_tokens, whole.usage.completion_tokens) if whole.usage else None
    return Seen(choice.message.content or "", calls, choice.finish_reason, tokens, whole.to_dict())


def _read_responses(http: httpx2.Client, streamed: bool) -> Seen:
    client = openai.OpenAI(api_key="k", base_url="http://x/v1", http_client=http, max_retries=0)
    if streamed:
        said, numbers = "", []
        with client.responses.stream(model="m", input="hi") as stream:
            for event in stream:
                numbers.append(event.sequence_number)
                if event.type == "response.output_text.delta":
                    said += event.delta
                whole: Any = getattr(event, "response", None)
        assert numbers == list(range(len(numbers)))
        assert said == whole.output_text
    else:
        whole = client.responses.create(model="m", input="hi")
    calls = [(one.call_id, one.name, one.arguments) for one in whole.output if one.type == "function_call"]
    tokens = (whole.usage.input_tokens, whole.usage.output_tokens) if whole.usage else None
    return Seen(whole.output_text, calls, whole.status, tokens, whole.to_dict())


def _read_messages(http: httpx2.Client, streamed: bool) -> Seen:
    client = anthropic.Anthropic(api_key="k", base_url="http://x", http_client=http, max_retries=0)
    asked: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    if streamed:
        with client.messages.stream(**asked) as stream:
            said = "".join(stream.text_stream)
            whole: Any = stream.get_final_message()
        assert said == "".join(block.text for block in whole.content if block.type == "text")
    else:
        whole = client.messages.create(**asked)
    text = "".join(block.text for block in whole.content if block.type == "text")
    calls = [(one.id, one.name, one.input) for one in whole.content if one.type == "tool_use"]
    return Seen(text, calls, whole.stop_reason, (whole.usage.input_tokens, whole.usage.output_tokens), whole.to_dict())


_READERS = {CHAT.path: _read_chat, RESPONSES.path: _read_responses, MESSAGES.path: _read_messages}
