"""The offline provider's responses in each format, and its commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from example_app import offline
from example_app.offline import OfflineServer, answer
from fastapi_aibridge.testing import ToolCall, Usage

Request = dict[str, Any]


def chat(prompt: str, *tools: str, model: str = "gpt-5") -> Request:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
    offered = [{"type": "function", "function": {"name": name}} for name in tools]
    return {"model": model, "messages": messages, "tools": offered}


def responses(prompt: str, *tools: str, model: str = "gpt-5") -> Request:
    content = [{"type": "input_text", "text": "<environment/>"}, {"type": "input_text", "text": prompt}]
    return {
        "model": model,
        "input": [{"type": "message", "role": "user", "content": content}],
        "tools": [{"type": "function", "name": name} for name in tools],
    }


def messages(prompt: str, *tools: str, model: str = "claude-sonnet-5") -> Request:
    return {
        "model": model,
        "max_tokens": 500,
        "messages": [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
        "tools": [{"name": name, "input_schema": {}} for name in tools],
    }


FORMATS = pytest.mark.parametrize("ask", [chat, responses, messages])
Ask = Callable[..., Request]


@FORMATS
def test_a_prompt_is_repeated(ask: Ask) -> None:
    """A prompt without a command is repeated, and its words are its tokens."""
    reply = answer(ask("Hello there,\nwho are you?"))
    assert reply.text == "You said: Hello there,\nwho are you?"
    assert reply.usage == Usage(input_tokens=5, output_tokens=7)


def test_a_bare_string_is_a_prompt() -> None:
    """Responses accepts a string as input, and Messages and Chat Completions as content."""
    assert answer({"model": "gpt-5", "input": "Hello"}).text == "You said: Hello"
    plain = {"model": "claude-sonnet-5", "messages": [{"role": "user", "content": "Hello"}]}
    assert answer(plain).text == "You said: Hello"


@pytest.mark.parametrize(
    "request_",
    [{"model": "m"}, {"model": "m", "input": []}, {"model": "m", "messages": ["?", {"role": "user", "content": 1}]}],
)
def test_no_prompt_is_answered_too(request_: Request) -> None:
    """A request without a prompt gets an answer, not an error."""
    assert answer(request_).text == "You said nothing."


@FORMATS
def test_the_last_word_counts(ask: Ask) -> None:
    """Only the user's last message is answered."""
    request = ask("First")
    turns = request.get("input") or request["messages"]
    turns += [{"role": "assistant", "content": "Go on."}, {"role": "user", "content": "Second"}]
    assert answer(request).text == "You said: Second"


@FORMATS
def test_it_thinks_when_told_to(ask: Ask) -> None:
    """`think:` becomes thinking, which counts as reasoning, and the other lines are answered."""
    reply = answer(ask("think: hard and long\nHello"))
    assert (reply.thinking, reply.text) == ("hard and long", "You said: Hello")
    assert reply.usage.reasoning_tokens == 3


@FORMATS
def test_it_calls_a_tool_when_told_to(ask: Ask) -> None:
    """`call` calls an offered tool with the given arguments; several lines make several calls."""
    reply = answer(ask('call read_file {"path": "x"}\ncall now', "read_file", "now"))
    assert [(call.name, call.arguments_object) for call in reply.tool_calls] == [
        ("read_file", {"path": "x"}),
        ("now", {}),
    ]
    assert reply.text == ""


@FORMATS
def test_an_injected_tool_can_be_called_by_its_own_name(ask: Ask) -> None:
    """The end of a tool's name is enough, but a complete name takes precedence."""
    assert answer(ask("call echo", "bmcp_demo_echo")).tool_calls[0].name == "bmcp_demo_echo"
    assert answer(ask("call echo", "bmcp_demo_echo", "echo")).tool_calls[0].name == "echo"


def test_a_tool_that_is_not_offered_is_not_called() -> None:
    """For a tool that is not offered, the answer lists the offered ones."""
    reply = answer(chat("call nothing {}", "read_file"))
    assert not reply.tool_calls
    assert reply.text == "There is no tool nothing; there is: read_file."


def test_a_tools_result_is_answered() -> None:
    """If a request ends with tool results, the answer has them, in each format."""
    from_chat = chat("call now", "now")
    from_chat["messages"] += [
        {"role": "assistant", "tool_calls": [{"id": "1"}, {"id": "2"}]},
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "sunny"}]},
    ]
    from_responses = responses("call now", "now")
    from_responses["input"] += [
        {"type": "function_call", "call_id": "1", "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "noon"},
        {"type": "custom_tool_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "sunny"}]},
    ]
    from_messages = messages("call now", "now")
    from_messages["messages"] += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "now", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": "noon"},
                {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "sunny"}]},
                {"type": "text", "text": "<reminder/>"},
            ],
        },
    ]
    for request in (from_chat, from_responses, from_messages):
        assert answer(request).text == "The tool says: noon\nsunny"


@FORMATS
def test_it_fails_when_told_to(ask: Ask) -> None:
    """`fail` with a number refuses, `fail stream` ends with an error event, and `fail cut` closes the connection."""
    refused = answer(ask("fail 429"))
    assert (refused.status, refused.headers) == (429, {"Retry-After": "1"})
    assert answer(ask("Fail 503")).status == 503
    assert answer(ask("Hello\nfail stream")).error
    assert answer(ask("Hello\nfail cut")).hang_up


def test_it_is_slow_when_told_to() -> None:
    """`slow` delays each word."""
    assert answer(chat("slow\nHello")).delay > answer(chat("Hello")).delay


@pytest.mark.parametrize("prompt", ["fail 200", "call", "please think: no", "slowly", "a call now"])
def test_other_words_are_no_commands(prompt: str) -> None:
    """A command must be a whole line."""
    assert answer(chat(prompt, "now")).text == f"You said: {prompt}"


def test_the_model_can_say_it_too() -> None:
    """The model's name can make the reply think, fail or be slow."""
    assert answer(chat("Hello", model="gpt-5-think")).thinking
    assert answer(chat("Hello", model="gpt-5-fail-500")).status == 500
    assert answer(chat("Hello", model="gpt-5-fail-stream")).error
    assert answer(chat("Hello", model="gpt-5-slow")).delay == offline.SLOW_PACE
    assert answer(chat("Hello", model="gpt-5-thinker")).thinking == ""


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    server = OfflineServer()
    yield server.start()
    server.stop()


def test_the_sdks_talk_to_it(base_url: str) -> None:
    """Both SDKs stream from the server with the gateway's key."""
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key=offline.KEY) as client:
        with client.responses.stream(model="gpt-5", input="think: hm\nHello") as stream:
            assert stream.get_final_response().output_text == "You said: Hello"
        assert [model.id for model in client.models.list()] == list(offline.MODELS)
    with (
        anthropic.Anthropic(base_url=base_url, api_key=offline.KEY) as other,
        other.messages.stream(**messages("Hello")) as incoming,
    ):
        assert incoming.get_final_text() == "You said: Hello"


def test_a_clients_own_key_is_refused(base_url: str) -> None:
    """A request with another key gets 401, so that a leaked client key is noticed."""
    with (
        openai.OpenAI(base_url=f"{base_url}/v1", api_key="demo-alice") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.responses.create(model="gpt-5", input="Hello")


def test_the_server_starts_once_and_ends() -> None:
    """A second start returns the same address; after the stop nothing listens there."""
    server = OfflineServer()
    base_url = server.start()
    assert server.running
    assert server.start() == base_url
    server.stop()
    assert not server.running
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{base_url}/v1/models")


def test_a_call_id_is_fresh_each_time() -> None:
    """Each call of a tool has its own id."""
    first, second = (answer(chat("call now", "now")).tool_calls[0] for _ in range(2))
    assert isinstance(first, ToolCall)
    assert first.id != second.id
