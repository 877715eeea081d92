"""The clients that a bridge creates: their requirements, their keys and their independence."""

from __future__ import annotations

import subprocess
import sys

import openai
import pytest

from fastapi_aibridge import ConfigurationError, Principal
from fastapi_aibridge.testing import Reply
from tests import processor_time

from .harness import CENTRAL, GatewayHarness, harness_of
from .test_openai_chat import HELLO

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["openai", "anthropic", "http_client"])
async def test_an_unknown_provider_is_refused(harness: GatewayHarness, kind: str) -> None:
    """An unknown provider is refused with an error that names the known ones."""
    with pytest.raises(ConfigurationError, match="no provider 'azure'; there are: anthropic, openai"):
        getattr(harness.bridge, kind)("azure")


async def test_a_provider_of_another_kind_is_refused(harness: GatewayHarness) -> None:
    """A client of one vendor's SDK is refused for a provider with the other vendor's API."""
    with pytest.raises(ConfigurationError, match="'anthropic', which does not speak OpenAI's API"):
        harness.bridge.openai("anthropic")
    with pytest.raises(ConfigurationError, match="'openai', which does not speak Anthropic's API"):
        harness.bridge.anthropic("openai")


@pytest.mark.parametrize("extra", ["openai", "anthropic"])
async def test_a_missing_extra_is_named(harness: GatewayHarness, monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    """Without its SDK a client is refused with the command that installs it."""
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(ConfigurationError, match=rf"pip install '.*\[{extra}\]'"):
        getattr(harness.bridge, extra)()


async def test_a_missing_httpx2_is_named(harness: GatewayHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without httpx2 the bare client is refused with the command that installs it."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigurationError, match="pip install httpx2"):
        harness.bridge.http_client("openai")


def test_nothing_is_imported_before_it_is_used() -> None:
    """Importing the package imports neither the SDKs nor their HTTP client."""
    code = "import sys, fastapi_aibridge; print({'openai', 'anthropic', 'httpx2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


async def test_the_sdks_do_not_try_again(harness: GatewayHarness) -> None:
    """The SDK clients do not retry, because the gateway does: retries of both would multiply."""
    harness.provider.script = Reply(status=500, error="broken")
    with pytest.raises(openai.InternalServerError):
        await harness.bridge.openai().chat.completions.create(model="gpt-5", messages=HELLO)
    assert len(harness.provider.received) == 1
    assert harness.bridge.anthropic().max_retries == 0


async def test_only_the_gateways_key_goes_upstream(harness: GatewayHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that the SDKs find in the environment, or that a library sets, do not reach the provider."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-from-the-environment")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-from-the-environment")
    harness.provider.script = Reply("Hello")
    await harness.bridge.openai().responses.create(model="gpt-5", input="Hello")
    await harness.bridge.anthropic().messages.create(
        model="claude-sonnet-5", max_tokens=9, messages=[{"role": "user", "content": "Hello"}]
    )
    library = openai.AsyncOpenAI(api_key="sk-of-a-library", http_client=harness.bridge.http_client("openai"))
    await library.responses.create(model="gpt-5", input="Hello")
    for received in harness.provider.received:
        sent = str(dict(received.headers))
        assert CENTRAL in sent
        assert "environment" not in sent
        assert "library" not in sent
        assert "in-process" not in sent
    assert [record.interception.credential_kind for record in harness.recorder.records] == ["centralized"] * 3


async def test_a_key_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the provider allows it, the principal's own key is used and recorded, without the account of the app."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-app")
    async with harness_of(both={"byok": True}) as harness:
        harness.provider.script = Reply("Hello")
        await harness.bridge.openai(api_key="sk-own-0123456789abc").responses.create(model="gpt-5", input="Hello")
        await harness.bridge.anthropic(api_key="sk-own-0123456789abc").messages.create(
            model="claude-sonnet-5", max_tokens=9, messages=[{"role": "user", "content": "Hello"}]
        )
        first, second = harness.provider.received
        assert first.headers["authorization"] == "Bearer sk-own-0123456789abc"
        assert "org-of-the-app" not in first.headers.values()
        assert second.headers["x-api-key"] == "sk-own-0123456789abc"
        assert {record.interception.credential_kind for record in harness.recorder.records} == {"byok"}


async def test_a_key_of_ones_own_that_is_not_taken(harness: GatewayHarness) -> None:
    """A key of one's own is refused as over HTTP if the provider does not allow it."""
    with pytest.raises(openai.PermissionDeniedError, match="takes no key of the caller's own"):
        await harness.bridge.openai(api_key="sk-own").responses.create(model="gpt-5", input="Hello")


async def test_the_bare_client(harness: GatewayHarness) -> None:
    """The bare client can call every path that the gateway relays."""
    harness.provider.script = Reply("Hello")
    async with harness.bridge.http_client("openai") as client:
        answer = await client.post("/v1/responses", json={"model": "gpt-5", "input": "Hello"})
        missing = await client.post("/v1/nothing", json={"model": "gpt-5", "input": "Hello"})
    assert answer.json()["status"] == "completed"
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_limits_are_the_gateways(harness: GatewayHarness) -> None:
    """A body over the limit is refused as over HTTP."""
    limit = harness.aibridge.settings.max_body_size
    async with harness.bridge.http_client("openai") as client:
        answer = await client.post("/v1/responses", content=b"x" * (limit + 1))
    assert answer.status_code == 413


async def test_closing_a_client_closes_no_other(harness: GatewayHarness) -> None:
    """Closing one client leaves the others usable."""
    harness.provider.script = Reply("Hello")
    other = harness.bridge.openai()
    async with harness.bridge.openai() as client:
        await client.responses.create(model="gpt-5", input="Hello")
    assert (await other.responses.create(model="gpt-5", input="Hello")).output_text == "Hello"


async def test_clients_are_cheap(harness: GatewayHarness) -> None:
    """A client is created in less than a millisecond, so that each request can have its own."""

    def hundred() -> None:
        for _ in range(100):
            harness.bridge.openai()

    assert processor_time.least(lambda: processor_time.of(hundred), 0.1) < 0.1


async def test_calls_hold_no_lease_of_their_own(harness: GatewayHarness) -> None:
    """Calls through a client take no lease beside that of the bridge."""
    harness.provider.script = Reply("Hello")
    before = harness.aibridge.pool.metrics().leases
    async with harness.bridge.openai().responses.stream(model="gpt-5", input="Hello") as stream:
        assert harness.aibridge.pool.metrics().leases == before
        await stream.until_done()
    async with harness.aibridge.bridge(Principal("alice")):
        assert harness.aibridge.pool.metrics().leases == before + 1
