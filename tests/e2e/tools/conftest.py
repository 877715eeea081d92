from __future__ import annotations

from collections.abc import Iterator

import pytest

from ...formats.rounds.conftest import kind, streamed
from ...mcp.servers import ToolServer

__all__ = ["kind", "running_server", "server", "streamed"]


@pytest.fixture(scope="package")
def running_server() -> Iterator[ToolServer]:
    with ToolServer() as running:
        yield running
        running.gate.set()


@pytest.fixture
def server(running_server: ToolServer) -> ToolServer:
    """The tool server that all tests share, reset to its initial state."""
    running_server.gate.clear()
    running_server.calls.clear()
    running_server.cancelled = 0
    return running_server
