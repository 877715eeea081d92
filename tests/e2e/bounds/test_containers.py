"""No container outgrows its bound in a flood of distinct values that callers choose."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict, deque
from collections.abc import Iterator
from functools import _lru_cache_wrapper
from types import FunctionType, ModuleType
from typing import Any

import pytest

from fastapi_aibridge.cluster import limit_rules, process_limits, rate_limits
from fastapi_aibridge.money import budget_book, open_counters, prices
from fastapi_aibridge.observability import wrong_keys

from ...upstream.app import CHAT, App, running
from ...upstream.raw import Answer

pytestmark = pytest.mark.anyio

OK = Answer(200, b'{"id":"c1","object":"chat.completion","choices":[]}')
FAILED = Answer(500, b"{}")
FLOOD = 100
LONG = 200
SPARE = 30
"""Entries that a container may gain in passing: an empty cache fills, connections open, tasks are about to end."""
BOUNDED = {
    "lru_cache": 4096,
    "LRUCache": 100_000,
    "TLRUCache": 100_000,
    "_metrics._cost.": 500,
}
"""The bound, in entries, of kinds of containers that limit themselves."""
LOWERED = ((prices, "_MOST"), (budget_book, "_MOST"), (open_counters, "_MOST"), (process_limits, "MAX_WINDOWS"),
           (limit_rules, "KNOWN"), (rate_limits, "MAX_REFUSALS"))  # fmt: skip
"""Bounds lowered to `SPARE`, because a test cannot exceed the real ones."""
PAID: dict[str, Any] = {
    "prices": {"openai": {"*": {"input": 1, "output": 2}}},
    "budgets": [{"scope": "default", "usd": 1000}, {"scope": "everybody", "usd": 10_000, "period": "day"}],
    "limits": {
        "rules": [
            {"scope": "model", "id": "*", "requests": 10_000},
            {"scope": "default", "model": "*", "requests": 10_000, "tokens": 10_000_000},
            {"scope": "initiator", "id": "bob", "requests": 20, "window": 60},
        ]
    },
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer wrong keys without delay, and lower the bounds."""
    monkeypatch.setattr(wrong_keys, "DELAY", 0)
    for module, name in LOWERED:
        monkeypatch.setattr(module, name, SPARE)


def containers(root: object) -> Iterator[tuple[str, int]]:
    """Yield the path and size of each container that is reachable from an object through the package's objects."""
    seen: set[int] = set()
    places: list[tuple[str, object]] = [(type(root).__name__, root)]
    while places:
        path, one = places.pop()
        if id(one) in seen or isinstance(one, str | bytes | int | float | type | ModuleType | FunctionType):
            continue
        seen.add(id(one))
        if isinstance(one, _lru_cache_wrapper):
            yield f"{path} (lru_cache)", one.cache_info().currsize
            continue
        if isinstance(one, dict | list | set | frozenset | deque | OrderedDict):
            yield f"{path} ({type(one).__name__})", len(one)
            inner = one.values() if isinstance(one, dict) else one
            places += [(f"{path}[]", value) for value in list(inner)[:50]]
        module = type(one).__module__
        if module.startswith(("fastapi_aibridge", "cachetools", "prometheus_client")):
            places += [(f"{path}.{name}", value) for name, value in attributes(one)]


def attributes(one: object) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(one, "__dict__", {}).items())
    for kind in type(one).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            hidden = (
                f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
            )
            if hasattr(one, hidden):
                yield name, getattr(one, hidden)


def module_caches() -> Iterator[tuple[str, int]]:
    """Yield the name and size of each cache and container in the package's modules."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith("fastapi_aibridge") and module is not None:
            for attribute, value in list(vars(module).items()):
                if isinstance(value, _lru_cache_wrapper):
                    yield f"{name}.{attribute} (lru_cache)", value.cache_info().currsize
                elif isinstance(value, dict | list | set | deque) and not attribute.startswith("__"):
                    yield f"{name}.{attribute}", len(value)


def sizes(app: App) -> dict[str, int]:
    found: dict[str, int] = {}
    for path, size in [*containers(app.aibridge), *module_caches()]:
        found[path] = max(size, found.get(path, 0))
    return found


async def flood(app: App, begin: int) -> None:
    for number in range(begin, begin + FLOOD):
        mark = f"{number}-" + "x" * LONG
        headers = {
            "authorization": f"Bearer key-of-{'alice' if number % 2 else 'bob'}",
            "user-agent": f"claude-cli/{mark}",
            "x-claude-code-session-id": mark,
            "x-claude-code-agent-id": mark,
            f"x-stainless-{mark}": "1",
            f"x-other-{mark}": "1",
        }
        body = {"model": f"{number}-model", "messages": [{"role": "user", "content": mark}], "user": mark}
        await app.client.post(CHAT, headers=headers, json=body)
        await app.client.post(CHAT.replace("completions", mark), headers=headers, json=body)
        await app.client.get(f"/ai/{mark}/v1/models", headers=headers)
        await app.client.get(f"/ai/openai/v1/models/{mark}?{mark}=1", headers=headers)
        await app.client.get("/ai/openai/v1/models", headers={"authorization": f"Bearer {mark}"})


@pytest.mark.parametrize(
    ("answer", "settings"), [(OK, {}), (FAILED, {}), (OK, PAID)], ids=["answered", "failing", "paid and limited"]
)
async def test_nothing_grows_with_what_callers_choose(answer: Answer, settings: dict[str, Any]) -> None:
    """No container grows with the number of distinct models, sessions, headers, paths, providers and keys."""
    async with running(answer, **settings) as app:  # the recorder is meant to keep all records in memory
        await flood(app, 0)
        gc.collect()
        before = sizes(app)
        await flood(app, FLOOD)
        gc.collect()
        after = sizes(app)
        grown = {
            path: (before.get(path, 0), size)
            for path, size in after.items()
            if size > before.get(path, 0) + SPARE and "._records" not in path and not _within_its_bound(path, size)
        }
        assert grown == {}
        assert any("lru_cache" in path for path in after), "the walk did not reach what it should"
        assert len(after) > 50


def _within_its_bound(path: str, size: int) -> bool:
    return any(kind in path and size <= most for kind, most in BOUNDED.items())


async def test_the_metrics_have_no_label_that_callers_choose() -> None:
    """A flood of distinct values adds no line to the metrics."""
    async with running(OK) as app:
        await flood(app, 0)
        before = await app.admin("metrics")
        await flood(app, FLOOD)
        after = await app.admin("metrics")
        assert len(after.splitlines()) == len(before.splitlines())
