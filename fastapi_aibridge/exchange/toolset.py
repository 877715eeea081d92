"""A bridge's injected tools, as the formats want them."""

from __future__ import annotations

from ..formats import Format
from ..tools import Tool, Tools


class Toolset:
    """The tools at one moment. Their definitions are written once for each format, always in the same order: a
    provider's prompt cache lives on that.
    """

    __slots__ = ("_definitions", "by_name", "listed", "names", "tools")

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.listed: tuple[Tool, ...] = tools.tools
        self.by_name = {tool.name: tool for tool in self.listed}
        self.names = frozenset(self.by_name)
        self._definitions: dict[str, bytes] = {}

    def definitions(self, format_: Format) -> bytes:
        known = self._definitions.get(format_.name)
        if known is None:
            known = self._definitions[format_.name] = format_.definitions(self.listed)
        return known
