"""Embeddings, completions and compactions: formats without tools, and the record of their responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.formats.compaction import compaction
from fastapi_aibridge.formats.completions import completions
from fastapi_aibridge.formats.embeddings import embeddings
from fastapi_aibridge.formats.format import Format
from fastapi_aibridge.recorder import Facts

from .parsing import parse

EACH: list[Format] = [embeddings, completions, compaction]
USAGE = {"prompt_tokens": 8, "total_tokens": 8}


def facts(format_: Format, answer: bytes) -> tuple[Facts, str | None]:
    rounds = format_.single(b"{}", 2**20, usage_asked=True)
    assert rounds.blocking(answer)
    return rounds.message.facts(), rounds.message.error


def tokens(found: Facts) -> list[tuple[int, int]]:
    return [(usage.input_tokens, usage.output_tokens) for usage in found.token_usages]


@pytest.mark.parametrize("format_", EACH, ids=lambda one: one.name)
def test_requests_take_no_tools(format_: Format) -> None:
    """The model is read, and the body goes upstream unchanged."""
    body = b'{"model" : "m-1",  "input": "x", "prompt": "x", "dimensions": 1e2}'
    request = parse(format_, body)
    assert (request.model, request.streaming, request.takes_tools, request.body) == ("m-1", False, False, body)
    with pytest.raises(GatewayError, match="names no model"):
        parse(format_, b"{}")
    with pytest.raises(GatewayError, match="twice"):
        parse(format_, b'{"model": "a", "model": "b"}')


@pytest.mark.parametrize(
    "answer",
    [
        {"object": "list", "data": [{"embedding": [0.5, 1e-3]}], "model": "m", "usage": USAGE},
        {"usage": USAGE, "object": "list", "data": [{"embedding": "AAAA"}]},
        {"object": "list", "data": [{"embedding": [0.125] * 300_000}], "model": "m", "usage": USAGE},
        {"usage": USAGE, "object": "list", "data": [{"embedding": [0.125] * 300_000}]},
        {"data": [{"usage": {"prompt_tokens": 99}}], "usage": USAGE},
    ],
)
def test_the_usage_of_embeddings(answer: dict[str, Any]) -> None:
    """Usage is found before or after the vectors, however many there are."""
    for written in (json.dumps(answer), json.dumps(answer, separators=(",", ":"))):
        found, error = facts(embeddings, written.encode())
        assert tokens(found) == [(8, 0)]
        assert error is None


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"error": {"type": "bad", "message": "no such model"}}', "bad: no such model"),
        (b'{"object": "list", "data": []}', None),
        (b'{"usage": 5}', None),
        (b'{"usage": {"prompt_tokens": NaN}}', None),
        (b'{"data": [' + b"0," * 600_000 + b'0], "usage": {"prompt_tokens": ', None),
    ],
)
def test_answers_that_tell_no_usage(answer: bytes, error: str | None) -> None:
    """A response without valid usage records no tokens; an error in it is recorded."""
    found, told = facts(embeddings, answer)
    assert sum(map(sum, tokens(found))) == 0
    assert told == error


@pytest.mark.parametrize("answer", [b"", b"[]", b"no JSON", b"null", b" " * 2_000_000 + b"[]"])
def test_what_is_no_answer(answer: bytes) -> None:
    """A body that is no JSON object is reported as no response."""
    assert not embeddings.single(b"{}", 2**20, usage_asked=True).blocking(answer)


def test_the_prompts_of_completions() -> None:
    """Prompts given as text are recorded, prompts given as tokens are not."""
    said = {"Say it": ["Say it"], ("a", "b"): ["a", "b"], (1, 2): [], ((1, 2), (3,)): [], (): []}
    for prompt, texts in said.items():
        request = parse(completions, json.dumps({"model": "m", "prompt": prompt}, indent=1).encode())
        assert [one.text for one in request.prompts] == texts


def test_streamed_completions_are_asked_for_their_usage() -> None:
    """A streamed completion is asked for its usage, which is hidden from a client that did not ask."""
    request = parse(completions, b'{"model":"m","prompt":"x","stream":true}')
    assert json.loads(request.body[:])["stream_options"] == {"include_usage": True}
    rounds = completions.single(request.body, 2**20, usage_asked=request.usage_asked)
    piece = b'data: {"id":"cmpl-1","choices":[{"index":0,"text":"Hi","finish_reason":"stop"}]}\n\n'
    usage = b'data: {"id":"cmpl-1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    assert rounds.stream(piece) == piece
    assert rounds.stream(usage) == b""
    assert rounds.stream(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"
    assert rounds.message.complete
    assert tokens(rounds.message.facts()) == [(3, 1)]


def test_the_usage_of_completions_and_compactions() -> None:
    """The usage of completions has the names of Chat Completions, that of compactions the names of Responses."""
    answer = {"id": "cmpl-1", "choices": [{"text": "Hi", "finish_reason": "stop"}]}
    found, _ = facts(completions, json.dumps({**answer, "usage": {**USAGE, "completion_tokens": 2}}).encode())
    assert tokens(found) == [(8, 2)]
    compacted = {"id": "resp_2", "object": "response.compaction", "output": []}
    found, _ = facts(compaction, json.dumps({**compacted, "usage": {"input_tokens": 18, "output_tokens": 3}}).encode())
    assert tokens(found) == [(18, 3)]


def test_what_is_embedded_or_compacted_is_not_kept() -> None:
    """Documents for embedding and compacted conversations are not recorded as prompts."""
    assert parse(embeddings, b'{"model":"m","input":["a document"]}').prompts == []
    assert parse(compaction, b'{"model":"m","input":"x","previous_response_id":"resp_1"}').prompts == []
    assert parse(compaction, b'{"model":"m","input":"x","previous_response_id":"resp_1"}').references == [
        ("response", "resp_1")
    ]
