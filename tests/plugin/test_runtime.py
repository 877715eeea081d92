"""Starts, stops and reloads at unusual moments, and several plugins in one process."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Self

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient

from fastapi_aibridge import (
    AIBridge,
    ConfigurationError,
    MemoryRecorder,
    PoolShutdown,
    Principal,
    Provider,
    RequestBridge,
    Settings,
    SettingsError,
    get_bridge,
    loading,
)

from .apps import ADMIN, ALICE, ASK, CHAT, Model, add_me, bearer, by

QUIET: dict[str, Any] = {"recorder": {"enabled": False}, "shutdown_grace": 0, "client_keys": {"alice": "k-alice"}}


def quiet(**values: Any) -> Settings:
    return Settings.model_validate({**QUIET, **values})


class Source:
    """A source of providers that a test controls."""

    def __init__(self) -> None:
        self.load_: Callable[[], Any] = list

    async def load(self) -> Sequence[Provider]:
        answer = self.load_()
        return (await answer) if asyncio.iscoroutine(answer) else answer  # type: ignore[no-any-return]


# Several plugins


def mounted(model: Model, *, inner_starts: bool) -> tuple[FastAPI, FastAPI]:
    """An app mounted in another, each with its own gateway and users."""
    inner_bridge = model.bridge(settings=model.settings(client_keys={"ina": "k-ina"}))
    outer_bridge = model.bridge(settings=model.settings(client_keys={"ola": "k-ola"}))
    inner = FastAPI()
    inner.include_router(inner_bridge.router, prefix="/ai")
    add_me(inner)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        if not inner_starts:
            yield {}
            return
        async with inner_bridge.lifespan(app) as state:
            yield dict(state)

    outer = FastAPI(lifespan=lifespan)
    outer.include_router(outer_bridge.router, prefix="/ai")
    add_me(outer)
    outer.mount("/inner", inner)
    return outer, inner


def test_a_mounted_app_finds_its_own(model: Model) -> None:
    """In a mounted app, handlers and gateway authenticate against that app's own plugin."""
    outer, _ = mounted(model, inner_starts=True)
    ina, ola = bearer("k-ina"), bearer("k-ola")
    with TestClient(outer) as client:
        for path in ("/me", CHAT):
            method = "POST" if path == CHAT else "GET"
            for prefix, right, wrong in (("", ola, ina), ("/inner", ina, ola)):
                assert client.request(method, prefix + path, json=ASK, headers=right).status_code == 200
                assert client.request(method, prefix + path, json=ASK, headers=wrong).status_code == 401


def test_a_mounted_app_whose_own_does_not_run_takes_no_other(model: Model) -> None:
    """If the inner app's plugin is not running, the outer app's keys do not open it."""
    outer, _ = mounted(model, inner_starts=False)
    with TestClient(outer) as client:
        assert client.get("/me", headers=bearer("k-ola")).status_code == 200
        with pytest.raises(ConfigurationError, match="not running"):
            client.get("/inner/me", headers=bearer("k-ola"))


def test_two_in_one_app_are_told_apart_or_refused(model: Model) -> None:
    """`get_bridge` refuses to choose between two plugins, `aibridge.get_bridge` works, and gateways keep own keys."""
    app = FastAPI()
    one = model.bridge(settings=model.settings(client_keys={"ann": "k-ann"}))
    two = model.bridge(settings=model.settings(client_keys={"ben": "k-ben"}))
    app.include_router(one.router, prefix="/one")
    app.include_router(two.router, prefix="/two")
    add_me(app)

    @app.get("/me-one")
    async def me_one(bridge: RequestBridge = Depends(one.get_bridge)) -> str:
        return bridge.principal.initiator_id

    @app.get("/me-two")
    async def me_two(bridge: RequestBridge = Depends(two.get_bridge)) -> str:
        return bridge.principal.initiator_id

    ann, ben = bearer("k-ann"), bearer("k-ben")
    with TestClient(app) as client:
        with pytest.raises(ConfigurationError, match=r"which of 2 .* Depends\(aibridge.get_bridge\)"):
            client.get("/me", headers=ann)
        assert (client.get("/me-one", headers=ann).json(), client.get("/me-two", headers=ben).json()) == ("ann", "ben")
        assert client.get("/me-one", headers=ben).status_code == 401
        for prefix, right, wrong in (("/one", ann, ben), ("/two", ben, ann)):
            path = f"{prefix}/openai/v1/models"
            assert client.get(path, headers=right).status_code == 200
            assert client.get(path, headers=wrong).status_code == 401


def test_two_that_run_share_the_restrained_collector() -> None:
    """The first plugin's end does not undo the settings of the garbage collector for the second."""
    before = gc.get_freeze_count(), gc.get_threshold()
    assert before[0] == 0
    apps = [FastAPI(), FastAPI()]
    for app in apps:
        app.include_router(AIBridge(quiet()).router)
    with TestClient(apps[0]) as first:
        first.get("/healthz")
        with TestClient(apps[1]):
            frozen = gc.get_freeze_count()
            assert frozen > 0
        assert gc.get_freeze_count() > frozen / 2  # some objects are freed meanwhile
    assert (gc.get_freeze_count(), gc.get_threshold()) == before


# Consecutive event loops


def test_loops_one_after_the_other() -> None:
    """One plugin works in several event loops in turn, even after one that left it running."""
    aibridge = AIBridge(quiet())
    left: list[Any] = []

    async def use() -> int:
        async def one() -> None:
            async with aibridge.bridge(Principal("alice")):
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(5)))
        return 1

    async def begin_and_leave() -> None:
        left.append(aibridge.lifespan(None))
        await left[0].__aenter__()

    for _ in range(3):
        assert asyncio.run(use()) == 1
    asyncio.run(begin_and_leave())
    assert asyncio.run(use()) == 1
    assert not aibridge.running


def test_another_event_loop_than_asyncios_is_refused() -> None:
    """An event loop other than asyncio's, such as trio's, is refused with an error that says what to do."""
    entering = AIBridge(quiet()).lifespan(None).__aenter__()
    with pytest.raises(ConfigurationError, match="needs asyncio"):
        entering.__await__().send(None)


def test_a_task_of_the_apps_own_lifespan_waits_for_the_start() -> None:
    """A task that starts before the plugin waits for its start and gets a bridge."""
    seen: list[str] = []
    aibridge = AIBridge(quiet())

    async def job() -> None:
        async with aibridge.bridge(Principal("job")) as bridge:
            seen.append(bridge.principal.initiator_id)

    tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks.extend(asyncio.create_task(job()) for _ in range(3))
        yield
        await asyncio.gather(*tasks)

    app = FastAPI(lifespan=lifespan)
    app.include_router(aibridge.router)
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
    assert seen == ["job"] * 3
    assert not aibridge.running


def test_a_task_that_comes_while_the_app_starts_waits() -> None:
    """A request for a bridge during a slow start waits for it."""

    class SlowRecorder(MemoryRecorder):
        async def __aenter__(self) -> Self:
            tasks.append(asyncio.create_task(job()))
            await asyncio.sleep(0.05)
            return self

        async def __aexit__(self, *_: object) -> None: ...

    async def job() -> str:
        async with aibridge.bridge(Principal("job")) as bridge:
            return bridge.principal.initiator_id

    tasks: list[asyncio.Task[str]] = []
    aibridge = AIBridge(quiet(), recorder=SlowRecorder())

    async def run() -> None:
        async with aibridge.lifespan(None):
            assert await tasks[0] == "job"

    asyncio.run(run())


# Reloads


@pytest.fixture
def source() -> Source:
    return Source()


def reloads(aibridge: AIBridge, outcome: str) -> float:
    value = aibridge.registry.get_sample_value("aibridge_reloads_total", {"outcome": outcome})
    return value or 0.0


def test_a_source_that_hangs_is_given_up(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload stops waiting for a source that hangs, even if it ignores cancellation; the next is not delayed."""
    monkeypatch.setattr(loading, "LOAD_TIMEOUT", 0.3)
    stuck: list[asyncio.Future[None]] = []
    let_go = asyncio.Event()

    async def hang() -> list[Provider]:
        future = asyncio.get_running_loop().create_future()
        stuck.append(future)
        try:
            await future
        except asyncio.CancelledError:
            await let_go.wait()
            raise OSError("secret") from None
        return []

    async def run() -> None:
        async with aibridge.lifespan(None):
            source.load_ = hang
            attempts = asyncio.gather(*(aibridge.reload() for _ in range(2)), return_exceptions=True)
            for problem in await asyncio.wait_for(attempts, 30):
                assert isinstance(problem, SettingsError)
                assert "provider source did not answer within" in str(problem)
            source.load_ = list
            assert (await aibridge.reload()).provider_version == 2
            let_go.set()
            await asyncio.sleep(0.05)

    aibridge = AIBridge(quiet(), providers=source)
    asyncio.run(run())


@pytest.mark.parametrize("error", [OSError("no database"), KeyError("x"), asyncio.CancelledError()])
def test_a_source_that_fails_is_counted(source: Source, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """If a source raises any error, the reload is counted and reported, and the old providers stay."""

    def fail() -> Any:
        raise error

    async def run() -> None:
        async with aibridge.lifespan(None):
            source.load_ = fail
            expected = SettingsError if isinstance(error, asyncio.CancelledError) else type(error)
            with pytest.raises(expected):
                await aibridge.reload()
            outcome = "refused" if expected is SettingsError else "failed"
            assert reloads(aibridge, outcome) == 1
            assert "not reloaded" in caplog.text
            assert aibridge.pool.provider_version == 1

    aibridge = AIBridge(quiet(), providers=source)
    asyncio.run(run())


def test_a_reload_that_outlives_the_app_changes_nothing(source: Source) -> None:
    """A reload that is still running when the app stops changes nothing, reports that, and leaves nothing open."""

    async def run() -> None:
        reading, go_on = asyncio.Event(), asyncio.Event()

        async def wait() -> list[Provider]:
            reading.set()
            await go_on.wait()
            return []

        async with aibridge.lifespan(None):
            source.load_ = wait
            running = aibridge._host.runtime
            reload = asyncio.create_task(aibridge.reload())
            await reading.wait()
        go_on.set()
        with pytest.raises(PoolShutdown):
            await reload
        assert running.pool.provider_version == 1
        assert reloads(aibridge, "applied") == 0

    aibridge = AIBridge(quiet(), providers=source)
    asyncio.run(run())


def test_a_reload_to_no_provider_warns(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """A reload without providers is applied, and a warning says that every request will get 404."""
    given = [model.settings(), model.settings(providers={})]
    app = FastAPI()
    app.include_router(model.bridge(settings=lambda: given.pop(0)).router, prefix="/ai")
    caplog.set_level(logging.INFO)
    with TestClient(app) as client:
        caplog.clear()
        answer = client.post("/ai/admin/reload", headers=ADMIN)
        assert (answer.status_code, answer.json()["providers"]) == (200, [])
    assert "no provider is configured" in caplog.text
    assert "version 2, 0 providers, 0 bridges retired" in caplog.text


def test_what_a_reload_shows_is_in_force(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """A changed body limit takes effect; settings that need a restart keep their value, and the log names them."""
    given = [
        model.settings(max_body_size=10_000),
        model.settings(max_body_size=20, pool={"ttl": 7}, forward_headers=["x-other"]),
    ]
    app = FastAPI()
    aibridge = model.bridge(settings=lambda: given.pop(0))
    app.include_router(aibridge.router, prefix="/ai")
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200
        assert client.post("/ai/admin/reload", headers=ADMIN).status_code == 200
        assert aibridge.settings.max_body_size == 20
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 413
        assert aibridge.settings.pool.ttl == 900
        assert client.get("/ai/admin/pool", headers=ADMIN).json()["ttl_seconds"] == 900
        assert client.get("/ai/openai/v1/models", headers={**ALICE, "X-Other": "1", "X-More": "2"}).status_code == 200
        assert "x-other" in model.received[-1].headers
        assert "x-more" not in model.received[-1].headers
    assert "only in force after a restart: pool" in caplog.text


# Long-lived holders


def test_a_websocket_outlives_its_bridge(model: Model) -> None:
    """A WebSocket whose bridge has been retired or closed continues with the bridge that replaced it."""
    app = FastAPI()
    aibridge = model.bridge(settings=model.settings(pool={"drain_timeout": 0.05}))
    app.include_router(aibridge.router, prefix="/ai")

    @app.websocket("/ws")
    async def talk(websocket: WebSocket, bridge: Annotated[RequestBridge, Depends(get_bridge)]) -> None:
        await websocket.accept()
        while (await websocket.receive_text()) == "ask":
            answer = await bridge.http_client("openai").post("/v1/chat/completions", json=ASK)
            await websocket.send_text(str(answer.status_code))

    def pool(client: TestClient) -> Any:
        return client.get("/ai/admin/pool", headers=ADMIN).json()

    with TestClient(app) as client, client.websocket_connect("/ws", headers=ALICE) as socket:

        def ask() -> str:
            socket.send_text("ask")
            return socket.receive_text()

        assert ask() == "200"
        for _ in range(2):
            assert client.post("/ai/admin/reload", headers=ADMIN).status_code == 200
            assert ask() == "200"
            deadline = time.monotonic() + 60
            while pool(client)["draining"] and time.monotonic() < deadline:
                time.sleep(0.01)
            assert pool(client)["draining"] == 0
            assert ask() == "200"
        assert pool(client)["leases"] == 0  # the first bridge's lease was cut, the others lasted for one request each
        socket.send_text("bye")


def test_principals_of_one_key_with_two_sessions(model: Model) -> None:
    """A handler's bridge has its request's own session key, whatever requests came before."""

    sessions = [Principal("ann", session_key=key) for key in ("s-1", "s-2", "s-2", "s-1")]
    app = model.app(lambda: sessions.pop(0))

    @app.get("/session")
    async def session(bridge: Annotated[RequestBridge, Depends(get_bridge)]) -> Any:
        return bridge.principal.session_key

    with TestClient(app) as client:
        assert [client.get("/session").json() for _ in range(4)] == ["s-1", "s-2", "s-2", "s-1"]
        pool = client.get("/ai/admin/pool", headers=ADMIN).json()
        assert (pool["size"], pool["hits"], pool["misses"]) == (1, 1, 3)


def test_bridge_of_no_principal_is_refused() -> None:
    """`AIBridge.bridge` refuses an argument that is not a `Principal`, and says so."""

    async def run() -> None:
        async with AIBridge(quiet()).bridge("alice"):  # type: ignore[arg-type]
            pass

    with pytest.raises(ConfigurationError, match="must return a Principal"):
        asyncio.run(run())
    assert by("alice").initiator_id == "alice"
