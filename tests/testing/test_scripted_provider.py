"""The scripted provider over a real socket, used by the vendors' SDKs."""

from __future__ import annotations

import builtins
import gzip
from collections.abc import Iterator
from typing import Any

import anthropic
import anyio
import httpx
import openai
import pytest
import zstandard
from anthropic.types import TextBlock, ThinkingBlock, ToolUseBlock
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from openai.types.responses import ResponseFunctionToolCall, ResponseReasoningItem

from fastapi_aibridge.testing import Received, Reply, ScriptedProvider, ToolCall, Usage

HELLO: Any = [{"role": "user", "content": "Hello"}]
CALL = ToolCall("read_file", {"path": "README.md"}, "call_1")
THOUGHTFUL = Reply("Let me look.", thinking="A file, then.", tool_calls=[CALL], usage=Usage(reasoning_tokens=4))


class Clients:
    """The SDKs' clients for one provider, without retries."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.openai = openai.OpenAI(base_url=f"{base_url}/v1", api_key="sk-test", max_retries=0)
        self.anthropic = anthropic.Anthropic(base_url=base_url, api_key="sk-ant-test", max_retries=0)
        self.http = httpx.Client(base_url=base_url)

    def close(self) -> None:
        self.openai.close()
        self.anthropic.close()
        self.http.close()


class Stage:
    """A provider whose script can be replaced while it runs, because a server for each test would be slow."""

    def __init__(self) -> None:
        self.reply = Reply()
        self.provider = ScriptedProvider(lambda _: self.reply)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Stage, Clients]]:
    stage = Stage()
    with stage.provider.serve_in_thread() as base_url:
        clients = Clients(base_url)
        yield stage, clients
        clients.close()


@pytest.fixture
def stage(served: tuple[Stage, Clients]) -> Stage:
    served[0].provider.received.clear()
    return served[0]


@pytest.fixture
def clients(served: tuple[Stage, Clients]) -> Clients:
    return served[1]


def test_chat_is_read_by_the_sdk(stage: Stage, clients: Clients) -> None:
    """A chat completion arrives with text, tool call and usage."""
    stage.reply = THOUGHTFUL
    completion = clients.openai.chat.completions.create(model="gpt-5", messages=HELLO)
    [choice] = completion.choices
    [call] = choice.message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert (choice.message.content, choice.finish_reason) == ("Let me look.", "tool_calls")
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "read_file", '{"path":"README.md"}')
    assert completion.usage
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (12, 6)


def test_chat_streams_to_the_sdk(stage: Stage, clients: Clients) -> None:
    """The SDK's stream helper assembles a streamed chat, including usage."""
    stage.reply = THOUGHTFUL
    with clients.openai.chat.completions.stream(
        model="gpt-5", messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        completion = stream.get_final_completion()
    [choice] = completion.choices
    [call] = choice.message.tool_calls or []
    assert (choice.message.content, choice.finish_reason) == ("Let me look.", "tool_calls")
    assert (call.function.name, call.function.arguments) == ("read_file", '{"path":"README.md"}')
    assert completion.usage
    assert completion.usage.total_tokens == 18


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_responses_are_read_by_the_sdk(stage: Stage, clients: Clients, streamed: bool) -> None:
    """A response arrives with a reasoning summary, a message and a function call, streamed or not."""
    stage.reply = THOUGHTFUL
    if streamed:
        with clients.openai.responses.stream(model="gpt-5", input="Hello") as stream:
            response: Any = stream.get_final_response()
    else:
        response = clients.openai.responses.create(model="gpt-5", input="Hello")
    reasoning, _, call = response.output
    assert isinstance(reasoning, ResponseReasoningItem)
    assert isinstance(call, ResponseFunctionToolCall)
    assert (reasoning.summary[0].text, response.output_text) == ("A file, then.", "Let me look.")
    assert (call.call_id, call.name, call.arguments) == ("call_1", "read_file", '{"path":"README.md"}')
    assert response.usage
    assert response.usage.output_tokens_details.reasoning_tokens == 4


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_messages_are_read_by_the_sdk(stage: Stage, clients: Clients, streamed: bool) -> None:
    """A message arrives with signed thinking, text and a tool use, streamed or not."""
    stage.reply = THOUGHTFUL
    if streamed:
        with clients.anthropic.messages.stream(model="claude-sonnet-5", max_tokens=99, messages=HELLO) as stream:
            message: Any = stream.get_final_message()
    else:
        message = clients.anthropic.messages.create(model="claude-sonnet-5", max_tokens=99, messages=HELLO)
    thinking, text, call = message.content
    assert isinstance(thinking, ThinkingBlock)
    assert isinstance(text, TextBlock)
    assert isinstance(call, ToolUseBlock)
    assert (thinking.thinking, text.text) == ("A file, then.", "Let me look.")
    assert thinking.signature
    assert (call.id, call.name, call.input) == ("call_1", "read_file", {"path": "README.md"})
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("tool_use", 12, 6)


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_a_refusal_is_the_sdks_error(stage: Stage, clients: Clients, streamed: bool) -> None:
    """A status of the script becomes the SDKs' error for it, with message and headers."""
    stage.reply = Reply(status=429, error="slow down", headers={"Retry-After": "7"})
    with pytest.raises(openai.RateLimitError, match="slow down") as caught:
        clients.openai.responses.create(model="gpt-5", input="Hello", stream=streamed)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "7"
    with pytest.raises(anthropic.RateLimitError, match="slow down") as refused:
        clients.anthropic.messages.create(model="claude-sonnet-5", max_tokens=9, messages=HELLO, stream=streamed)
    assert refused.value.request_id


def test_an_error_in_a_stream_is_the_sdks_error(stage: Stage, clients: Clients) -> None:
    """The SDKs get the text before an error in a stream, and then the error."""
    stage.reply = Reply("The start", error="broken")
    text: list[str | None] = []
    chat = clients.openai.chat.completions.create(model="gpt-5", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="broken"):
        text.extend(chunk.choices[0].delta.content for chunk in chat)
    assert text == ["", "The", " start"]
    with pytest.raises(anthropic.APIStatusError, match="broken"):
        list(clients.anthropic.messages.create(model="m", max_tokens=9, messages=HELLO, stream=True))
    *_, last = clients.openai.responses.create(model="gpt-5", input="Hello", stream=True)
    assert (last.type, last.message) == ("error", "broken")  # type: ignore[union-attr]


def test_an_error_without_a_stream_is_a_500(stage: Stage, clients: Clients) -> None:
    """A reply with an error in its stream is a 500 if the request is not streamed."""
    stage.reply = Reply("The start", error="broken")
    with pytest.raises(openai.InternalServerError, match="broken"):
        clients.openai.chat.completions.create(model="gpt-5", messages=HELLO)


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_hanging_up_cuts_the_answer(stage: Stage, clients: Clients, streamed: bool) -> None:
    """The connection closes before the response is complete, and the client notices."""
    stage.reply = Reply("The start", hang_up=True)
    with pytest.raises(httpx.RemoteProtocolError):
        clients.http.post("/v1/responses", json={"model": "gpt-5", "stream": streamed})
    assert not stage.provider.received[0].hung_up.is_set()


def test_it_keeps_what_it_received(stage: Stage, clients: Clients) -> None:
    """Method, path, query, headers and body of each request are kept as they were sent."""
    stage.reply = Reply("ok")
    request = {"model": "gpt-5", "messages": HELLO}
    clients.http.post("/v1/chat/completions?beta=true&x=%2F", json=request, headers=[("X-A", "1"), ("X-A", "2")])
    clients.http.get("/v1/models/org%2Fmodel")
    posted, got = stage.provider.received
    assert (posted.method, posted.path, posted.query) == ("POST", "/v1/chat/completions", "beta=true&x=%2F")
    assert (posted.headers["x-a"], posted.json()) == ("1, 2", request)
    assert (got.method, got.path, got.body) == ("GET", "/v1/models/org%2Fmodel", b"")


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_compressed_requests_are_understood(stage: Stage, clients: Clients, encoding: str, compress: Any) -> None:
    """A gzip or zstd body is kept as it was sent and read as JSON."""
    stage.reply = Reply("ok")
    body = compress(b'{"model": "gpt-5"}')
    answer = clients.http.post("/v1/responses", content=body, headers={"content-encoding": encoding})
    assert answer.status_code == 200
    assert stage.provider.received[0].body == body
    assert stage.provider.received[0].json() == {"model": "gpt-5"}


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("/v1/responses", b"{", "not JSON"),
        ("/v1/responses", b"[]", "not a JSON object"),
        ("/v1/responses", b"{}", "model: field required"),
        ("/v1/messages", b'{"model": "x", "messages": []}', "max_tokens: field required"),
    ],
)
def test_requests_that_the_vendor_refuses_get_400(
    stage: Stage, clients: Clients, path: str, content: bytes, message: str
) -> None:
    """A request without a required member is refused and takes no reply from the script."""
    answer = clients.http.post(path, content=content)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_that_is_not_what_it_says_gets_400(clients: Clients, encoding: str) -> None:
    """A body that cannot be decompressed is refused."""
    answer = clients.http.post("/v1/responses", content=b"plain", headers={"content-encoding": encoding})
    assert answer.status_code == 400


def test_other_routes_get_404_in_the_vendors_shape(stage: Stage, clients: Clients) -> None:
    """An unknown path is refused in the shape of the client's vendor."""
    with pytest.raises(openai.NotFoundError):
        clients.openai.files.list()
    answer = clients.http.get("/v1/files", headers={"anthropic-version": "2023-06-01"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    assert clients.http.put("/v1/responses", json={}).status_code == 404


def test_models_are_listed_for_either_sdk(clients: Clients) -> None:
    """Both SDKs list the models and retrieve one by its name."""
    assert [model.id for model in clients.openai.models.list()] == ["gpt-5", "claude-sonnet-5"]
    assert [model.id for model in clients.anthropic.models.list()] == ["gpt-5", "claude-sonnet-5"]
    assert clients.openai.models.retrieve("gpt-5").id == "gpt-5"
    assert clients.anthropic.models.retrieve("gpt-5").id == "gpt-5"
    with pytest.raises(openai.NotFoundError):
        clients.openai.models.retrieve("gpt-1")


def test_head_is_answered_without_a_body(clients: Clients) -> None:
    """HEAD gets the response of GET without its body."""
    answer = clients.http.head("/v1/models")
    assert (answer.status_code, answer.content) == (200, b"")


def test_tokens_are_counted_for_the_sdk(stage: Stage, clients: Clients) -> None:
    """Counting tokens takes no reply from the script."""
    stage.reply = Reply(status=500)
    count = clients.anthropic.messages.count_tokens(
        model="claude-sonnet-5", system="Be brief.", messages=[{"role": "user", "content": "Count these four words"}]
    )
    assert count.input_tokens == 6


def test_replies_are_given_in_turn() -> None:
    """The replies of a sequence are used in order, and further calls are refused."""
    with ScriptedProvider([Reply("one"), Reply("two")]).serve_in_thread() as base_url:
        clients = Clients(base_url)
        for wanted in ("one", "two"):
            assert clients.openai.responses.create(model="gpt-5", input="Hello").output_text == wanted
        with pytest.raises(openai.BadRequestError, match="the script is over: it has 2 replies"):
            clients.openai.responses.create(model="gpt-5", input="Hello")
        clients.close()


def test_a_key_can_be_required() -> None:
    """With an API key set, requests without it in either header get 401."""
    with ScriptedProvider(Reply("ok"), api_key="sk-test").serve_in_thread() as base_url:
        clients = Clients(base_url)
        assert clients.openai.responses.create(model="gpt-5", input="Hello").output_text == "ok"
        with pytest.raises(anthropic.AuthenticationError):
            clients.anthropic.messages.create(model="m", max_tokens=9, messages=HELLO)
        clients.close()


@pytest.mark.anyio
async def test_it_serves_in_the_running_loop() -> None:
    """`async with serve()` needs no thread; the script may be a coroutine function that gets the request."""

    async def echo(received: Received) -> Reply:
        await anyio.lowlevel.checkpoint()
        return Reply(received.json()["input"])

    provider = ScriptedProvider(echo)
    async with provider.serve() as base_url, httpx.AsyncClient(base_url=base_url) as http:
        answer = await http.post("/v1/responses", json={"model": "gpt-5", "input": "Same to you"})
    assert answer.json()["output"][0]["content"][0]["text"] == "Same to you"
    assert len(provider.received) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(("keep", "wanted"), [(None, [0, 1, 2, 3]), (2, [2, 3]), (0, [])])
async def test_it_can_forget_old_requests(keep: int | None, wanted: list[int]) -> None:
    """A long-running provider keeps as many of the newest requests as it is told."""
    provider = ScriptedProvider(Reply("ok"), keep=keep)
    async with httpx.AsyncClient(base_url="http://provider", transport=httpx.ASGITransport(provider)) as http:
        for number in range(4):
            await http.post("/v1/responses", json={"model": "gpt-5", "number": number})
    assert [received.json()["number"] for received in provider.received] == wanted


@pytest.mark.anyio
async def test_it_works_without_a_socket() -> None:
    """The provider is an ASGI app: a client with an ASGI transport reaches it in process."""
    transport = httpx.ASGITransport(ScriptedProvider(Reply("Hi there")))
    async with httpx.AsyncClient(base_url="http://provider", transport=transport) as http:
        answer = await http.post("/v1/responses", json={"model": "gpt-5"})
    assert answer.json()["output"][0]["content"][0]["text"] == "Hi there"


@pytest.mark.anyio
async def test_it_notes_clients_that_hang_up() -> None:
    """A client that leaves a stream is noted on its request; one that stays to the end is not."""
    provider = ScriptedProvider([Reply("some words", delay=0.001), Reply("word " * 5000, delay=0.01)])
    async with provider.serve() as base_url, httpx.AsyncClient(base_url=base_url) as http:
        request = {"model": "gpt-5", "stream": True}
        await http.post("/v1/responses", json=request)
        async with http.stream("POST", "/v1/responses", json=request) as response:
            await anext(response.aiter_bytes())
        assert await anyio.to_thread.run_sync(provider.received[1].hung_up.wait, 5)
    assert not provider.received[0].hung_up.is_set()


@pytest.mark.anyio
async def test_the_end_of_serving_cuts_what_still_runs() -> None:
    """Leaving the block does not wait for a running stream."""
    provider = ScriptedProvider(Reply("word " * 5000, delay=0.1))
    async with httpx.AsyncClient() as http:
        with anyio.fail_after(10):
            async with provider.serve() as base_url:
                request = http.build_request("POST", f"{base_url}/v1/responses", json={"model": "m", "stream": True})
                response = await http.send(request, stream=True)
        with pytest.raises(httpx.RemoteProtocolError):
            await response.aread()


def test_a_missing_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvicorn, the error on serving names the extra to install."""
    real_import = builtins.__import__

    def without_uvicorn(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "uvicorn":
            raise ModuleNotFoundError(name)
        return real_import(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_uvicorn)
    with (
        pytest.raises(RuntimeError, match=r"pip install '.*\[example\]'"),
        ScriptedProvider(Reply()).serve_in_thread(),
    ):
        pass
