from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..mcp.servers import ToolServer
from ..rounds.driving import KINDS, Kind


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(params=[True, False], ids=["streamed", "blocking"])
def streamed(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


@pytest.fixture(scope="package")
def running_server() -> Iterator[ToolServer]:
    with ToolServer() as running:
        yield running
        running.gate.set()


@pytest.fixture
def server(running_server: ToolServer) -> ToolServer:
    """The same for all tests, as if it were new."""
    running_server.gate.clear()
    running_server.calls.clear()
    running_server.cancelled = 0
    return running_server
