"""Bridges whose start and close a test controls."""

import asyncio
from collections.abc import Callable

from fastapi_aibridge.principal import Principal


class FakeBridge:
    """A bridge that starts at once, or when `started` is resolved. It counts its closes, which may fail or hang."""

    def __init__(self, principal: Principal, providers: tuple[str, ...]) -> None:
        self.principal = principal
        self.providers = providers
        self.degraded = False
        self.started: asyncio.Future[None] | None = None
        self.starting = False
        self.hang_when_cancelled: asyncio.Future[None] | None = None
        self.close_error: Exception | None = None
        self.closing: asyncio.Future[None] | None = None
        self.closes = 0
        self.retires = 0
        self.cut_with: list[Exception] = []
        self.gone = asyncio.Event()
        self.on_start: Callable[[], None] = lambda: None

    @property
    def closed(self) -> bool:
        return self.closes > 0

    def seen_by(self, principal: Principal) -> "FakeBridge":
        assert (principal.key, principal.session) == (self.principal.key, self.principal.session)
        return self

    def retire(self) -> None:
        self.retires += 1

    def cut(self, error: Callable[[], Exception]) -> None:
        self.cut_with.append(error())

    async def start(self) -> None:
        self.starting = True
        try:
            self.on_start()
            if self.started is not None:
                await self.started
        except asyncio.CancelledError:
            if self.hang_when_cancelled is None:
                raise
            await asyncio.shield(self.hang_when_cancelled)
        finally:
            self.starting = False

    async def aclose(self) -> None:
        self.closes += 1
        self.gone.set()
        if self.closing is not None:
            await self.closing
        if self.close_error is not None:
            raise self.close_error


class Bridges:
    """The factory, which keeps the bridges that it built. `prepare` changes each one before the pool gets it."""

    def __init__(self, prepare: Callable[[FakeBridge], None] = lambda _: None) -> None:
        self.built: list[FakeBridge] = []
        self.prepare = prepare

    def __call__(self, principal: Principal, providers: tuple[str, ...]) -> FakeBridge:
        bridge = FakeBridge(principal, providers)
        self.prepare(bridge)
        self.built.append(bridge)
        return bridge

    @property
    def last(self) -> FakeBridge:
        return self.built[-1]

    @property
    def closes(self) -> list[int]:
        return [bridge.closes for bridge in self.built]


def slow(bridge: FakeBridge) -> None:
    """Let the bridge start only when the test resolves `started`."""
    bridge.started = asyncio.get_running_loop().create_future()


def finish(bridge: FakeBridge, error: Exception | None = None) -> None:
    assert bridge.started is not None
    if error is None:
        bridge.started.set_result(None)
    else:
        bridge.started.set_exception(error)
