"""Errors of upstreams in the shapes that providers use, and how the record quotes them."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_aibridge.formats import chat_completions, messages, responses
from fastapi_aibridge.formats.embeddings import embeddings
from fastapi_aibridge.formats.format import Format

from .observing import answered, streamed

FORMATS: list[Format] = [chat_completions, messages, responses, embeddings]
each_format = pytest.mark.parametrize("format_", FORMATS, ids=lambda format_: format_.name)

BODIES: dict[str, tuple[Any, str]] = {
    "OpenAI": ({"error": {"message": "No.", "type": "server_error", "code": "x"}}, "server_error: No."),
    "Anthropic": ({"type": "error", "error": {"type": "api_error", "message": "No."}}, "api_error: No."),
    "Ollama": ({"error": "model 'x' not found"}, "model 'x' not found"),
    "FastAPI": ({"detail": "Not authenticated"}, "Not authenticated"),
    "FastAPI, of a request": (
        {
            "detail": [
                {"type": "missing", "loc": ["body", "messages", 0], "msg": "Field required", "input": "secret"},
                {"type": "extra_forbidden", "loc": ["body", "x"], "msg": "Extra inputs are not permitted"},
            ]
        },
        "missing: body.messages.0: Field required; extra_forbidden: body.x: Extra inputs are not permitted",
    ),
    "vLLM, before it had OpenAI's": (
        {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400},
        "BadRequestError: too long",
    ),
    "Mistral": ({"message": "Unauthorized", "request_id": "r"}, "Unauthorized"),
    "DashScope": ({"code": "InvalidApiKey", "message": "Invalid", "request_id": "r"}, "InvalidApiKey: Invalid"),
    "OAuth": ({"error": "invalid_token", "error_description": "expired"}, "invalid_token: expired"),
    "NestJS": ({"statusCode": 400, "message": "x is no y", "error": "Bad Request"}, "Bad Request: x is no y"),
    "Cloudflare": ({"success": False, "errors": [{"code": 7003, "message": "No route"}]}, "No route"),
    "Hugging Face": ({"error": ["a is wrong", "b is wrong"]}, "a is wrong; b is wrong"),
}


@each_format
@pytest.mark.parametrize("name", BODIES)
def test_an_error_of_any_shape_is_recorded(format_: Format, name: str) -> None:
    """The record quotes the provider's words, without the client's input."""
    body, words = BODIES[name]
    watching = answered(format_, body)
    assert (watching.error, watching.facts().token_usages) == (words, [])


@each_format
@pytest.mark.parametrize("odd", [{}, {"detail": []}, {"message": {"role": "user"}}, {"errors": None}, {"error": None}])
def test_what_reports_no_error_is_none(format_: Format, odd: dict[str, Any]) -> None:
    """Error members that are empty or have an unknown shape are no error."""
    assert answered(format_, odd).error is None


@pytest.mark.parametrize(
    ("format_", "message"),
    [
        (chat_completions, {"id": "x", "choices": []}),
        (messages, {"id": "x", "content": []}),
        (responses, {"id": "x", "output": []}),
        (embeddings, {"data": []}),
    ],
    ids=lambda one: one.name if hasattr(one, "name") else "",
)
def test_a_message_may_have_members_of_these_names(format_: Format, message: dict[str, Any]) -> None:
    """A message with a `detail` or `errors` member beside its own is still a message."""
    watching = answered(format_, {**message, "detail": "quick", "message": "cached", "errors": ["x"], "error": None})
    assert watching.error is None


@pytest.mark.parametrize("format_", FORMATS[:3], ids=lambda format_: format_.name)
@pytest.mark.parametrize("error", [{"message": "No."}, "No."])
def test_an_error_in_an_event_without_a_type(format_: Format, error: Any) -> None:
    """An `error` member without a type is an error, because OpenAI's SDKs raise on it."""
    assert streamed(format_, {"error": error}).error == "No."


def test_an_error_object_in_a_stream() -> None:
    """An error object in a stream, as vLLM sends it, is recorded."""
    watching = streamed(chat_completions, {"id": "x", "choices": []}, {"object": "error", "message": "out of memory"})
    assert watching.error == "out of memory"


@pytest.mark.parametrize("ends", [["response.done"], ["response.completed", "response.done"]])
def test_responses_that_are_done(ends: list[str]) -> None:
    """`response.done`, the last event of some servers, ends a response, and repeats nothing after another end."""
    response = {"id": "r", "status": "completed", "usage": {"input_tokens": 8, "output_tokens": 2}}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    watching = streamed(responses, *({"type": kind, "response": {**response, "output": [call]}} for kind in ends))
    assert (watching.finished, watching.error) == (True, None)
    facts = watching.facts()
    assert [usage.tool for usage in facts.tool_usages] == ["f"]
    assert [(usage.input_tokens, usage.output_tokens, usage.partial) for usage in facts.token_usages] == [(8, 2, False)]


def test_responses_that_are_done_and_failed() -> None:
    """`response.done` with the status `failed` is recorded as a failure."""
    failed = {"id": "r", "status": "failed", "error": {"code": "server_error", "message": "No."}, "output": []}
    assert streamed(responses, {"type": "response.done", "response": failed}).error == "server_error: No."


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"error": {"code": 502, "message": "No."}, "finish_reason": "error"}, "No."),
        ({"error": {"code": 502, "message": "No."}, "finish_reason": "stop"}, "No."),
        ({"finish_reason": "error"}, "the provider failed"),
    ],
)
def test_an_error_within_a_choice(choice: dict[str, Any], words: str) -> None:
    """An error within a choice, as OpenRouter reports a failed provider, is recorded, blocking and streamed."""
    blocking = answered(chat_completions, {"id": "x", "choices": [{"message": {"content": "a"}, **choice}]})
    stream = streamed(chat_completions, {"id": "x", "choices": [{"index": 0, "delta": {}, **choice}]}, "[DONE]")
    assert (blocking.error, stream.error) == (words, words)
