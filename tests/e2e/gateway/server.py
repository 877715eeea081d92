"""A FastAPI app behind uvicorn on a real loopback socket, in the test's own event loop or in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Any

import uvicorn
from anyio.from_thread import start_blocking_portal
from starlette.types import ASGIApp

from tests.waiting import until

LIMIT = 60.0


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals and logging to the test, says when it is ready and ends without pauses.

    Uvicorn's own pauses take 0.2 s for each server; `as_deployed` keeps them, for tests of the shutdown itself.
    """

    def __init__(self, app: ASGIApp, *, as_deployed: bool = False, **options: Any) -> None:
        options = {"timeout_graceful_shutdown": 3, **options}
        super().__init__(uvicorn.Config(app, log_config=None, access_log=False, **options))
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()
        self._as_deployed = as_deployed

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._as_deployed or self.server_state.tasks:
            await super().shutdown(sockets)
        else:
            for listening in self.servers:
                listening.close()
            for connection in list(self.server_state.connections):
                connection.shutdown()
            await self.lifespan.shutdown()
        await self._close_connections()

    async def _close_connections(self) -> None:
        """Close connections before the event loop ends: the garbage collector complains about those that are left."""
        await asyncio.sleep(0)
        with suppress(TimeoutError):
            await until(lambda: not self.server_state.connections, 1)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]
        return nullcontext()


class Served:
    """A running server: its address, and a way to stop it before the context ends."""

    def __init__(self, server: Server, port: int, task: asyncio.Task[None]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._server = server
        self._task = task

    async def stop(self) -> None:
        self._server.stopping.set()
        await asyncio.wait_for(asyncio.shield(self._task), LIMIT)


@asynccontextmanager
async def served(app: ASGIApp, *, port: int = 0, **options: Any) -> AsyncIterator[Served]:
    """Serve in the running event loop while the context is open; port 0 takes a free one, `options` are uvicorn's."""
    server = Server(app, **options)
    # asyncio disables Nagle's algorithm only on sockets that are TCP by their protocol number.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            ready.cancel()
            task.result()
            raise RuntimeError("the server did not start")
        running = Served(server, listener.getsockname()[1], task)
        try:
            yield running
        finally:
            await running.stop()


@contextmanager
def served_in_thread(app: ASGIApp, **options: Any) -> Iterator[Served]:
    """Serve in a thread with an event loop of its own while the context is open."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(served(app, **options)) as running:
        yield running
