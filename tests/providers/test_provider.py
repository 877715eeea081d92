"""Providers: addresses, routes, credentials, additional headers and error shapes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from pydantic import HttpUrl, SecretStr

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.principal import Principal
from fastapi_aibridge.providers.anthropic import AnthropicProvider
from fastapi_aibridge.providers.building import build_providers
from fastapi_aibridge.providers.openai import OpenAIProvider
from fastapi_aibridge.providers.provider import Provider
from fastapi_aibridge.settings import ProviderSettings
from fastapi_aibridge.upstream.keys import Credential

ALICE = Principal("alice")
KEY = "sk-0123456789abcdef"
CENTRAL = Credential(KEY, "centralized")


def openai(base_url: str = "https://api.openai.com/v1", **members: Any) -> OpenAIProvider:
    return OpenAIProvider("openai", ProviderSettings(base_url=HttpUrl(base_url), api_key=SecretStr(KEY), **members))


def anthropic(base_url: str = "https://api.anthropic.com", **members: Any) -> AnthropicProvider:
    settings = ProviderSettings(base_url=HttpUrl(base_url), api_key=SecretStr(KEY), **members)
    return AnthropicProvider("anthropic", settings)


@pytest.mark.parametrize(
    ("provider", "path", "query", "url"),
    [
        (openai(), "/v1/responses", b"", "https://api.openai.com/v1/responses"),
        (openai("https://h/x/v1/"), "/v1/models", b"", "https://h/x/v1/models"),
        (openai("https://h"), "/v1/models", b"", "https://h/models"),
        (openai(), "/v1/models", b"a=1&b=%2F+c", "https://api.openai.com/v1/models?a=1&b=%2F+c"),
        (openai(), "/v1/models/a%20b", b"", "https://api.openai.com/v1/models/a%20b"),
        (openai(), "/v1/models/a%3Fb", b"x", "https://api.openai.com/v1/models/a%3Fb?x"),
        (anthropic(), "/v1/messages", b"beta=true", "https://api.anthropic.com/v1/messages?beta=true"),
        (anthropic("http://h:81/x/"), "/v1/messages", b"", "http://h:81/x/v1/messages"),
    ],
)
def test_where_a_path_is_found_upstream(provider: Provider, path: str, query: bytes, url: str) -> None:
    """A path is appended to the base URL, with the version path where the vendor's SDK has it; encoding stays."""
    assert provider.origin.scheme + "://" + provider.origin.authority + provider.target(path, query).decode() == url


@pytest.mark.parametrize("query", [b"a=b c\r\nHost: x", b"a=\x00", b"a#b", b"\xc3\xa9=\xff"])
def test_no_query_breaks_out_of_its_place(query: bytes) -> None:
    """Characters that a query may not contain are percent-encoded, line breaks and `#` among them."""
    target = openai().target("/v1/models", query).decode("ascii")
    assert target.isprintable()
    assert " " not in target
    assert "#" not in target


def test_without_a_base_url_the_vendors_own_is_called() -> None:
    """Without a base URL the vendor's own is used, also in settings that an app makes itself."""
    settings = ProviderSettings(api_key=SecretStr(KEY))
    assert OpenAIProvider("o", settings).base_url == "https://api.openai.com/v1"
    assert AnthropicProvider("a", settings).base_url == "https://api.anthropic.com"


def test_the_central_credential_pays() -> None:
    """The central credential is used unless the caller brings a key and the provider allows that."""
    assert openai().credential(None, ALICE) == CENTRAL
    assert openai(byok=True).credential(None, ALICE) == CENTRAL
    own = openai(byok=True).credential("sk-own", ALICE)
    assert (own.key, own.kind) == ("sk-own", "byok")


def test_keys_that_are_not_wanted_or_missing() -> None:
    """A key that the provider does not allow is refused with 403, a missing one with 401."""
    with pytest.raises(GatewayError, match="no key of the caller's own") as refused:
        openai().credential("sk-own", ALICE)
    assert refused.value.status == 403
    with pytest.raises(GatewayError, match="X-AIBridge-Token") as missing:
        OpenAIProvider("openai", ProviderSettings(byok=True)).credential(None, ALICE)
    assert missing.value.status == 401


@pytest.mark.parametrize(("key", "hint"), [(KEY, "sk-...cdef"), ("short", "..."), ("x" * 15, "..."), ("", "...")])
def test_a_hint_is_not_the_key(key: str, hint: str) -> None:
    """A hint has seven characters of a long key and none of a short one; the representation shows no more."""
    credential = Credential(key, "byok")
    assert credential.hint == hint
    assert repr(credential) == f"Credential({hint!r}, 'byok')"


def test_no_representation_shows_a_key() -> None:
    """No representation shows a key, because representations end up in logs."""
    for provider in (openai(), anthropic()):
        assert KEY not in repr(provider)
        assert KEY not in repr(provider.settings)
    assert "s3cret" not in repr(ProviderSettings(extra_headers={"x-auth": "s3cret"}))


def written(
    provider: Provider,
    headers: list[tuple[bytes, bytes]],
    credential: Credential = CENTRAL,
    principal: Principal = ALICE,
) -> list[tuple[bytes, bytes]]:
    """Return the headers as they are sent."""
    return [(name, bytes(value)) for name, value in provider.with_own_headers(headers, credential, principal)]


def test_what_the_gateway_adds() -> None:
    """The gateway adds the credential in the vendor's header and the configured headers, and no data of the caller."""
    alice = Principal("alice", metadata={"team": "x"})
    assert written(openai(extra_headers={"X-Team": "blue"}), [], CENTRAL, alice) == [
        (b"authorization", b"Bearer " + KEY.encode()),
        (b"X-Team", b"blue"),
    ]
    assert written(anthropic(), [], CENTRAL, alice) == [(b"x-api-key", KEY.encode())]


def test_an_access_token_of_a_claude_subscription_is_a_bearer_token() -> None:
    """A Claude subscription token is sent as a bearer token, because Anthropic refuses it in `X-Api-Key`."""
    token = "sk-ant-oat01-0123456789"
    assert written(anthropic(), [], Credential(token, "byok")) == [
        (b"authorization", b"Bearer " + token.encode()),
        (b"anthropic-beta", b"oauth-2025-04-20"),
    ]


@pytest.mark.parametrize("kind", ["centralized", "byok"])
def test_lists_of_the_gateway_and_the_caller_are_one(kind: str) -> None:
    """The beta headers of caller, settings and credential become one list without duplicates, the caller's first."""
    provider = anthropic(extra_headers={"Anthropic-Beta": "house-1, files-2"})
    sent = [(b"anthropic-beta", b"context-1m, files-2"), (b"x-app", b"cli"), (b"anthropic-beta", b"interleaved")]
    headers = written(provider, sent, Credential("sk-ant-oat01-0123456789", kind))
    assert [value for name, value in headers if name.lower() == b"anthropic-beta"] == [
        b"context-1m,files-2,interleaved,oauth-2025-04-20,house-1"
    ]
    assert (b"x-app", b"cli") in headers
    merged = written(openai(extra_headers={"openai-beta": "a"}), [(b"openai-beta", b"b")])
    assert merged[1:] == [(b"openai-beta", b"b,a")]


def test_the_gateways_headers_replace_the_callers() -> None:
    """The gateway's own headers replace the caller's, in any case and in the spelling with underscores."""

    class House(OpenAIProvider):
        def authorization(self, key: str) -> tuple[str, str]:
            return ("X-House-Key", key)

    house = House("house", ProviderSettings(api_key=SecretStr(KEY)))
    sent = [(b"x-house-key", b"callers"), (b"x_house_key", b"callers"), (b"x-app", b"1")]
    assert written(house, sent) == [(b"x-app", b"1"), (b"X-House-Key", KEY.encode())]
    extra = openai(extra_headers={"X-Title": "ours"})
    assert written(extra, [(b"x-title", b"theirs")])[1:] == [(b"X-Title", b"ours")]


def test_what_the_gateway_adds_does_not_show() -> None:
    """Added headers are hidden in representations, copies and pickles, because error reports show local variables."""
    headers = openai(extra_headers={"X-Team": "s3cret"}).with_own_headers([], CENTRAL, ALICE)
    for shown in (repr(headers), str(pickle.loads(pickle.dumps(headers))), repr(copy.deepcopy(headers))):
        assert KEY not in shown
        assert "s3cret" not in shown
    assert KEY.encode() not in pickle.dumps(headers)


def test_actor_headers_are_safe() -> None:
    """Actor headers from user data contain no line breaks, invalid names or characters beyond ASCII."""
    hostile = Principal(
        "al ice\r\nX-Evil: 1",
        metadata={"user name": "Zoë", "a: b\r\nx": "c\nd", "ü": "?", "N": 5, "pct": "100%", "ok_1.x-y": ""},
    )
    assert written(openai(send_actor_headers=True), [], CENTRAL, hostile)[1:] == [
        (b"x-aibridge-actor-id", b"al ice%0D%0AX-Evil: 1"),
        (b"x-aibridge-actor-metadata-user-name", b"Zo%C3%AB"),
        (b"x-aibridge-actor-metadata-a--b--x", b"c%0Ad"),
        (b"x-aibridge-actor-metadata--", b"?"),
        (b"x-aibridge-actor-metadata-n", b"5"),
        (b"x-aibridge-actor-metadata-pct", b"100%25"),
        (b"x-aibridge-actor-metadata-ok_1.x-y", b""),
    ]


def test_unchanged_providers_are_kept() -> None:
    """A reload builds only providers with changed settings anew; the others keep their state."""
    one = {name: ProviderSettings(type=name, api_key=SecretStr(KEY)) for name in ("openai", "anthropic")}
    first = build_providers(one)
    assert [type(provider) for provider in first] == [OpenAIProvider, AnthropicProvider]
    again = {name: ProviderSettings(type=name, api_key=SecretStr(KEY)) for name in one}
    assert all(new is old for new, old in zip(build_providers(again, first), first, strict=True))
    again["openai"] = ProviderSettings(type="openai", api_key=SecretStr("sk-other"))
    second = build_providers(again, first)
    assert second[0] is not first[0]
    assert second[1] is first[1]
    assert [provider.name for provider in build_providers({"openai": again["openai"]}, second)] == ["openai"]


@pytest.mark.parametrize(
    ("status", "openai_type", "anthropic_type"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "authentication_error", "authentication_error"),
        (403, "permission_error", "permission_error"),
        (404, "invalid_request_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (415, "invalid_request_error", "invalid_request_error"),
        (429, "rate_limit_error", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (502, "server_error", "api_error"),
        (503, "server_error", "overloaded_error"),
        (504, "server_error", "timeout_error"),
    ],
)
def test_error_shapes(status: int, openai_type: str, anthropic_type: str) -> None:
    """Errors have the type and shape that the vendor's SDK expects."""
    error = GatewayError(status, "some_code", "What happened.")
    assert openai().error_body(error) == {
        "error": {"message": "What happened.", "type": openai_type, "param": None, "code": "some_code"}
    }
    assert anthropic().error_body(error) == {
        "type": "error",
        "error": {"type": anthropic_type, "message": "What happened."},
    }
