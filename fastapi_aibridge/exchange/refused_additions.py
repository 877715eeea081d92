"""Remembers for a while which of the gateway's additions to requests providers have refused."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from cachetools import TTLCache

from ..formats.large_text import LARGE, BodyText

REMEMBERED = 600.0
"""Seconds for which a refusal is remembered."""
MOST = 4096
"""Refusals that are remembered, of each kind."""
_SHAPES = 16
"""Shapes of requests that are remembered for each `ToolsKey`."""
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

ToolsKey: TypeAlias = tuple[tuple[str, str], str, str, frozenset[str]]
UsageKey: TypeAlias = tuple[str, str]


def shape_of(body: BodyText) -> frozenset[str]:
    """Return the options that a request uses. Some exclude tools, such as JSON output with some models."""
    if len(body) > LARGE:
        return frozenset({"large"})
    try:
        return frozenset(_members.decode(body[:]))
    except msgspec.DecodeError:
        return frozenset()


class RefusedAdditions:
    """The additions that providers have refused or accepted; bounded in number and time."""

    __slots__ = ("_taken", "_tools", "_usage")

    def __init__(self) -> None:
        self._tools: TTLCache[ToolsKey, set[frozenset[str]]] = TTLCache(MOST, REMEMBERED)
        self._usage: TTLCache[UsageKey, bool] = TTLCache(MOST, REMEMBERED)
        self._taken: TTLCache[UsageKey, bool] = TTLCache(MOST, REMEMBERED)

    def tools_refused(self, key: ToolsKey, body: BodyText) -> bool:
        shapes = self._tools.get(key) if self._tools else None
        return shapes is not None and shape_of(body) in shapes

    def usage_refused(self, key: UsageKey) -> bool:
        return bool(self._usage) and key in self._usage

    def usage_taken(self, key: UsageKey) -> bool:
        return key in self._taken

    def refuse_tools(self, key: ToolsKey, body: BodyText) -> None:
        shapes = self._tools.get(key) or set()
        if len(shapes) < _SHAPES:
            shapes.add(shape_of(body))
        self._tools[key] = shapes

    def refuse_usage(self, key: UsageKey) -> None:
        self._usage[key] = True

    def take_usage(self, key: UsageKey) -> None:
        self._taken[key] = True
