"""Errors for invalid limit rules."""

from __future__ import annotations

import json

import pytest

from fastapi_aibridge import Settings
from fastapi_aibridge.errors import SettingsError

GOOD = {"scope": "default", "requests": 10}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"scope": "user", "id": "a", "requests": 1}, "RULES__SCOPE: item 2: Input should be 'initiator', 'default'"),
        ({"scope": "initiator", "requests": 1}, "item 2: a rule of scope 'initiator' needs an id"),
        ({"scope": "default", "id": "alice", "requests": 1}, "item 2: a rule of scope 'default' has no id"),
        ({"scope": "group", "id": "staff"}, "item 2: a rule needs a number: of requests, tokens or concurrent"),
        ({"scope": "group", "id": "staff", "requests": 0}, "RULES__REQUESTS: item 2: Input should be greater than"),
        ({"scope": "group", "id": "staff", "requests": True}, "RULES__REQUESTS: item 2: this is a number, not true"),
        ({"scope": "group", "id": "staff", "tokens": 5, "window": True}, "RULES__WINDOW: item 2: this is a number"),
        ({"scope": "group", "id": "staff", "requests": 1, "window": "0s"}, "RULES__WINDOW: item 2:"),
        ({"scope": "group", "id": "staff", "requests": 1, "window": "1 month"}, "a duration is a number of seconds"),
        ({"scope": "group", "id": "staff", "concurrent": 1, "window": 60}, "concurrent requests has no window"),
        ({"scope": "model", "id": "gpt-5", "model": "gpt-5", "requests": 1}, "says in id which model it is for"),
        ({"scope": "default", "request": 1}, "there is no such setting"),
    ],
)
def test_rule_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch, rule: dict[str, object], said: str) -> None:
    """The error names the variable, the rule's place in the list, and the remedy."""
    monkeypatch.setenv("AIBRIDGE_LIMITS__RULES", json.dumps([GOOD, rule]))
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert "AIBRIDGE_LIMITS__RULES" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("AIBRIDGE_LIMITS__RULES", '[{"scope": "default", "requests": 1, "requests": 1000}]'),
        ("AIBRIDGE_BUDGETS", '[{"scope": "default", "usd": 1, "usd": 1000}]'),
        ("AIBRIDGE_PROVIDERS__OPENAI__EXTRA_HEADERS", '{"X-Team": "requests", "X-Team": "usd"}'),
    ],
)
def test_a_member_twice(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    """JSON parsers take one of two equal members silently, which may not be the one that was meant."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=f"{variable}: the member '(requests|usd|X-Team)' occurs twice"):
        Settings.load()


def test_what_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_LIMITS__RULES", "100 per minute")
    with pytest.raises(SettingsError, match=r"AIBRIDGE_LIMITS__RULES: .*written as JSON"):
        Settings.load()


def test_rules_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_LIMITS__RULES", json.dumps([{**GOOD, "window": "1h", "model": "gpt-5*"}]))
    monkeypatch.setenv("AIBRIDGE_LIMITS__TOKENS", "5000")
    limits = Settings.load().limits
    assert [(rule.scope, rule.requests, rule.window) for rule in limits.rules] == [("default", 10, 3600)]
    assert limits.tokens == 5000
