"""The choice of a provider's key for a request."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from fastapi_aibridge.upstream.keys import LONGEST_REST, Credential, KeyPool, speaks_of_key

from .clock import MovableClock

KEYS = [f"sk-key-{number}-0123456789" for number in range(4)]
CALLERS = [f"user-{number}" for number in range(400)]


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def pool(clock: MovableClock) -> KeyPool:
    return KeyPool(KEYS, clock=clock)


def test_callers_stay_with_their_key(pool: KeyPool) -> None:
    """A caller keeps its key on all workers while the key is usable, so that the provider's prompt cache is used."""
    other_worker = KeyPool(KEYS)
    for caller in CALLERS:
        assert {pool.choose(caller), pool.choose(caller), other_worker.choose(caller)} == {pool.choose(caller)}


def test_callers_are_spread(pool: KeyPool) -> None:
    """Each key serves a fair share of the callers."""
    shares = Counter(pool.choose(caller) for caller in CALLERS)
    assert len(shares) == 4
    assert min(shares.values()) > 60


def test_callers_of_a_resting_key_are_spread(pool: KeyPool) -> None:
    """The callers of a resting key are spread over the other keys, and other callers keep theirs."""
    homes = {caller: pool.choose(caller) for caller in CALLERS}
    resting = homes[CALLERS[0]]
    pool.rest(resting, 429, None)
    moved = Counter(pool.choose(caller) for caller, home in homes.items() if home == resting)
    assert len(moved) == 3
    assert all(pool.choose(caller) == home for caller, home in homes.items() if home != resting)


@pytest.mark.parametrize(
    ("status", "asked", "seconds"), [(429, 7.0, 7.0), (429, None, 30.0), (401, None, 300.0), (429, 1e9, LONGEST_REST)]
)
def test_rests_end(pool: KeyPool, clock: MovableClock, status: int, asked: float | None, seconds: float) -> None:
    """A key rests for the time that the provider asks for, up to a limit, or else a time that depends on the status."""
    home = pool.choose("alice")
    pool.rest(home, status, asked)
    clock.now += seconds - 0.1
    assert pool.choose("alice") != home
    clock.now += 0.2
    assert pool.choose("alice") == home


def test_another_key(pool: KeyPool) -> None:
    """Each ready key is offered once, then None."""
    tried = [pool.choose("alice")]
    while (key := pool.another("alice", tried)) is not None:
        assert key not in tried
        tried.append(key)
    assert len(tried) == 4


def test_all_rest(pool: KeyPool, clock: MovableClock) -> None:
    """If all keys rest, requests use the one that is ready first."""
    for seconds, key in enumerate(KEYS, 10):
        pool.rest(Credential(key, "centralized"), 429, seconds)
    assert {pool.choose(caller).key for caller in CALLERS} == {KEYS[0]}


def test_later_end_counts(pool: KeyPool, clock: MovableClock) -> None:
    """A short rest does not shorten a longer one."""
    home = pool.choose("alice")
    pool.rest(home, 401, None)
    pool.rest(home, 429, 1)
    clock.now += 2
    assert pool.choose("alice") != home


def test_states(pool: KeyPool, clock: MovableClock) -> None:
    """The state shows a hint of each key, and no key."""
    pool.rest(Credential(KEYS[1], "centralized"), 429, 20)
    clock.now += 5
    states = list(pool)
    assert [one.resting_for for one in states] == [0, 15, 0, 0]
    assert not any(key in str(states) for key in KEYS)
    assert pool.rests == {429: 1}


def test_same_key_twice() -> None:
    """A key that the settings name twice counts once."""
    assert len(KeyPool(["a", "b", "a"])) == 2


@pytest.mark.parametrize(
    ("words", "speaks"),
    [
        ("Incorrect API key provided: sk-x. You can find your API key at", True),  # OpenAI
        ("invalid_api_key", True),
        ("invalid x-api-key", True),  # Anthropic
        ("Invalid bearer token", True),
        ("OAuth token has expired. Please obtain a new token or refresh your existing token.", True),
        ("Access denied due to invalid subscription key or wrong API endpoint.", True),  # Azure
        ("Authentication Fails, Your api key: ****1234 is invalid", True),  # DeepSeek
        ("Invalid Authentication", True),  # Kimi
        ("No auth credentials found", True),  # OpenRouter
        ("Your authentication token has been invalidated. Please try signing in again.", True),
        ("Invalid API Key", True),  # Groq
        ("Unauthorized", False),
        ("CORS requests must set 'anthropic-dangerous-direct-browser-access' header", False),
        ("You must be a member of an organization to use the API", False),
        ("authentication_error", False),
        ("invalid_request_error", False),
        ("the token limit of this model is not valid for the request", False),
    ],
)
def test_what_vendors_say_of_a_wrong_key(words: str, speaks: bool) -> None:
    """A 401 in the vendors' words for a wrong key concerns the key; in other words it may concern the request alone."""
    assert speaks_of_key(json.dumps({"error": {"message": words, "type": "error"}}).encode()) is speaks
