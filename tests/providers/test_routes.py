"""The callable parts of a provider's API: the listed paths, each with its listed methods."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import HttpUrl, SecretStr

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.providers.anthropic import AnthropicProvider
from fastapi_aibridge.providers.openai import OpenAIProvider
from fastapi_aibridge.providers.provider import Provider
from fastapi_aibridge.providers.routes import Route, Target
from fastapi_aibridge.settings import ProviderSettings


def provider(type_: type[Provider] = OpenAIProvider, **members: Any) -> Provider:
    settings = ProviderSettings(base_url=HttpUrl("https://h/v1"), api_key=SecretStr("sk-key"), **members)
    return type_(type_.type, settings)


def find(one: Provider, method: str, path: str, raw: str | None = None) -> Target:
    written = f"/ai/{one.name}{raw or path}"
    return one.routes.find(method, path[1:], written.encode())


def relayed(one: Provider, method: str, path: str) -> bool:
    try:
        return find(one, method, path).route is not None
    except GatewayError:
        return False


OPENAI, ANTHROPIC = provider(), provider(AnthropicProvider)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.mark.parametrize(
    ("one", "path", "methods"),
    [
        (OPENAI, "/v1/models", "GET HEAD"),
        (OPENAI, "/v1/models/gpt-5", "GET HEAD DELETE"),
        (OPENAI, "/v1/models/org/model", "GET HEAD DELETE"),
        (OPENAI, "/v1/modelsx", ""),
        (OPENAI, "/v1/conversations", "POST"),
        (OPENAI, "/v1/conversations/c", "GET HEAD POST DELETE"),
        (OPENAI, "/v1/conversations/c/items", "GET HEAD POST"),
        (OPENAI, "/v1/conversations/c/items/i", "GET HEAD POST DELETE"),
        (OPENAI, "/v1/responses/r", "GET HEAD POST DELETE"),
        (OPENAI, "/v1/responses/r/input_items", "GET HEAD POST DELETE"),
        (OPENAI, "/v1/responses/r/cancel", "POST"),
        (OPENAI, "/v1/responses/input_tokens", "POST"),
        (OPENAI, "/v1/files", ""),
        (OPENAI, "/V1/models", ""),
        (OPENAI, "/v1/messages", ""),
        (ANTHROPIC, "/v1/models", "GET HEAD"),
        (ANTHROPIC, "/v1/models/m", "GET HEAD"),
        (ANTHROPIC, "/v1/messages/count_tokens", "POST"),
        (ANTHROPIC, "/v1/messages/batches", ""),
        (ANTHROPIC, "/api/event_logging/batch", "GET HEAD POST"),
        (ANTHROPIC, "/api/event_logging", ""),
        (ANTHROPIC, "/v1/responses/x", ""),
    ],
)
def test_which_paths_are_relayed(one: Provider, path: str, methods: str) -> None:
    """A listed path is relayed with its own methods only; `/*` stands for at least one more segment."""
    assert [method for method in METHODS if relayed(one, method, path)] == methods.split()


@pytest.mark.parametrize("path", sorted(set(OpenAIProvider.intercepted) - {"/v1/responses/compact"}))
def test_what_is_intercepted(path: str) -> None:
    """Intercepted paths accept only POST; the raw path stays as written."""
    target = find(OPENAI, "POST", path)
    assert target == find(OPENAI, "POST", path, path.replace("s", "%73"))
    assert (target.path, target.raw_path, target.route) == (path, path, None)
    assert target.format is OPENAI.intercepted[path]
    assert not any(relayed(OPENAI, method, path) for method in METHODS if method != "POST")


def test_further_paths() -> None:
    """`PASS_THROUGH` paths are relayed with any method, but never loosen a listed or intercepted route."""
    one = provider(pass_through=("/v1/files", "/v1/files/*", "/v1/models/*", "/v1/chat/completions"))
    assert [method for method in METHODS if relayed(one, method, "/v1/files/f/content")] == list(METHODS[:-1])
    assert relayed(one, "GET", "/v1/files")
    assert not relayed(one, "GET", "/v1/filesx")
    assert relayed(one, "GET", "/v1/chat/completions")
    assert find(one, "POST", "/v1/chat/completions").format is not None
    assert not relayed(one, "PATCH", "/v1/models/m")


@pytest.mark.parametrize(
    ("one", "method", "path", "hint"),
    [
        (OPENAI, "GET", "/v1/chat/completions", "it relays POST there"),
        (OPENAI, "PATCH", "/v1/models/m", "it relays DELETE, GET there"),
        (OPENAI, "POST", "/chat/completions", "did you mean /v1/chat/completions? ... /openai/v1"),
        (ANTHROPIC, "POST", "/messages", "did you mean /v1/messages? ... /anthropic/v1"),
        (ANTHROPIC, "POST", "/v1/v1/messages", "did you mean /v1/messages? ... /anthropic"),
        (OPENAI, "GET", "/v1/v1/models", "did you mean /v1/models? ... /openai"),
    ],
)  # fmt: skip
def test_who_is_nearly_right_is_told(one: Provider, method: str, path: str, hint: str) -> None:
    """The 404 gives a hint for the usual mistakes: a wrong method, or a base URL with or without `/v1`."""
    with pytest.raises(GatewayError) as refused:
        find(one, method, path)
    assert (refused.value.status, refused.value.code) == (404, "not_found")
    said = refused.value.message.replace("Then the client's base URL has to end in", "...")
    assert said.endswith(f"; {hint}")


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/v1/models/org/model", "/v1/models/org%2Fmodel"),
        ("/v1/models/org/model", "/v1/models/org%2fmodel"),
        ("/v1/models/a/b/c d", "/v1/models/a%2Fb/c%20d"),
        ("/v1/models/org/model", "/v1/models/org/model"),
    ],
)
def test_a_models_name_may_have_slashes(path: str, raw: str) -> None:
    """A model's name may contain slashes, which are sent encoded or not, as the client wrote them."""
    for one in (OPENAI, ANTHROPIC):
        assert find(one, "GET", path, raw).raw_path == raw


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/v1/models/../x", "/v1/models/..%2Fx"),
        ("/v1/models/a/../x", "/v1/models/a%2F..%2Fx"),
        ("/v1/models/a/./x", "/v1/models/a%2F.%2Fx"),
        ("/v1/models//a", "/v1/models/%2Fa"),
        ("/v1/models/a/", "/v1/models/a%2F"),
        ("/v1/models/a/..;/x", "/v1/models/a%2F..;%2Fx"),
        ("/v1/models/a\\b", "/v1/models/a%5Cb"),
        ("/v1/models/a%2Fb", "/v1/models/a%252Fb"),
        ("/v1/models/a/b", "/v1%2Fmodels/a/b"),
        ("/v1/models/a/b", "/v1/models%2Fa/b"),
        ("/v1/models/a/b", "/v1/m%6Fdels/a%2Fb"),
        ("/v1/models/a/b", "%2Fv1/models/a%2Fb"),
        ("/v1/models/a/b", "/x%2Fy/v1/models/a%2Fb"),
        ("/v1/models/a/b", "/v1/models/a%2Fc"),
        ("/v1/responses/a/cancel", "/v1/responses/a%2Fcancel"),
        ("/v1/conversations/a/b", "/v1/conversations/a%2Fb"),
    ],
)
def test_an_encoded_slash_is_a_slash(path: str, raw: str) -> None:
    """An encoded slash cannot lead out of a name, and is refused outside a model's name."""
    for method in ("GET", "POST", "DELETE"):
        with pytest.raises(GatewayError) as refused:
            find(OPENAI, method, path, raw)
        assert refused.value.status == 404


def test_what_a_call_does() -> None:
    """A route tells whether a call changes something, and which object its path names."""
    items = Route(path="/v1/conversations/*/items", kind="conversation")
    assert items.object_id("/v1/conversations/conv_1/items") == "conv_1"
    assert Route(path="/v1/files/*").object_id("/v1/files/f") == ""
    assert [method for method in METHODS if items.changes(method)] == ["POST", "PUT", "PATCH", "DELETE"]
    assert not Route(path="/v1/messages/count_tokens", reads_by_post=True).changes("POST")
    listed = (*OPENAI.passed_through, *ANTHROPIC.passed_through)
    unrecorded = {(route.path, method) for route in listed for method in route.methods if not route.changes(method)}
    assert {path for path, method in unrecorded if method != "GET"} == {
        "/v1/responses/input_tokens",
        "/v1/messages/count_tokens",
        "/api/event_logging/*",
    }


def test_a_path_of_many_segments_costs_no_more_than_its_length() -> None:
    """A path with as many segments as possible is matched in linear time."""
    path = "/v1/models/" + "/".join("a" * 20_000)
    assert find(OPENAI, "GET", path, path.replace("a/a", "a%2Fa")).route is not None
