"""A bridge's injected tools and their definitions in each format."""

from __future__ import annotations

import logging

from ..formats.format import Format
from ..tools import Tool, Tools

logger = logging.getLogger(__name__)

MAX_NAMED = 10
"""Tools that a log line names."""


class Toolset:
    """The tools at one moment. Their definitions are written once for each format and always in the same order, on
    which a provider's prompt cache depends.
    """

    __slots__ = ("_crowded", "_definitions", "by_name", "listed", "names", "tools")

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.listed: tuple[Tool, ...] = tools.tools
        self.by_name = {tool.name: tool for tool in self.listed}
        self.names = frozenset(self.by_name)
        self._crowded = False
        self._definitions: dict[str, bytes] = {}

    def definitions(self, format_: Format) -> bytes:
        known = self._definitions.get(format_.name)
        if known is None:
            known = self._definitions[format_.name] = format_.definitions(self.listed)
        return known

    def offered(self, names: frozenset[str], format_: Format) -> None:
        """Log once which tools had to be left out. `names` are those that a request has."""
        if self._crowded or format_.max_tools is None or len(names) == len(self.names):
            return
        left_out = [tool.name for tool in self.listed if tool.name not in names]
        self._crowded = True
        logger.warning(
            "a request goes up without %d of its tools, as a provider takes %d in all, or as the client has tools of "
            "the same names: %s%s",
            len(left_out), format_.max_tools, ", ".join(left_out[:MAX_NAMED]), "..." if left_out[MAX_NAMED:] else "",
        )  # fmt: skip
