"""The decision to retry, and the delay before it."""

from __future__ import annotations

from email.utils import formatdate

import anthropic
import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge.upstream.retries import delay, is_retryable, retry_after

OPENAI = openai.OpenAI(api_key="sk-test")
ANTHROPIC = anthropic.Anthropic(api_key="sk-test")
HEADERS: list[dict[str, str]] = [{}, {"x-should-retry": "true"}, {"x-should-retry": "false"}, {"x-should-retry": "1"}]


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 501, 502, 503, 504, 529])
def test_as_the_sdks_do(status: int, headers: dict[str, str]) -> None:
    """The statuses and headers that are retried are those that the vendors' SDKs retry."""
    response = httpx.Response(status, headers=headers)
    assert is_retryable(status, headers) is OPENAI._should_retry(response)  # type: ignore[arg-type]
    assert is_retryable(status, headers) is ANTHROPIC._should_retry(response)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7.0),
        ({"retry-after": formatdate(1_800_000_009, usegmt=True)}, 9.0),
        ({"retry-after": formatdate(1_700_000_000, usegmt=True)}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "whenever"}, None),
        ({"retry-after": "Mon, 99 Foo 99999999 00:00:00 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """All forms of `retry-after` are read, and invalid ones are ignored."""
    assert retry_after(headers, now=lambda: 1_800_000_000.0) == seconds


@given(st.text(alphabet=st.characters(codec="latin-1")))
def test_retry_after_never_fails(value: str) -> None:
    """No value of the header raises or gives a negative time."""
    seconds = retry_after({"retry-after": value, "retry-after-ms": value})
    assert seconds is None or seconds >= 0


@given(retries=st.integers(0, 10), chance=st.floats(0, 1))
def test_backoff(retries: int, chance: float) -> None:
    """The delay is between zero and a limit that doubles up to 8 s."""
    assert 0 <= delay(retries, None, lambda: chance) <= min(8, 0.5 * 2**retries)


@given(asked=st.floats(0, 100), chance=st.floats(0, 1))
def test_wish_is_honoured(asked: float, chance: float) -> None:
    """The delay is at least the requested time, and at most a second longer."""
    assert asked <= delay(3, asked, lambda: chance) <= asked + 1
