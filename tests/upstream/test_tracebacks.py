"""The local variables in tracebacks of the data plane, which error reports may include, show no credentials."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from fastapi_aibridge import GatewayError, OpenAIProvider, Principal, Provider, ProviderSettings
from fastapi_aibridge.exchange.calls import UpstreamCaller, UpstreamRequest
from fastapi_aibridge.observability import Metrics
from fastapi_aibridge.upstream.client import UpstreamClient
from fastapi_aibridge.upstream.connection import Connection

from .raw import HANG_UP, SILENCE, Answer, RawUpstream

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret-0123456789"
EXTRA = "extra-very-secret-0123456789"
SECRETS = ("very-secret",)


def shown(error: BaseException | None) -> Iterator[tuple[str, str]]:
    """Yield each local variable in the package's frames of the error and of its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "fastapi_aibridge" not in frame.f_code.co_filename:
                continue
            for name, value in frame.f_locals.items():
                where = f"{frame.f_code.co_qualname}.{name}"
                yield where, repr(value)
                yield where, pickled(value)
        error = error.__cause__ or error.__context__


def pickled(value: object) -> str:
    try:
        return pickle.dumps(value).decode("latin-1")
    except Exception:  # noqa: BLE001 - most values cannot be pickled
        return ""


async def whole(caller: UpstreamCaller, provider: Provider, principal: Principal, request: UpstreamRequest) -> None:
    response = await caller.call(provider, principal, request)
    while await response.read_some():
        pass


async def failing(caller: UpstreamCaller, url: str, headers: list[tuple[bytes, bytes]], **settings: Any) -> list[str]:
    provider = OpenAIProvider(
        "openai",
        ProviderSettings(
            **{
                "type": "openai", "base_url": url, "api_key": KEY, "max_retries": 0,
                "extra_headers": {"x-extra": EXTRA}, **settings,
            }
        ),
    )  # fmt: skip
    alice = Principal("alice")
    request = UpstreamRequest(
        "POST", b"/v1/x", headers, b"{}", provider.credential(None, alice), "/v1/chat/completions", "m"
    )
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any error will do
        await whole(caller, provider, alice, request)
    variables = list(shown(caught.value))
    assert len(variables) > 5
    return [where for where, text in variables if any(secret in text for secret in SECRETS)]


@pytest.mark.parametrize("value", [b"a\r\nb", b"a\nb", b"a\x00b", b"a\x7f"])
async def test_a_control_character(value: bytes) -> None:
    """A control character gives a 400, nothing is sent, and the traceback shows no credential."""
    async with RawUpstream(Answer()) as upstream, UpstreamClient() as client:
        caller = UpstreamCaller(client, Metrics())
        assert await failing(caller, upstream.base_url, [(b"x-app", value)]) == []
        provider, alice = OpenAIProvider("o", ProviderSettings(base_url=upstream.base_url, api_key=KEY)), Principal("a")
        request = UpstreamRequest("GET", b"/", [(value, b"x")], b"", provider.credential(None, alice))
        with pytest.raises(GatewayError) as caught:
            await whole(caller, provider, alice, request)
        assert (caught.value.status, caught.value.code) == (400, "invalid_header")
        assert upstream.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        HANG_UP,
        SILENCE,
        Answer(200, b"{", {"content-length": "100"}, hang_up=True),
        Answer(200, b"x", {"transfer-encoding": "chunked"}),
        Answer(200, b"", {"a": "b\x00"}),
        Answer(307, b"", {"location": "/x"}),
    ],
    ids=["hang up", "silence", "cut", "two framings", "NUL", "redirect"],
)
async def test_a_broken_upstream(answer: Answer) -> None:
    """No credential shows, however the exchange fails."""
    async with RawUpstream(answer) as upstream, UpstreamClient() as client:
        caller = UpstreamCaller(client, Metrics())
        assert await failing(caller, upstream.base_url, [], read_timeout=0.1) == []


async def test_no_connection() -> None:
    """A failed connection shows no credential, nor the password of its proxy."""
    async with UpstreamClient() as client:
        caller = UpstreamCaller(client, Metrics())
        for settings in ({}, {"proxy": "http://user:very-secret@127.0.0.1:1"}):
            assert await failing(caller, "http://127.0.0.1:1/v1", [], **settings) == []


async def test_a_fault_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error just after the request was written shows no credential."""

    def fails(self: Connection) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Connection, "_watch", fails)
    async with RawUpstream(Answer()) as upstream, UpstreamClient() as client:
        assert await failing(UpstreamCaller(client, Metrics()), upstream.base_url, []) == []
