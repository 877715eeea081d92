"""Serves an ASGI app on a real loopback port, in the running event loop or in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, nullcontext
from threading import Thread
from typing import Any

from ..installing import install_command

_GRACE = 1
"""Seconds that running requests may take to finish when serving ends."""


@asynccontextmanager
async def serve(app: Callable[..., Any], port: int = 0) -> AsyncIterator[str]:
    """Serve while the block runs, and yield the base URL; port 0 takes a free one."""
    server, ready = _server(app)
    # asyncio turns Nagle's algorithm off only on sockets that name TCP as their protocol: otherwise each response of
    # two pieces takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    starting = asyncio.create_task(ready.wait())
    await asyncio.wait((serving, starting), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        starting.cancel()
        serving.result()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@contextmanager
def serve_in_thread(app: Callable[..., Any], port: int = 0) -> Iterator[str]:
    """Serve in a thread, for code that has no event loop, or whose loop is the one to be tested."""
    started: Future[tuple[str, Callable[[], object]]] = Future()

    async def run() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        async with serve(app, port) as base_url:
            started.set_result((base_url, lambda: loop.call_soon_threadsafe(done.set)))
            await done.wait()

    def run_thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    # A daemon, so that a process that must end at once does not wait for it.
    thread = Thread(target=run_thread, name="scripted-provider", daemon=True)
    thread.start()
    base_url, stop = started.result()
    try:
        yield base_url
    finally:
        stop()
        thread.join()


def _server(app: Callable[..., Any]) -> tuple[Any, asyncio.Event]:
    """A uvicorn server that leaves signals and logging to its process, and an event that is set when it is ready."""
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"serving the scripted provider on a port needs uvicorn: {install_command('example')}"
        ) from error

    ready = asyncio.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready.set()

        def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]
            return nullcontext()

    config = uvicorn.Config(
        app, lifespan="auto", ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE
    )
    return Server(config), ready
