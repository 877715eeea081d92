"""One MCP server as offered to a principal."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from ..settings import MCPServerSettings

TokenProvider = Callable[[], Awaitable[SecretStr | str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MCPServer:
    """An endpoint that speaks streamable HTTP, and the choice of its tools.

    `{session_key}` in a header value is the principal's session key; without one, the header is left out. `tool_allow`
    and `tool_deny` are searched for anywhere in the tool's own name (anchor them with `^` and `$`); a tool that matches
    both is denied. `token_provider` returns the bearer token; it is asked once, and again when the server answers 401.
    """

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tool_allow: re.Pattern[str] | str | None = None
    tool_deny: re.Pattern[str] | str | None = None
    token_provider: TokenProvider | None = field(default=None, repr=False)

    @classmethod
    def from_settings(cls, name: str, settings: MCPServerSettings) -> MCPServer:
        return cls(
            name=name,
            url=settings.url.get_secret_value(),
            headers={name: value.get_secret_value() for name, value in settings.headers.items()},
            tool_allow=settings.tool_allow,
            tool_deny=settings.tool_deny,
        )

    def offers(self, tool: str) -> bool:
        """Whether the patterns let a tool through."""
        if self.tool_deny is not None and re.search(self.tool_deny, tool):
            return False
        return self.tool_allow is None or re.search(self.tool_allow, tool) is not None
