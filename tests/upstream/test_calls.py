"""Calls of a provider over real sockets: changes of keys, retries, and replaced connections."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import generate_latest

from fastapi_aibridge import GatewayError, OpenAIProvider, Principal, ProviderSettings
from fastapi_aibridge.exchange import reason
from fastapi_aibridge.exchange.calls import UpstreamCaller, UpstreamRequest
from fastapi_aibridge.exchange.relay import answer_headers
from fastapi_aibridge.observability import Metrics
from fastapi_aibridge.upstream.breaker import CircuitOpen
from fastapi_aibridge.upstream.client import UpstreamClient
from fastapi_aibridge.upstream.response import AHEAD, UpstreamResponse
from tests.loopback import read_request
from tests.waiting import until

from .raw import HANG_UP, SILENCE, Answer, RawUpstream

pytestmark = pytest.mark.anyio

ALICE = Principal("alice")
KEYS = ("sk-first-0123456789", "sk-second-0123456789", "sk-third-0123456789")
CHAT = "/v1/chat/completions"
OVERLOADED = Answer(503, b'{"error": "overloaded"}', {"x-upstream": "yes"})
LIMITED = Answer(429, b'{"error": "limited"}', {"retry-after": "20"})
OK = Answer(200, b'{"ok": true}')
REJECTED = Answer(401, b'{"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}')
UNCLEAR = Answer(401, b'{"error": {"type": "authentication_error", "message": "CORS requests must set a header"}}')


class Desk:
    """An upstream caller that notes its pauses instead of sleeping."""

    def __init__(self, client: UpstreamClient, upstream: RawUpstream, **settings: Any) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.metrics = Metrics()
        self.caller = UpstreamCaller(client, self.metrics, clock=lambda: self.now, sleep=self.sleep, chance=lambda: 1.0)
        self.upstream = upstream
        values = {"type": "openai", "base_url": upstream.base_url, "api_key": KEYS[0], **settings}
        self.provider = OpenAIProvider("openai", ProviderSettings(**values))

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def call(
        self, *, own: str | None = None, method: str = "POST", who: Principal = ALICE, **more: Any
    ) -> UpstreamResponse:
        credential = self.provider.credential(own, who)
        self.outgoing = UpstreamRequest(
            method, b"/v1/x", [], b"{}", credential, **{"route": CHAT, "model": "m", **more}
        )
        return await self.caller.call(self.provider, who, self.outgoing)

    async def answer(self, **more: Any) -> tuple[int, bytes, dict[str, str]]:
        response = await self.call(**more)
        body = b""
        while piece := await response.read_some():
            body += piece
        headers = {name.decode().lower(): value.decode() for name, value in answer_headers(response)}
        return response.status, body, headers

    async def error(self, **more: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.call(**more)
        return caught.value


@asynccontextmanager
async def desk(*answers: Answer, **settings: Any) -> AsyncIterator[Desk]:
    async with RawUpstream(*answers) as upstream, UpstreamClient() as client:
        yield Desk(client, upstream, **settings)


async def test_first_answer_is_unmarked() -> None:
    """A call that succeeds at once has no header about attempts."""
    async with desk(OK) as one:
        status, body, headers = await one.answer()
        assert (status, body) == (200, OK.body)
        assert set(headers) == {"content-type", "content-length", "x-content-type-options"}
        assert one.upstream.requests[0].header("x-aibridge-retry-count") is None


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
async def test_retries(status: int) -> None:
    """Statuses that SDKs retry are retried after growing pauses; upstream and client get the number of attempts."""
    async with desk(Answer(status), Answer(status), OK) as one:
        status, _, headers = await one.answer()
        assert status == 200
        assert headers["x-aibridge-attempts"] == "3"
        assert "x-should-retry" not in headers
        assert one.pauses == [0.5, 1.0]
        counts = [request.header("x-aibridge-retry-count") for request in one.upstream.requests]
        assert counts == [None, "1", "2"]


async def test_last_answer_is_passed_on() -> None:
    """After the last retry the client gets the last response, with a header that stops retries of its SDK."""
    async with desk(OVERLOADED) as one:
        status, body, headers = await one.answer()
        assert (status, body, headers["x-upstream"]) == (503, OVERLOADED.body, "yes")
        assert (headers["x-aibridge-attempts"], headers["x-should-retry"]) == ("3", "false")
        assert len(one.upstream.requests) == 3


@pytest.mark.parametrize("body", [b"", b'{"data": []}'])
async def test_an_answer_to_head_has_no_body(body: bytes) -> None:
    """A response to HEAD has no body; a connection on which the upstream sends one is not used again."""
    async with desk(Answer(200, body, {"content-length": "12"})) as one:
        for _ in range(2):
            status, received, headers = await one.answer(method="HEAD", route="")
            assert (status, received, headers["content-length"]) == (200, b"", "12")
        assert one.upstream.connections == (2 if body else 1)


async def test_our_last_word_replaces_the_upstreams() -> None:
    """The gateway's `x-should-retry` replaces the upstream's: SDKs would read two as one joined value."""
    async with desk(Answer(503, headers={"X-Should-Retry": "true"})) as one:
        response = await one.call()
        words = [value for name, value in answer_headers(response) if name == b"x-should-retry"]
        response.close()
        assert words == [b"false"]


@pytest.mark.parametrize("answer", [Answer(400), Answer(403), Answer(503, headers={"x-should-retry": "false"})])
async def test_not_retried(answer: Answer) -> None:
    """Statuses that the SDKs do not retry are passed on at once without added headers."""
    async with desk(answer) as one:
        status, _, headers = await one.answer()
        assert status == answer.status
        assert "x-aibridge-attempts" not in headers
        assert len(one.upstream.requests) == 1


async def test_retries_can_be_left_to_the_client() -> None:
    """With `max_retries=0` failures are passed on as they are."""
    async with desk(OVERLOADED, max_retries=0) as one:
        _, _, headers = await one.answer()
        assert "x-should-retry" not in headers
        assert len(one.upstream.requests) == 1


async def test_retry_after_is_honoured() -> None:
    """The pause is a little longer than the upstream asks for."""
    async with desk(LIMITED, OK) as one:
        assert (await one.answer())[0] == 200
        assert one.pauses == [21.0]


async def test_long_wish_is_the_clients() -> None:
    """A requested wait beyond the retry window is left to the client, which gets it and may retry."""
    async with desk(Answer(429, headers={"retry-after": "60"})) as one:
        status, _, headers = await one.answer()
        assert (status, headers["retry-after"]) == (429, "60")
        assert "x-should-retry" not in headers
        assert one.pauses == []


async def test_time_is_bounded() -> None:
    """No attempt begins after the retry window, even if retries are left."""
    async with desk(LIMITED, max_retries=10) as one:
        await one.answer()
        assert one.pauses == [21.0]
        assert len(one.upstream.requests) == 2


async def test_connection_errors_are_retried() -> None:
    """A hang-up is retried, and the final error tells the number of attempts."""
    async with desk(HANG_UP) as one:
        error = await one.error()
        assert (error.status, error.code) == (502, "upstream_unreachable")
        assert error.headers == {"x-aibridge-attempts": "3", "x-should-retry": "false"}
        assert len(one.upstream.requests) == 3


async def test_silence_is_retried() -> None:
    """A timeout is retried if the retry window allows it."""
    async with desk(SILENCE, OK, read_timeout=0.5) as one:
        assert (await one.answer())[0] == 200


async def test_unsafe_requests_are_not_sent_twice() -> None:
    """A request that must not be repeated fails after a hang-up, because it may have taken effect."""
    async with desk(HANG_UP, OK) as one:
        error = await one.error(repeatable=False)
        assert error.headers == {}
        assert len(one.upstream.requests) == 1


async def test_unsafe_requests_wait_for_limits() -> None:
    """A request that must not be repeated is retried after a 429, because it had no effect."""
    async with desk(LIMITED, OK) as one:
        assert (await one.answer(repeatable=False))[0] == 200


async def test_stale_connection() -> None:
    """A request that fails on an idle connection is sent again at once on a new one, even without retries."""
    async with desk(OK, HANG_UP, OK, max_retries=0) as one:
        await one.answer()
        status, _, headers = await one.answer()
        assert status == 200
        assert "x-aibridge-attempts" not in headers
        assert one.upstream.numbers == [1, 1, 2]


async def test_stale_connections_are_not_tried_one_by_one() -> None:
    """A new connection is opened after one dead idle connection, however many there are."""
    async with desk(OK, max_retries=0) as one:
        responses = await asyncio.gather(*(one.call() for _ in range(5)))
        await asyncio.gather(*(response.read_some() for response in responses))
        one.upstream.answers = [HANG_UP, OK]
        assert (await one.answer())[0] == 200
        assert one.upstream.connections == 6


async def test_hang_up_on_a_new_connection() -> None:
    """A request that fails on a new connection is not sent again without retries."""
    async with desk(HANG_UP, OK, max_retries=0) as one:
        assert (await one.error()).status == 502
        assert len(one.upstream.requests) == 1


STREAM = {"content-type": "text/event-stream", "content-length": "1000"}


@pytest.mark.parametrize(
    "broken",
    [
        Answer(200, b"{", {"content-length": "1000"}, hang_up=True),
        Answer(200, b"", STREAM, hang_up=True),
        Answer(200, b"", STREAM, stalls=True),
    ],
    ids=["half an answer", "stream without a byte", "stream that stalls before its first byte"],
)
async def test_broken_before_the_first_byte(broken: Answer) -> None:
    """A response that breaks before its first byte could be relayed is retried and counts as a failure."""
    async with desk(broken, OK, read_timeout=0.5) as one:
        status, body, headers = await one.answer()
        assert (status, body, headers["x-aibridge-attempts"]) == (200, OK.body, "2")
    async with desk(broken, max_retries=0, read_timeout=0.5) as one:
        assert (await one.error()).status in (502, 504)
        [circuit] = one.provider.breakers
        assert circuit.failures == 1


async def test_broken_after_the_first_byte() -> None:
    """A stream that breaks after its first bytes is relayed that far and raises."""
    async with desk(Answer(200, b"data: 1\n\n", STREAM, hang_up=True), OK) as one:
        response = await one.call()
        assert await response.read_some() == b"data: 1\n\n"
        with pytest.raises(GatewayError):
            await response.read_some()
        response.close()
        assert len(one.upstream.requests) == 1


async def test_large_answers_are_not_waited_for() -> None:
    """A response larger than what is read ahead is relayed whole and in order."""
    body = bytes(range(256)) * (AHEAD // 128)
    async with desk(Answer(200, body)) as one:
        response = await one.call()
        pieces: list[bytes] = []
        while piece := await response.read_some():
            pieces.append(piece)
        assert AHEAD <= len(pieces[0]) < len(body)
        assert b"".join(pieces) == body


async def test_next_key_is_tried_at_once() -> None:
    """Rate-limited and rejected keys rest, and the request goes on with the next key without a pause."""
    async with desk(LIMITED, REJECTED, OK, api_keys=KEYS[1:], max_retries=0) as one:
        status, _, headers = await one.answer()
        assert (status, headers["x-aibridge-attempts"]) == (200, "3")
        assert one.pauses == []
        assert set(one.upstream.keys) == set(KEYS)
        assert sorted(round(state.resting_for) for state in one.provider.keys) == [0, 20, 300]
        await one.answer()
        assert one.upstream.keys[-1] == one.upstream.keys[2]


async def test_one_callers_401_rests_no_key() -> None:
    """A 401 with an unclear cause rests a key only after requests of two callers have met it."""
    async with desk(UNCLEAR, api_keys=KEYS[1:]) as one:
        for _ in range(3):
            assert (await one.answer())[0] == 401
        assert set(one.upstream.keys) == set(KEYS)
        assert not any(state.resting_for for state in one.provider.keys)
        _, _, headers = await one.answer(who=Principal("bob"))
        assert headers["x-should-retry"] == "false"
        assert all(state.resting_for for state in one.provider.keys)


@pytest.mark.parametrize("answer", [REJECTED, UNCLEAR])
async def test_a_401_with_the_callers_key_is_the_callers(answer: Answer) -> None:
    """A 401 for the caller's own key is passed on as it is, and no key of the gateway rests."""
    async with desk(answer, api_keys=KEYS[1:], byok=True) as one:
        status, body, headers = await one.answer(own="sk-mine-0123456789")
        assert (status, body) == (401, answer.body)
        assert "x-should-retry" not in headers
        assert not any(state.resting_for for state in one.provider.keys)


async def test_a_401_whose_body_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 401 whose body does not arrive in time is passed on, and no key rests."""
    monkeypatch.setattr(reason, "_WITHIN", 0.05)
    async with desk(Answer(401, b"some", {"content-length": "100"}, stalls=True)) as one:
        response = await one.call()
        assert (response.status, await response.read_some()) == (401, b"some")
        response.close()
        assert not any(state.resting_for for state in one.provider.keys)


async def test_compressed_rejections_are_read() -> None:
    """A compressed 401 body is read for its cause, and passed on compressed."""
    body = gzip.compress(REJECTED.body)
    async with desk(Answer(401, body, {"content-encoding": "gzip"})) as one:
        status, received, _ = await one.answer()
        assert (status, received) == (401, body)
        assert any(state.resting_for for state in one.provider.keys)


@pytest.mark.parametrize(
    "head",
    [
        b"X-Large: " + b"x" * 300_000,
        b"Content-Length: 2\r\nContent-Length: 3",
        b"A: b\x00",
        b"A: b\r\n c",
        b"A b",
        b"a:\r\n" * 5000,
    ],
    ids=["too large", "two lengths", "NUL", "folded", "no colon", "too many"],
)
async def test_an_answer_that_cannot_be_read_is_not_asked_for_again(head: bytes) -> None:
    """A response that cannot be parsed is not retried, here or by the SDK: each attempt would be billed again."""

    class Odd(RawUpstream):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.requests.append(await read_request(reader))
            writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n{}")
            await reader.read()

    async with Odd(OK) as upstream, UpstreamClient() as client:
        one = Desk(client, upstream)
        error = await one.error()
        assert (error.status, error.headers["x-should-retry"]) == (502, "false")
        assert len(upstream.requests) == 1
        assert len(one.provider.breakers) == 0


async def test_large_and_many_headers_pass() -> None:
    """Large and numerous headers are accepted, as the vendors' SDKs accept them."""
    many = {f"llm_provider-x-{number}": "v" * 1000 for number in range(200)}
    async with desk(Answer(200, OK.body, many), Answer(200, OK.body, {"policy": "d" * 60_000})) as one:
        status, body, headers = await one.answer()
        assert (status, body) == (200, OK.body)
        assert all(headers[name] == value for name, value in many.items())
        assert (await one.answer())[2]["policy"] == "d" * 60_000


async def test_exhausted_keys() -> None:
    """After every key was tried, the client gets the last response."""
    async with desk(LIMITED, LIMITED, Answer(429, b"the last"), api_keys=KEYS[1:], max_retries=0) as one:
        status, body, headers = await one.answer()
        assert (status, body, headers["x-aibridge-attempts"]) == (429, b"the last", "3")
        assert "x-should-retry" not in headers
        assert len(one.upstream.requests) == 3


async def test_forbidden_is_the_requests_own() -> None:
    """A 403 concerns the request and rests no key."""
    async with desk(Answer(403), api_keys=KEYS[1:]) as one:
        assert (await one.answer())[0] == 403
        assert len(one.upstream.requests) == 1
        assert not any(state.resting_for for state in one.provider.keys)


async def test_own_key_stays_out_of_the_pool() -> None:
    """A caller with a key of their own never uses a gateway key, and a rate limit of that key rests none."""
    async with desk(LIMITED, api_keys=KEYS[1:], byok=True, max_retries=0) as one:
        assert (await one.answer(own="sk-mine-0123456789"))[0] == 429
        assert one.upstream.keys == ["sk-mine-0123456789"]
        assert not any(state.resting_for for state in one.provider.keys)


async def test_breaker_opens_for_all() -> None:
    """Each attempt counts; the open breaker refuses at once, but not for other models or endpoints."""
    async with desk(OVERLOADED) as one:
        await one.answer()
        status, _, headers = await one.answer(who=Principal("bob"))
        assert (status, headers["x-aibridge-attempts"]) == (503, "2")
        assert len(one.upstream.requests) == 5
        assert isinstance(await one.error(), CircuitOpen)
        assert len(one.upstream.requests) == 5
        await one.answer(model="other")
        await one.answer(route="/v1/responses")
        assert len(one.upstream.requests) > 5


async def test_limits_are_no_failures() -> None:
    """A 429 never opens the breaker."""
    async with desk(Answer(429), max_retries=0) as one:
        for _ in range(20):
            assert (await one.answer())[0] == 429


async def test_cancelled_probe_gives_its_place_back() -> None:
    """A client that leaves during a probe frees the probe's place."""
    async with desk(OVERLOADED, max_retries=0, circuit_breaker={"failure_threshold": 1, "timeout": 0.001}) as one:
        await one.answer()
        one.upstream.answers = [SILENCE]
        for _ in range(5):
            await asyncio.sleep(0.002)
            one.upstream.arrived.clear()
            task = asyncio.create_task(one.call())
            await one.upstream.arrived.wait()
            task.cancel()
            await asyncio.wait((task,))
        one.upstream.answers = [OK]
        assert (await one.answer())[0] == 200


async def test_cancelled_in_a_pause() -> None:
    """A client that leaves during a pause ends the call: there is no retry, and the connection closes."""
    async with desk(Answer(503, headers={"content-length": "10"})) as one:
        paused = asyncio.Event()

        async def pause(_: float) -> None:
            paused.set()
            await asyncio.Event().wait()

        one.caller = UpstreamCaller(one.caller._client, one.metrics, sleep=pause)
        task = asyncio.create_task(one.call())
        await paused.wait()
        assert one.upstream.open_connections == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not one.upstream.open_connections)
        assert len(one.upstream.requests) == 1


async def test_retries_are_counted() -> None:
    """Metrics count retries by their reason."""
    async with desk(HANG_UP, OVERLOADED, LIMITED, OK, api_keys=KEYS[1:], max_retries=2) as one:
        assert (await one.answer())[0] == 200
        text = generate_latest(one.metrics.registry).decode()
        for reason in ("key", "503", "unreachable"):
            assert f'aibridge_upstream_retries_total{{provider="openai",reason="{reason}"}} 1.0' in text


async def test_state_survives_replacement() -> None:
    """A provider that is built anew with the same settings takes over keys and breakers; one with others does not."""
    async with desk(OVERLOADED) as one:
        await one.answer()
        await one.answer()
        same = one.provider.settings
        again, other = (OpenAIProvider("openai", own) for own in (same, same.model_copy(update={"max_retries": 9})))
        for replacement in (again, other):
            replacement.take_over(one.provider)
        assert (again.keys, again.breakers) == (one.provider.keys, one.provider.breakers)
        assert list(again.breakers)
        assert not list(other.breakers)
