"""The example app's own routes, tested with the test kit: no process, no key and no gateway."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fastapi.testclient import TestClient

from example_app.main import create_app
from fastapi_aibridge import MemoryRecorder, Principal, Status
from fastapi_aibridge.testing import Reply, ScriptedProvider, Usage
from fastapi_aibridge.testing.pytest_plugin import OverrideBridge, OverrideProviders

ALICE = {"Authorization": "Bearer demo-alice"}


@pytest.fixture
def client(override_bridge: OverrideBridge) -> TestClient:
    app = create_app()
    override_bridge(app, Principal("carol"))
    return TestClient(app)


@pytest.fixture
def whole_client(override_providers: OverrideProviders, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The complete app, including gateway and users, on a scripted provider."""
    monkeypatch.setenv("AIBRIDGE_CLIENT_KEYS__ALICE", "demo-alice")
    app = create_app()
    override_providers(app.state.aibridge)
    with TestClient(app) as client:
        yield client


def test_a_summary(client: TestClient, scripted_provider: ScriptedProvider, memory_recorder: MemoryRecorder) -> None:
    """The summary is the model's answer, and the model is asked in the caller's name."""
    scripted_provider.script = Reply("It is short.", usage=Usage(output_tokens=3))
    answer = client.post("/summaries", json={"text": "A long text."})
    assert answer.json() == {"summary": "It is short.", "output_tokens": 3}
    assert scripted_provider.received[0].json()["input"] == "A long text."
    [record] = memory_recorder.records
    assert record.interception.initiator_id == "carol"
    assert record.facts.prompts[0].text == "A long text."


def test_a_story(client: TestClient, memory_recorder: MemoryRecorder) -> None:
    """A story is streamed as plain text."""
    with client.stream("POST", "/stories", json={"text": "a fox"}) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        assert "".join(answer.iter_text()) == "Hello from the script."
    [record] = memory_recorder.records
    assert record.ending
    assert record.ending.status is Status.COMPLETED


@pytest.mark.parametrize(("upstream", "told"), [(429, 429), (503, 503), (401, 502), (500, 502)])
def test_a_failing_model(client: TestClient, scripted_provider: ScriptedProvider, upstream: int, told: int) -> None:
    """Statuses 429 and 503 are passed on, other upstream errors become 502, and `Retry-After` is kept."""
    scripted_provider.script = Reply(status=upstream, error="no", headers={"Retry-After": "9"})
    answer = client.post("/summaries", json={"text": "A long text."})
    assert (answer.status_code, answer.headers["retry-after"]) == (told, "9")


def test_who_calls(client: TestClient) -> None:
    """`GET /me` returns the test's principal."""
    assert client.get("/me").json()["initiator_id"] == "carol"


def test_handler_and_gateway_are_one(whole_client: TestClient, memory_recorder: MemoryRecorder) -> None:
    """A user's requests to the gateway and to a handler are recorded alike."""
    asked = {"model": "gpt-5", "input": "Hello"}
    whole_client.post("/ai/openai/v1/responses", json=asked, headers=ALICE).raise_for_status()
    whole_client.post("/summaries", json={"text": "Hello"}, headers=ALICE).raise_for_status()
    assert whole_client.post("/summaries", json={"text": "Hello"}).status_code == 401
    records = memory_recorder.records
    assert [record.interception.initiator_id for record in records] == ["alice", "alice"]
    assert [record.facts.prompts[0].text for record in records] == ["Hello", "Hello"]


@pytest.mark.anyio
async def test_with_an_async_client(override_bridge: OverrideBridge) -> None:
    """The overrides work if the test and the app share an event loop."""
    app = create_app()
    override_bridge(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        answer = await client.post("/summaries", json={"text": "A long text."})
    assert answer.json()["summary"] == "Hello from the script."
