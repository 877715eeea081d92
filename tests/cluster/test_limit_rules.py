"""The rules that apply to a request, and the cost of finding them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest

from fastapi_aibridge import LimitSettings, Principal
from fastapi_aibridge.cluster.limit_rules import LimitRules
from fastapi_aibridge.cluster.pattern_index import PatternIndex

PATTERNS = ["", "*", "a", "a*", "a?", "ab", "ab*", "[ab]b", "[a", "*b", "A*", "a.b", "a[*]b", "\n*", "ab*c*"]
NAMES = ["", "a", "ab", "abc", "b", "bb", "A", "[a", "a.b", "axb", "a*b", "\nx", "abxc", "a\nb"]


@pytest.mark.parametrize("name", NAMES)
def test_the_index_finds_what_fnmatch_matches(name: str) -> None:
    index = PatternIndex()
    for place, pattern in enumerate(PATTERNS):
        index.add(pattern, place)
    assert sorted(index.find(name)) == [place for place, one in enumerate(PATTERNS) if fnmatchcase(name, one)]


def calls(run: Callable[[], object]) -> int:
    """The number of functions that it calls."""
    number = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return number


def rules(number: int) -> LimitRules:
    kinds = (
        ("initiator", "user{:03}"),
        ("group", "team{:03}-*"),
        ("provider", "provider{:03}*"),
        ("model", "model{:03}*"),
    )
    listed = [
        {"scope": scope, "id": id_.format(place), "requests": 5} for place in range(number) for scope, id_ in kinds
    ]
    return LimitRules(LimitSettings.model_validate({"rules": listed}), shared=False)


def test_a_new_combination_of_groups_costs_the_same_beside_many_rules() -> None:
    """Rules that cannot match cost nothing, because the index skips them."""
    principal = Principal("user003", groups=[f"team{place:03}-{place}" for place in range(5, 69)])
    few, many = rules(10), rules(100)
    assert len(few.counters(principal, "provider004", "model002-mini")) == 1 + 5 + 1 + 1
    assert len(many.counters(principal, "provider004", "model002-mini")) == 1 + 64 + 1 + 1
    stranger = Principal("nobody", groups=[f"house{place}" for place in range(64)])
    found = {one: calls(lambda one=one: one.counters(stranger, "none", "none")) for one in (few, many)}  # type: ignore[misc]
    assert found[many] == found[few]
