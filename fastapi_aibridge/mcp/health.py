"""Log lines and counters about servers: each fact once, not once for each principal."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping

from cachetools import LRUCache

from ..tool_schemas.visible_text import shown

logger = logging.getLogger(__name__)

MAX_SERVERS = 1024
"""Servers that are told apart; an app may give each principal its own."""
MAX_REMARKS = 4096
"""Remarks that are remembered, so that each is logged once."""
MAX_LINES = 20
"""Remarks about one list of tools that are logged."""


class ServerHealth:
    def __init__(self) -> None:
        self._failing: LRUCache[str, str] = LRUCache(MAX_SERVERS)  # server: the reason of its last failure
        self._failures: LRUCache[str, int] = LRUCache(MAX_SERVERS)
        self._remarks: LRUCache[bytes, None] = LRUCache(MAX_REMARKS)

    @property
    def failures(self) -> Mapping[str, int]:
        """Failed starts in bridges, by server."""
        return dict(self._failures)

    def failed(self, server: str, reason: str) -> None:
        """Count a server that did not start, and log the reason unless it was the last one logged."""
        self._failures[server] = self._failures.get(server, 0) + 1
        if self._failing.get(server) != reason:
            self._failing[server] = reason
            logger.warning("MCP server %s is left out: %s", shown(server), reason)

    def works(self, server: str) -> None:
        if self._failing and self._failing.pop(server, None) is not None:
            logger.info("MCP server %s works again", shown(server))

    def remark(self, server: str, *remarks: str) -> None:
        """Log oddities of a server that works. The texts must show names that it chose with `shown`."""
        said = 0
        for remark in remarks:
            key = hashlib.blake2b(f"{server}\n{remark}".encode(errors="replace"), digest_size=16).digest()
            if key in self._remarks:
                continue
            self._remarks[key] = None
            said += 1
            if said > MAX_LINES:
                logger.warning("MCP server %s: and more of the kind", shown(server))
                return
            logger.warning("MCP server %s: %s", shown(server), remark)
