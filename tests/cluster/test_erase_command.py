"""`python -m fastapi_aibridge erase` with a Redis that workers share."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from fastapi_aibridge.__main__ import main
from fastapi_aibridge.cluster.limit_rules import counters_of
from fastapi_aibridge.cluster.redis_memory import memory_of

from .valkey import ValkeyServer


@pytest.mark.parametrize("initiator", ["alice", "a*", "[a-z]", "\N{SNOWMAN}%_"])
def test_redis_forgets_too(url: str, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, initiator: str) -> None:
    """The initiator's memory and counters are deleted, and nobody else's, whatever the id; workers get a message."""
    monkeypatch.setenv("AIBRIDGE_REDIS_URL", valkey.url)
    monkeypatch.setenv("AIBRIDGE_REDIS_PREFIX", "ours:")
    assert main(["migrate", "--url", url]) == 0
    redis: Any = Redis.from_url(valkey.url)
    for begins in (memory_of, counters_of):
        for who in (initiator, "alicia"):
            redis.set(f"ours:{begins(who)}1", "x")
            redis.set(f"theirs:{begins(who)}1", "x")
    heard = redis.pubsub()
    heard.subscribe("ours:told:erased")
    heard.get_message(timeout=5)
    assert main(["erase", initiator, "--content", "--url", url]) == 0
    left = {key.decode() for key in redis.keys("*")}
    assert left == {f"ours:{memory_of('alicia')}1", f"ours:{counters_of('alicia')}1"} | {
        f"theirs:{begins(who)}1" for begins in (memory_of, counters_of) for who in (initiator, "alicia")
    }
    assert heard.get_message(timeout=5)["data"].decode() == initiator
    redis.close()


def test_redis_is_away(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """If Redis is away, the database is erased and the command says that Redis was not."""
    monkeypatch.setenv("AIBRIDGE_REDIS_URL", "redis://127.0.0.1:9/0")
    assert main(["migrate", "--url", url]) == 0
    assert main(["erase", "alice", "--url", url]) == 0
    assert "Redis is away" in capsys.readouterr().err
