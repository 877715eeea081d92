"""Breakers and keys as callers and operators of a gateway see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx2
import openai
import pytest

from fastapi_aibridge import Status

from .app import ADMIN, KEYS, running
from .raw import Answer

pytestmark = pytest.mark.anyio

OVERLOADED = Answer(503, b'{"error": {"message": "overloaded"}}')
LIMITED = Answer(429, b'{"error": {"message": "slow down"}}', {"retry-after": "50"})
BREAKER = {"circuit_breaker": {"failure_threshold": 2}}


async def test_open_circuit_in_the_providers_shape() -> None:
    """After failures of two callers the circuit is open for all, with an error in the provider's shape and a record."""
    async with running(OVERLOADED, provider=BREAKER) as app:
        for caller in ("alice", "bob"):
            assert (await app.chat(caller)).content == OVERLOADED.body
        answer = await app.chat("bob")
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "circuit_open")
        record = await app.record(answer)
        assert record.ending is not None
        assert (record.ending.status, record.ending.upstream_status) == (Status.FAILED, None)
        assert record.ending.error
        assert len(app.upstream.requests) == 2


async def test_one_callers_failures_are_its_own() -> None:
    """A caller that fails alone opens only its own circuit, which operators see."""
    async with running(OVERLOADED, provider=BREAKER) as app:
        for _ in range(2):
            await app.chat("alice")
        assert (await app.chat("alice")).json()["error"]["code"] == "circuit_open"
        [breaker] = (await app.admin("providers"))["items"][0]["breakers"]
        assert (breaker["initiator_id"], breaker["state"]) == ("alice", "open")
        assert (await app.chat("bob")).content == OVERLOADED.body
        assert (await app.chat("bob")).json()["error"]["code"] == "circuit_open"


async def test_state_survives_evictions_and_reloads() -> None:
    """Breakers and keys of an unchanged provider survive the eviction of a bridge, and a reload."""

    async def states() -> list[tuple[str, str]]:
        [provider] = (await app.admin("providers"))["items"]
        return [(one.get("hint", one.get("model")), one["state"]) for one in provider["keys"] + provider["breakers"]]

    async with running(LIMITED, OVERLOADED, provider=BREAKER, pool={"max_items": 1}) as app:
        await app.chat("alice")
        await app.chat("bob")
        assert app.aibridge.pool.metrics().keys_evicted == 1
        before = await states()
        assert sorted(state for _, state in before) == ["open", "ready", "resting"]
        assert (await app.client.post("/ai/admin/reload", headers=ADMIN)).json()["retired_bridges"] == 1
        assert await states() == before
        assert (await app.chat("alice")).json()["error"]["code"] == "circuit_open"


async def test_operators_see_keys_and_breakers() -> None:
    """Operators see the state of keys by masked hint and of breakers by endpoint and model, but no key."""
    async with running(LIMITED, OVERLOADED, provider=BREAKER) as app:
        await app.chat(model="gpt-5-nano")
        await app.chat(model="gpt-5-nano")
        [provider] = (await app.admin("providers"))["items"]
        assert (provider["name"], provider["type"], provider["status"]) == ("openai", "openai", "enabled")
        assert provider["base_url"] == app.upstream.base_url
        resting, ready = sorted(provider["keys"], key=lambda key: key["state"], reverse=True)
        assert (ready["state"], ready["until"]) == ("ready", None)
        assert datetime.fromisoformat(resting["until"]) - datetime.now(UTC) < timedelta(seconds=51)
        [breaker] = provider["breakers"]
        assert (breaker["route"], breaker["model"]) == ("/v1/chat/completions", "gpt-5-nano")
        assert (breaker["state"], breaker["failures"]) == ("open", 2)
        assert not any(key in str(provider) for key in KEYS)


async def test_metrics_name_no_models() -> None:
    """The metrics of breakers and keys have no labels that clients can choose."""
    async with running(LIMITED, OVERLOADED, provider=BREAKER) as app:
        for _ in range(3):
            await app.chat(model="made-up-by-a-client")
        text = await app.admin("metrics")
        route = 'provider="openai",route="/v1/chat/completions"'
        for line in (
            f'aibridge_circuits{{{route},state="open"}} 1.0',
            f'aibridge_circuits{{{route},state="half_open"}} 0.0',
            f"aibridge_circuit_trips_total{{{route}}} 1.0",
            f"aibridge_circuit_rejections_total{{{route}}} 1.0",
            'aibridge_key_rests_total{provider="openai",status="429"} 1.0',
        ):
            assert line in text
        assert 'state="resting"} 1.0' in text
        assert "made-up-by-a-client" not in text
        assert not any(key in text for key in KEYS)


async def test_attempts_are_told_to_the_client() -> None:
    """The response gives the number of attempts and tells the SDK not to retry."""
    async with running(OVERLOADED, provider={"max_retries": 1, **BREAKER}) as app:
        answer = await app.chat()
        assert (answer.status_code, answer.content) == (503, OVERLOADED.body)
        assert answer.headers["x-aibridge-attempts"] == "2"
        assert answer.headers["x-should-retry"] == "false"


async def test_the_record_names_the_key_that_paid() -> None:
    """If the first key is limited, the record has the hint of the key that served the request."""
    async with running(LIMITED, Answer(200, b'{"id": "c1", "choices": []}')) as app:
        answer = await app.chat()
        assert answer.status_code == 200
        record = await app.record(answer)
        first, second = app.upstream.keys
        assert first != second
        assert record.interception.credential_hint == f"{second[:3]}...{second[-4:]}"


@pytest.mark.parametrize("answers", [1, 2])
async def test_no_key_gets_into_a_record(answers: int) -> None:
    """Keys that a provider repeats in its error are masked in the record."""

    def repeat(key: str) -> Answer:
        return Answer(401, b'{"error": {"message": "Incorrect API key provided: ' + key.encode() + b'"}}')

    async with running(*(repeat(key) for key in (*KEYS, *KEYS)[:answers])) as app:
        answer = await app.chat()
        assert answer.status_code == 401
        record = await app.record(answer)
        assert record.ending is not None
        assert record.ending.error is not None
        assert "Incorrect API key provided: sk-..." in record.ending.error
        assert not any(key in repr(record) for key in KEYS)
        assert record.ending.error.startswith("provider_key_rejected: the provider rejects the gateway's key sk-...")
        assert answer.headers["x-should-retry"] == "false"


async def test_a_rejected_key_is_told_to_operators(caplog: pytest.LogCaptureFixture) -> None:
    """The log names provider and masked key of a rejected key once, because only operators can replace it."""
    invalid = Answer(401, b'{"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}')
    async with running(invalid, provider={"api_keys": KEYS[:1]}) as app:
        for _ in range(3):
            assert (await app.chat()).status_code == 401
    [record] = [one for one in caplog.records if one.levelname == "WARNING" and "key" in one.getMessage()]
    assert record.getMessage() == "provider 'openai' rejects the gateway's key sk-...6789"


async def test_a_401_that_a_caller_provokes_is_the_callers() -> None:
    """A 401 caused by the request itself blames no key in the record, and the keys stay ready."""
    provoked = Answer(401, b'{"error": {"message": "CORS requests must set a header"}}')
    async with running(provoked) as app:
        answer = await app.chat()
        assert (answer.status_code, answer.content) == (401, provoked.body)
        record = await app.record(answer)
        assert record.ending is not None
        assert record.ending.error == "CORS requests must set a header"
        [provider] = (await app.admin("providers"))["items"]
        assert {key["state"] for key in provider["keys"]} == {"ready"}


REDIRECTS = [Answer(status, b"", {"location": "https://evil.example/x?k=v"}) for status in (301, 302, 303, 307, 308)]


@pytest.mark.parametrize("redirect", REDIRECTS, ids=lambda one: str(one.status))
async def test_redirects_become_errors(redirect: Answer) -> None:
    """A redirect is an error on all routes: an SDK would follow it with the gateway's token and the prompt."""
    async with running(redirect, provider={"max_retries": 2}) as app:
        key = {"authorization": "Bearer key-of-alice"}
        for answer in (await app.chat(), await app.client.get("/ai/openai/v1/models", headers=key)):
            assert answer.status_code == 502
            assert answer.json()["error"]["code"] == "upstream_redirect"
            assert f"redirect (status {redirect.status})" in answer.json()["error"]["message"]
            assert "location" not in answer.headers
            assert answer.headers["x-should-retry"] == "false"
            assert "evil" not in answer.text
        [record] = await app.records()
        assert record.ending is not None
        assert record.ending.upstream_status == redirect.status
        assert "to evil.example" in str(record.ending.error)
        assert "k=v" not in str(record.ending.error)
        assert len(app.upstream.requests) == 2


async def test_an_answer_of_304_is_no_redirect() -> None:
    """A 304 is passed on, so that conditional requests for lists of models work."""
    async with running(Answer(304, b"", {"location": "/elsewhere", "etag": "x"})) as app:
        headers = {"authorization": "Bearer key-of-alice", "if-none-match": "x"}
        answer = await app.client.get("/ai/openai/v1/models", headers=headers)
        assert (answer.status_code, answer.headers["etag"]) == (304, "x")


async def test_an_upstream_that_cannot_be_reached_is_told_with_its_host(caplog: pytest.LogCaptureFixture) -> None:
    """The host of a failed connection is in the record and once in the log, but not in the response."""
    async with running(OVERLOADED, provider={"base_url": "http://127.0.0.1:1/v1"}) as app:
        for _ in range(2):
            answer = await app.chat()
            assert answer.status_code == 502
            assert "connection refused" in answer.json()["error"]["message"]
            assert "127.0.0.1" not in answer.text
            record = await app.record(answer)
            assert record.ending is not None
            assert "http://127.0.0.1:1: connection refused" in str(record.ending.error)
    [line] = [one for one in caplog.records if "cannot be reached" in one.getMessage()]
    assert line.getMessage() == "an upstream cannot be reached: http://127.0.0.1:1: connection refused"
    assert line.levelname == "WARNING"


async def test_passed_through_requests_use_the_keys() -> None:
    """A passed-through request goes on with the next key if the first one is limited."""
    async with running(LIMITED, Answer(200, b'{"data": []}')) as app:
        answer = await app.client.get("/ai/openai/v1/models", headers={"authorization": "Bearer key-of-alice"})
        assert (answer.status_code, answer.content) == (200, b'{"data": []}')
        assert answer.headers["x-aibridge-attempts"] == "2"


async def test_sdks_do_not_multiply_retries() -> None:
    """An SDK with retries before a gateway with retries makes three attempts, not nine."""
    async with running(OVERLOADED, provider={"max_retries": 2}) as app:
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app.app))
        async with openai.AsyncOpenAI(
            base_url="http://test/ai/openai/v1", api_key="key-of-alice", max_retries=2, http_client=http
        ) as client:
            with pytest.raises(openai.InternalServerError, match="overloaded"):
                await client.chat.completions.create(model="gpt-5", messages=[])
        assert len(app.upstream.requests) == 3
