"""The corpus of exchanges: it is consistent in itself, and the gateway follows it on a real socket."""

from __future__ import annotations

import functools
import gzip
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from fastapi_aibridge import AIBridge, Settings
from fastapi_aibridge.testing.serving import serve
from tests.corpus.exchange import Answer, Exchange, ExchangeError, Format, Wanted, load, parse
from tests.corpus.replay import Replay, pieces, replay_in_thread
from tests.corpus.run import Gateway, Runner, compare, interesting_cuts, is_error, is_error_event, main

EXCHANGES = load()
STREAMS = [exchange for exchange in EXCHANGES if exchange.streamed]
SMALL = ["chat_completions/streamed_usage_declined", "messages/streamed_unicode", "responses/streamed_custom_tool"]
KEY, ADMIN_TOKEN = "k-alice", "t-corpus"
PROVIDER_KEYS = {"openai": "sk-corpus-openai", "anthropic": "sk-ant-corpus"}


def each(exchanges: list[Exchange]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("exchange", exchanges, ids=lambda exchange: exchange.name)


# The gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Replay]]:
    """The gateway and its upstream in one event loop, so that each piece sent is read as one piece."""
    database = tmp_path_factory.mktemp("corpus") / "records.db"
    with start_blocking_portal() as portal:
        replay = Replay()
        app = FastAPI()
        with portal.wrap_async_context_manager(replay):
            app.include_router(AIBridge(settings=_settings(replay, database)).router, prefix="/ai")
            with portal.wrap_async_context_manager(serve(app)) as url:
                yield Gateway(url=f"{url}/ai", key=KEY, admin_token=ADMIN_TOKEN, provider_keys=PROVIDER_KEYS), replay


def _settings(replay: Replay, database: Path) -> Settings:
    def provider(name: str, base_url: str) -> dict[str, Any]:
        key = PROVIDER_KEYS[name]
        return {"type": name, "base_url": base_url, "api_key": key, "max_retries": 0, "circuit_breaker": {"enabled": 0}}

    values: dict[str, Any] = {
        "providers": {
            "openai": provider("openai", f"{replay.url}/v1"),
            "anthropic": provider("anthropic", replay.url),
        },
        "client_keys": {"alice": KEY},
        "admin_token": ADMIN_TOKEN,
        "recorder": {"url": f"sqlite+aiosqlite:///{database}"},
    }
    return Settings(**values)


@pytest.fixture(scope="module")
def runner(gateway: tuple[Gateway, Replay]) -> Iterator[Runner]:
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield Runner(*gateway, client)


@each(EXCHANGES)
def test_the_gateway_keeps_to_the_exchange(runner: Runner, exchange: Exchange) -> None:
    """Client, upstream and record get exactly what the exchange specifies."""
    assert runner.run(exchange) == []


@each(STREAMS)
def test_cuts_change_nothing(runner: Runner, exchange: Exchange) -> None:
    """The client gets the same bytes and the record the same facts, wherever the upstream's bytes are cut."""
    assert exchange.upstream is not None
    anywhere = st.integers(1, len(exchange.upstream.body) - 1)
    likely = st.sampled_from(interesting_cuts(exchange.upstream) or [1])

    @settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(likely | anywhere, min_size=1, max_size=8, unique=True))
    def check(cuts: list[int]) -> None:
        assert runner.run(exchange, cuts) == []

    check()


@each([exchange for exchange in EXCHANGES if exchange.name in SMALL])
def test_byte_by_byte_changes_nothing(runner: Runner, exchange: Exchange) -> None:
    """An upstream that sends one byte at a time is relayed as any other."""
    assert exchange.upstream is not None
    assert runner.run(exchange, range(len(exchange.upstream.body))) == []


def test_the_command_runs_the_corpus(gateway: tuple[Gateway, Replay], capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m tests.corpus` names each exchange that differs, and how; here the gateway calls another upstream."""
    target = ["--url", gateway[0].url, "--key", KEY, "--no-records", "--replay-port", "0"]
    assert main([*target, "-k", "messages/blocking_plain"]) == 1
    out = capsys.readouterr().out
    assert "FAIL messages/blocking_plain" in out
    assert "the upstream got 0 requests, want 1" in out


# The corpus in itself


def test_there_are_exchanges_of_all_kinds() -> None:
    """Each format has blocking responses, streams, errors, broken streams and tool calls; message ids are unique."""
    for format_ in ("chat_completions", "messages", "responses"):
        own = [exchange for exchange in EXCHANGES if exchange.format == format_]
        assert len(own) >= 30
        assert all(exchange.name.startswith(f"{format_}/") for exchange in own)
        assert any(exchange.upstream and exchange.upstream.breaks for exchange in own)
        assert any(exchange.client.status >= 500 for exchange in own)
        assert {exchange.streamed for exchange in own if exchange.record.get("tool_usages")} == {True, False}
    ids = [usage["message_id"] for e in EXCHANGES for usage in e.record.get("token_usages", [])]
    assert len(ids) == len(set(ids))


@each(EXCHANGES)
def test_an_exchange_says_what_it_is_from(exchange: Exchange) -> None:
    """An exchange has a summary of one sentence and names the vendor's page."""
    assert exchange.summary.endswith(".")
    assert all(page.startswith("https://") for page in exchange.pages)
    assert exchange.pages


@each(EXCHANGES)
def test_an_exchange_agrees_with_itself(exchange: Exchange) -> None:
    """The record has the model and mode of the request, and the status of the upstream."""
    body = json.loads(exchange.request.body)
    assert exchange.record["model"] == body["model"]
    assert exchange.record["streaming"] is body.get("stream", False)
    if exchange.record["status"] == "running":
        assert body["background"] is True
        assert exchange.record["upstream_status"] is None
        return
    assert exchange.record["upstream_status"] == (exchange.upstream and exchange.upstream.status)
    broken = exchange.upstream is None or exchange.client.error or exchange.upstream.status >= 400
    assert exchange.record["status"] == "failed" if broken else exchange.record["status"] in ("completed", "failed")


@each(EXCHANGES)
def test_the_upstream_gets_what_the_client_sent_and_is_asked_for_usage(exchange: Exchange) -> None:
    """The request goes upstream unchanged, except that a streamed chat asks for its usage."""
    body = json.loads(exchange.request.body)
    if exchange.format == "chat_completions" and body.get("stream"):
        body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
        assert json.loads(exchange.upstream_request) == body
    else:
        assert exchange.upstream_request == exchange.request.body


@each(STREAMS)
def test_the_client_gets_whole_events_of_the_upstream(exchange: Exchange) -> None:
    """The client gets the upstream's body up to a break, without usage that it did not ask for."""
    assert exchange.upstream is not None
    body, client = exchange.upstream.body, exchange.client.body
    if exchange.client.decoded:
        body = gzip.decompress(body)
    options = json.loads(exchange.request.body).get("stream_options", {})
    if exchange.format == "chat_completions" and not options.get("include_usage"):
        body = re.sub(rb'data: [^\r\n]*"choices":\[\],"usage":\{[^\r\n]*\r?\n\r?\n', b"", body)
    if exchange.upstream.breaks:
        assert body.startswith(client)
        assert b"\n\n" not in body[len(client) :]
        assert client.endswith(b"\n\n")
        last_event = client.removesuffix(b"\n\n").rpartition(b"\n\n")[2]
        assert exchange.client.error == (None if _LAST.search(last_event) else "event")
    else:
        assert body == client


_LAST = re.compile(rb'\[DONE\]|"type":"(?:message_stop|response\.completed|error)"|data: \{"error":')
"""The last event of a complete stream: after it only the end of the connection can be missing."""


@each([e for e in EXCHANGES if e.upstream and e.record.get("token_usages")])
def test_usage_follows_from_the_bytes(exchange: Exchange) -> None:
    """A second, simple computation finds the same tokens in the upstream's body."""
    usages = exchange.record["token_usages"]
    assert compare(usages, [_usage(exchange)], "usage") == []


@each([e for e in EXCHANGES if e.upstream])
def test_bodies_are_the_vendors(exchange: Exchange) -> None:
    """The vendor's own models, made from its API description, accept every response and event."""
    assert exchange.upstream is not None
    if exchange.upstream.status >= 400:
        if exchange.name != "chat_completions/error_502_html":
            assert is_error(exchange.format, exchange.upstream.body) == []
        return
    for value in _values(exchange.upstream):
        if value.get("type") != "ping" and ("error" not in value or value.get("type", "error") != "error"):
            _model(exchange.format, exchange.streamed).validate_python(value)


@pytest.fixture(scope="module")
def bare_upstream() -> Iterator[Replay]:
    with replay_in_thread() as replay:
        yield replay


@each([e for e in EXCHANGES if not e.name.endswith("break_after_end")])
def test_the_official_sdks_take_the_answers(bare_upstream: Replay, exchange: Exchange) -> None:
    """The openai and anthropic SDKs read each response, and raise if the exchange has failed."""
    bare_upstream.play(exchange.upstream)
    if exchange.record["status"] == "failed" and exchange.name not in _FAILED_WITHOUT_A_WORD:
        with pytest.raises((openai.APIError, anthropic.APIError, httpx2.HTTPError)):
            _by_sdk(bare_upstream.url, exchange)
    else:
        assert _by_sdk(bare_upstream.url, exchange) >= 1


_FAILED_WITHOUT_A_WORD = {
    "responses/blocking_failed",
    "responses/streamed_error_event",
    "responses/streamed_failed",
}
"""Responses that report a failure in their body: the SDKs hand them to the caller without raising."""


def _by_sdk(url: str, exchange: Exchange) -> int:
    """Return the number of responses or events that an SDK reads."""
    body = json.loads(exchange.request.body)
    path = exchange.request.route
    answers: Any
    if exchange.format == "messages":
        with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
            if not body.get("stream"):
                return 1 if client.post(path, body=body, cast_to=Message) else 0
            with client.post(
                path, body=body, cast_to=Message, stream=True, stream_cls=anthropic.Stream[RawMessageStreamEvent]
            ) as answers:
                return sum(1 for _ in answers)
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client_:
        cast: Any = ChatCompletion if exchange.format == "chat_completions" else Response
        event: Any = ChatCompletionChunk if exchange.format == "chat_completions" else ResponseStreamEvent
        if not body.get("stream"):
            return 1 if client_.post(path, body=body, cast_to=cast) else 0
        with client_.post(path, body=body, cast_to=cast, stream=True, stream_cls=openai.Stream[event]) as answers:
            return sum(1 for _ in answers)


def _values(answer: Answer) -> list[dict[str, Any]]:
    """Return the JSON of a body, or of each event in it."""
    body = answer.body
    if any(name == "Content-Encoding" for name, _ in answer.headers):
        body = gzip.decompress(body)
    if not answer.chunked:
        return [json.loads(body)]
    values = []
    for block in re.split(r"\n\n+", body.decode().replace("\r\n", "\n")):
        lines = [line.removeprefix("data:").removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if lines and lines != ["[DONE]"] and not (answer.breaks and not body.decode().endswith("\n\n")):
            values.append(json.loads("\n".join(lines)))
        elif lines and lines != ["[DONE]"]:
            values += [json.loads("\n".join(lines))] if block + "\n\n" in body.decode() else []
    return values


@functools.cache
def _model(format_: Format, streamed: bool) -> TypeAdapter[Any]:
    models: dict[tuple[Format, bool], Any] = {
        ("chat_completions", False): ChatCompletion,
        ("chat_completions", True): ChatCompletionChunk,
        ("messages", False): Message,
        ("messages", True): RawMessageStreamEvent,
        ("responses", False): Response,
        ("responses", True): ResponseStreamEvent,
    }
    return TypeAdapter(models[format_, streamed])


def _usage(exchange: Exchange) -> dict[str, Any]:
    assert exchange.upstream is not None
    values = _values(exchange.upstream)
    if exchange.format == "messages":
        return _messages_usage(values)
    if exchange.format == "responses":
        response = values[-1].get("response", values[-1])
        return _openai_usage(response["id"], response["usage"], "input", "output")
    usage = [value["usage"] for value in values if value.get("usage")][-1]
    return _openai_usage(values[0]["id"], usage, "prompt", "completion")


def _openai_usage(message_id: str, usage: dict[str, Any], inputs: str, outputs: str) -> dict[str, Any]:
    into, out = usage.get(f"{inputs}_tokens_details", {}), usage.get(f"{outputs}_tokens_details", {})
    read, written = into.get("cached_tokens", 0), into.get("cache_write_tokens", 0)
    return {
        "message_id": message_id,
        "input_tokens": usage[f"{inputs}_tokens"] - read - written,
        "output_tokens": usage[f"{outputs}_tokens"],
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "extra": {
            "reasoning": out.get("reasoning_tokens", 0),
            "audio_input": into.get("audio_tokens", 0),
            "audio_output": out.get("audio_tokens", 0),
            "accepted_prediction": out.get("accepted_prediction_tokens", 0),
            "rejected_prediction": out.get("rejected_prediction_tokens", 0),
        },
    }


def _messages_usage(values: list[dict[str, Any]]) -> dict[str, Any]:
    message = values[0].get("message", values[0])
    usage = dict(message["usage"])
    for value in values:
        usage |= value["usage"] if value["type"] == "message_delta" else {}
    return {
        "message_id": message["id"],
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "cache_read_tokens": usage["cache_read_input_tokens"],
        "cache_write_tokens": usage["cache_creation_input_tokens"],
        "extra": {
            "reasoning": usage.get("output_tokens_details", {}).get("thinking_tokens", 0),
            "cache_creation_5m": usage["cache_creation"]["ephemeral_5m_input_tokens"],
            "cache_creation_1h": usage["cache_creation"]["ephemeral_1h_input_tokens"],
            "web_search_requests": (usage.get("server_tool_use") or {}).get("web_search_requests", 0),
        },
    }


# The loader

FILE = b"""A summary.
Page: https://vendor.example/a
Page: https://vendor.example/b
A note.
=== request
POST /openai/v1/responses?x=1
Content-Type: application/json

{"model":"m"}
=== upstream
200 OK
Content-Type: application/json

{"a": 1}

=== record
{"status": "completed"}
"""


def test_the_line_break_before_a_marker_belongs_to_the_marker() -> None:
    """A body ends before the line break in front of the next marker, so it may itself end with or without one."""
    exchange = parse(FILE, "responses/x")
    assert exchange.request.body == b'{"model":"m"}'
    assert exchange.upstream is not None
    assert exchange.upstream.body == b'{"a": 1}\n'


def test_what_is_not_said_follows_from_the_rest() -> None:
    """Without sections of their own, upstream and client get the bytes that the other side sent."""
    exchange = parse(FILE, "responses/x")
    assert exchange.upstream_request == exchange.request.body
    assert exchange.client == Wanted(status=200, headers=(), body=b'{"a": 1}\n')
    assert exchange.pages == ("https://vendor.example/a", "https://vendor.example/b")
    assert (exchange.request.provider, exchange.request.upstream_path) == ("openai", "/v1/responses?x=1")
    assert (exchange.request.route, exchange.format, exchange.streamed) == ("/v1/responses", "responses", False)


@pytest.mark.parametrize(
    ("option", "body"),
    [
        (b"crlf", b"a<<b * 3>>\r\n\r\n"),
        (b"repeat", b"abbb\n\n"),
        (b"repeat, crlf", b"abbb\r\n\r\n"),
        (b"gzip", gzip.compress(b"a<<b * 3>>\n\n", mtime=0)),
    ],
)
def test_options_say_what_cannot_be_seen(option: bytes, body: bytes) -> None:
    """Line ends, repetition and compression are named beside the marker and apply to the body alone."""
    file = FILE.replace(b"=== upstream", b"=== upstream: " + option).replace(b'{"a": 1}\n', b"a<<b * 3>>\n\n")
    upstream = parse(file, "responses/x").upstream
    assert upstream is not None
    assert (upstream.body, upstream.headers) == (body, (("Content-Type", "application/json"),))


def test_an_upstream_may_break_off_or_say_nothing() -> None:
    """After a break, or if the upstream sends nothing, the client section specifies what the client gets."""
    broken = FILE.replace(b"=== upstream", b"=== upstream: break")
    with pytest.raises(ExchangeError, match="say in a client section"):
        parse(broken, "responses/x")
    client = b"=== client: error event\n200 OK\n\nwhole\n=== record"
    exchange = parse(broken.replace(b"=== record", client), "responses/x")
    assert exchange.upstream is not None
    assert exchange.upstream.breaks
    assert exchange.client == Wanted(status=200, headers=(), body=b"whole", error="event")
    silent = b"=== upstream: break\n=== client: error body\n502\n=== record"
    exchange = parse(re.sub(rb"=== upstream.*=== record", silent, FILE, flags=re.DOTALL), "responses/x")
    assert exchange.upstream is None
    assert exchange.client == Wanted(status=502, headers=(), body=b"", error="body")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"A note.", b"A note.\r", "carriage return"),
        (b"=== record", b"=== records", "no section 'records'"),
        (b"=== upstream", b"=== request", "two sections 'request'"),
        (b"=== upstream", b"=== upstream: brake", "no option brake"),
        (b"/v1/responses", b"/v1/files", "no path of an intercepted request"),
        (b"Content-Type: ", b"Content-Type:", "is no header"),
        (b'{"status": "completed"}', b"{", "JSONDecodeError"),
        (b"POST ", b"", "ValueError"),
        (b'=== record\n{"status": "completed"}\n', b"", "lacks the sections record"),
    ],
)
def test_a_file_that_does_not_keep_to_the_format_is_refused(before: bytes, after: bytes, message: str) -> None:
    """The error names the file and what is wrong with it."""
    with pytest.raises(ExchangeError, match=f"^responses/x: .*{message}"):
        parse(FILE.replace(before, after), "responses/x")


# The replay upstream


def _talk(replay: Replay, *sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", replay.port), timeout=5) as connection:
        for data in sent:
            connection.sendall(data)
        received = b""
        while data := connection.recv(65536):
            received += data
    return received


def _answer(body: bytes, *, stream: bool = False, breaks: bool = False) -> Answer:
    kind = "text/event-stream" if stream else "application/json"
    return Answer(status=200, reason="Fine", headers=(("Content-Type", kind),), body=body, breaks=breaks)


def test_pieces_are_cut_where_told() -> None:
    """Offsets may be unordered and repeated; those outside the body are ignored, and no piece is empty."""
    assert list(pieces(b"abcdef", [4, 1, 4, 0, 6, 9])) == [b"a", b"bcd", b"ef"]
    assert list(pieces(b"ab", ())) == [b"ab"]
    assert list(pieces(b"", [1])) == []


def test_replay_sends_a_body_and_goes_on(bare_upstream: Replay) -> None:
    """A body has a length, the connection serves the next request, and the replay keeps both requests."""
    bare_upstream.play(_answer(b"{}"))
    with socket.create_connection(("127.0.0.1", bare_upstream.port), timeout=5) as connection:
        for body in (b"one", b"three"):
            connection.sendall(b"POST /a?b HTTP/1.1\r\nX-Y: z \r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            received = b""
            while not received.endswith(b"{}"):
                received += connection.recv(65536)
            assert received == b"HTTP/1.1 200 Fine\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    assert [(r.method, r.path, r.header("x-y"), r.body) for r in bare_upstream.received] == [
        ("POST", "/a?b", "z", b"one"),
        ("POST", "/a?b", "z", b"three"),
    ]


def test_replay_reads_chunked_requests(bare_upstream: Replay) -> None:
    """A chunked request body is put together."""
    bare_upstream.play(None)
    assert (
        _talk(bare_upstream, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        == b""
    )
    assert [received.body for received in bare_upstream.received] == [b"abc"]


def test_replay_cuts_streams_into_chunks(bare_upstream: Replay) -> None:
    """Each piece of a stream is a chunk of its own; a broken stream has no last chunk."""
    bare_upstream.play(_answer(b"abcdefghijklmnop", stream=True, breaks=True), [3])
    head, _, body = _talk(bare_upstream, b"POST / HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert body == b"3\r\nabc\r\nd\r\ndefghijklmnop\r\n"


def test_replay_breaks_off_a_body(bare_upstream: Replay) -> None:
    """A broken body is shorter than its announced length."""
    bare_upstream.play(_answer(b"abc", breaks=True))
    assert _talk(bare_upstream, b"POST / HTTP/1.1\r\n\r\n").endswith(b"Content-Length: 4\r\n\r\nabc")


# The comparison


@pytest.mark.parametrize(
    ("want", "got", "differences"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": 1}, {}, ["record.a is missing"]),
        ({"a": 1}, {"a": True}, ["record.a is true, want 1"]),
        ({"a": [{"b": 1}, 2]}, {"a": [{"b": 2}, 2]}, ["record.a[0].b is 2, want 1"]),
        ({"a": [1]}, {"a": [1, 2]}, ["record.a is [1, 2], want [1]"]),
        ({"extra": {}}, {"extra": {"reasoning": 0}}, []),
        ({"extra": {}}, {"extra": {"reasoning": 3}}, ["record.extra.reasoning is 3, want 0"]),
        ({"extra": {"audio_input": 2}}, {"extra": {}}, ["record.extra.audio_input is 0, want 2"]),
    ],
)
def test_a_record_has_at_least_what_is_wanted(want: object, got: object, differences: list[str]) -> None:
    """Members that are not named do not matter, and kinds of tokens that are not named count as 0."""
    assert compare(want, got, "record") == differences


def test_exact_comparison_refuses_surplus_members() -> None:
    """JSON that is compared exactly may have no additional members."""
    assert compare({"a": {}}, {"a": {"b": 1}}, "body", exact=True) == ["body.a.b is not wanted"]


@pytest.mark.parametrize(
    ("format_", "tail", "fine"),
    [
        ("chat_completions", b'data: {"error": {"type": "t", "message": "m"}}\n\n', True),
        ("chat_completions", b'data: {"error": {"type": "t", "message": "m"}}\n\ndata: [DONE]\n\n', True),
        ("chat_completions", b'data: {"error": {"type": "t", "message": "m"}}\n', False),
        ("chat_completions", b'event: error\ndata: {"error": {"type": "t", "message": "m"}}\n\n', False),
        ("messages", b'event: error\ndata: {"type": "error", "error": {"type": "t", "message": "m"}}\n\n', True),
        ("messages", b'data: {"type": "error", "error": {"type": "t", "message": "m"}}\n\n', False),
        ("messages", b'event: error\ndata: {"error": {"type": "t", "message": "m"}}\n\n', False),
        ("responses", b'event: error\ndata: {"type": "error", "message": "m", "sequence_number": 3}\n\n', True),
        (
            "responses",
            b'event: response.failed\ndata: {"type":"response.failed","response":{"error":{"message":"m"}}}\n\n',
            True,
        ),
        ("responses", b'event: error\ndata: {"error": {"message": "m"}}\n\n', False),
        ("responses", b"", False),
    ],
)
def test_error_events_have_the_providers_shape(format_: Any, tail: bytes, fine: bool) -> None:
    """A stream ends with one whole event of the kind that the vendor documents."""
    assert (is_error_event(format_, tail) == []) is fine
