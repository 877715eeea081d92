"""The plugin in an app: routers, prefixes, mounts, lifespans, and mistakes."""

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response, Security, WebSocket
from fastapi.security import APIKeyQuery
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect

from fastapi_aibridge import AIBridge, ConfigurationError, SettingsError

from .apps import ADMIN, ALICE, ASK, CHAT, BridgeDep, Model, add_me, bearer, by, initiators, is_openai_error

BOB = bearer("k-bob")


async def gate(x_gate: Annotated[str, Header()] = "") -> None:
    if x_gate != "open":
        raise HTTPException(403, "the gate is closed", headers={"X-Gate": "closed"})


async def any_user(x_gate: Annotated[str, Header()] = "") -> Any:
    return by("anybody")


@pytest.mark.parametrize("where", ["include", "app", "outer router", "router"])
@pytest.mark.parametrize("principal", [None, any_user], ids=["built-in", "own"])
def test_dependencies_around_the_router_are_honoured(model: Model, where: str, principal: Any) -> None:
    """A dependency of the app, a router or the inclusion guards the gateway; its error has the provider's shape."""
    guard = [Depends(gate)]
    app = FastAPI(dependencies=guard if where == "app" else None)
    router = model.bridge(principal).router
    if where == "outer router":
        outer = APIRouter(dependencies=guard)
        outer.include_router(router, prefix="/ai")
        app.include_router(outer)
    elif where == "router":
        outer = APIRouter(prefix="/ai")
        outer.include_router(router, dependencies=guard)
        app.include_router(outer)
    else:
        app.include_router(router, prefix="/ai", dependencies=guard if where == "include" else None)
    with TestClient(app) as client:
        for path in (CHAT, "/ai/openai/v1/models"):
            answer = client.request("POST" if path == CHAT else "GET", path, json=ASK, headers=ALICE)
            assert (answer.status_code, answer.headers.get("x-gate")) == (403, "closed")
            assert is_openai_error(answer.content)
        assert client.get("/ai/admin/pool", headers=ADMIN).status_code == 403
        assert model.received == []
        assert client.post(CHAT, json=ASK, headers={**ALICE, "X-Gate": "open"}).status_code == 200
        assert "x-gate" not in model.received[0].headers
        assert client.get("/ai/admin/pool", headers={**ADMIN, "X-Gate": "open"}).status_code == 200


def test_keys_that_a_guard_reads_in_the_query_stay_here(model: Model) -> None:
    """A query parameter that a security scheme around the router reads is not sent to the provider."""
    scheme = APIKeyQuery(name="gate_key")
    app = model.app(include={"dependencies": [Security(scheme)]})
    with TestClient(app) as client:
        assert client.get("/ai/openai/v1/models?gate_key=s3cret&limit=5", headers=ALICE).status_code == 200
        assert model.received[0].query == "limit=5"


def test_overrides_of_a_guard(model: Model) -> None:
    """The guard of an inclusion can be overridden."""
    app = model.app(include={"dependencies": [Depends(gate)]})
    app.dependency_overrides[gate] = lambda: None
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200


@pytest.mark.skipif(
    "max_body_size" not in inspect.signature(FastAPI).parameters, reason="this version of FastAPI has no body limits"
)
@pytest.mark.parametrize("where", ["app", "include"])
@pytest.mark.parametrize("principal", [None, any_user], ids=["built-in", "own"])
def test_the_apps_own_body_limit_holds(model: Model, where: str, principal: Any) -> None:
    """FastAPI's `max_body_size` around the gateway is enforced."""
    app = FastAPI(max_body_size=100 if where == "app" else None)
    app.include_router(model.bridge(principal).router, prefix="/ai", max_body_size=100 if where == "include" else None)
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200
        assert client.post(CHAT, json={**ASK, "more": "x" * 100}, headers=ALICE).status_code == 413
        assert len(model.received) == 1


def test_middleware_sees_the_gateway(model: Model) -> None:
    """The app's middleware runs around gateway routes, and the body is unchanged."""
    app = model.app()

    @app.middleware("http")
    async def stamp(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["x-stamp"] = request.url.path
        return response

    with TestClient(app) as client:
        answer = client.post(CHAT, json=ASK, headers=ALICE)
        assert (answer.status_code, answer.headers["x-stamp"]) == (200, CHAT)
        assert answer.json()["choices"][0]["message"]["content"] == "hello"


def test_two_apps_do_not_meet(model: Model) -> None:
    """Two apps in one process have separate keys, pools, records and metrics."""
    one, two = FastAPI(), FastAPI()
    one.include_router(model.bridge(settings=model.settings(client_keys={"alice": "k-1"})).router, prefix="/ai")
    two.include_router(model.bridge(settings=model.settings(client_keys={"alice": "k-2"})).router, prefix="/ai")
    with TestClient(one) as first, TestClient(two) as second:
        assert first.post(CHAT, json=ASK, headers=bearer("k-1")).status_code == 200
        assert second.post(CHAT, json=ASK, headers=bearer("k-1")).status_code == 401
        assert (initiators(first), initiators(second)) == (["alice"], [])
        assert first.get("/ai/admin/pool", headers=ADMIN).json()["size"] == 1
        assert second.get("/ai/admin/pool", headers=ADMIN).json()["size"] == 0
        assert b'status="completed"' in first.get("/ai/admin/metrics", headers=ADMIN).content
        assert b'status="completed"' not in second.get("/ai/admin/metrics", headers=ADMIN).content


def test_a_router_that_is_included_twice_has_one_pool(model: Model) -> None:
    """Two prefixes lead to the same pool, whose lifespan begins and ends once."""
    app = FastAPI()
    aibridge = model.bridge()
    app.include_router(aibridge.router, prefix="/ai")
    app.include_router(aibridge.router, prefix="/v2/ai", dependencies=[Depends(gate)])
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200
        assert client.post("/v2" + CHAT, json=ASK, headers=ALICE).status_code == 403
        assert client.post("/v2" + CHAT, json=ASK, headers={**ALICE, "X-Gate": "open"}).status_code == 200
        assert client.get("/ai/admin/pool", headers=ADMIN).json()["keys_added"] == 1
    with pytest.raises(ConfigurationError):
        aibridge.pool  # noqa: B018


def test_the_routers_can_be_had_apart(model: Model) -> None:
    """Data plane and control plane can have different prefixes, and either can be left out."""
    app = FastAPI()
    aibridge = model.bridge()
    app.include_router(aibridge.gateway_router, prefix="/ai")
    app.include_router(aibridge.admin_router, prefix="/internal", dependencies=[Depends(gate)])
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200
        assert client.get("/ai/admin/pool", headers=ADMIN).status_code == 404
        assert client.get("/internal/admin/pool", headers=ADMIN).status_code == 403
        answer = client.get("/internal/admin/pool", headers={**ADMIN, "X-Gate": "open"})
        assert answer.json()["keys_added"] == 1
        assert client.get("/internal/openai/v1/models", headers=ALICE).status_code == 404


def test_without_a_prefix_the_apps_routes_come_first_if_they_are_first(model: Model) -> None:
    """At the root the gateway serves only paths without an earlier route, and does not redirect other paths."""
    app = FastAPI()

    @app.get("/users/{name}")
    async def user(name: str) -> str:
        return name

    app.include_router(model.bridge().router)
    with TestClient(app, follow_redirects=False) as client:
        assert client.get("/users/ann").json() == "ann"
        assert client.post(CHAT.removeprefix("/ai"), json=ASK, headers=ALICE).status_code == 200
        assert client.get("/favicon.ico").status_code == 404
        assert client.get("/openapi.json").status_code == 200
        assert client.get("/admin/pool", headers=ADMIN).status_code == 200


def test_a_prefix_with_a_parameter(model: Model) -> None:
    """A prefix may have path parameters, which the principal dependency can read."""

    async def principal(tenant: str) -> Any:
        return by(tenant)

    app = FastAPI()
    app.include_router(model.bridge(principal).router, prefix="/t/{tenant}/ai")
    with TestClient(app) as client:
        answer = client.post("/t/acme/ai/openai/v1/chat/completions", json=ASK)
        assert answer.status_code == 200
        items = client.get("/t/acme/ai/admin/interceptions", headers=ADMIN).json()["items"]
        assert items[0]["initiator_id"] == "acme"
        assert items[0]["route"] == "/v1/chat/completions"


@pytest.mark.parametrize("stripped", [True, False])
def test_behind_a_proxy_with_a_root_path(model: Model, *, stripped: bool) -> None:
    """`root_path` changes nothing, whether the path includes it or the proxy has stripped it."""
    with TestClient(model.app(), root_path="/api") as client:
        prefix = "" if stripped else "/api"
        assert client.post(prefix + CHAT, json=ASK, headers=ALICE).status_code == 200
        assert client.get(prefix + "/me", headers=ALICE).json()["initiator"] == "alice"
        assert model.received[0].path == "/v1/chat/completions"


@pytest.mark.parametrize("outer_type", [FastAPI, Starlette])
def test_a_mounted_app_works_with_the_outer_apps_lifespan(model: Model, outer_type: type[Starlette]) -> None:
    """A sub-app works if the outer app has `lifespan=aibridge.lifespan`."""
    aibridge = model.bridge()
    inner = FastAPI()
    inner.include_router(aibridge.router, prefix="/ai")
    add_me(inner)
    outer = outer_type(routes=[Mount("/sub", inner)], lifespan=aibridge.lifespan)
    with TestClient(outer) as client:
        assert client.post("/sub" + CHAT, json=ASK, headers=ALICE).status_code == 200
        assert client.get("/sub/me", headers=ALICE).json()["initiator"] == "alice"
        assert client.get("/sub/ai/admin/pool", headers=ADMIN).json()["size"] == 1
        assert model.received[0].path == "/v1/chat/completions"


def test_a_mounted_app_without_it_names_the_cure(model: Model) -> None:
    """Without a lifespan, the errors of gateway, admin routes and handlers say what to do."""
    outer = FastAPI()
    outer.mount("/sub", model.app())
    with TestClient(outer) as client:
        for path, headers in (("/sub/me", ALICE), ("/sub/ai/openai/v1/models", ALICE), ("/sub/ai/admin/pool", ADMIN)):
            with pytest.raises(ConfigurationError, match=r"lifespan=aibridge\.lifespan"):
                client.get(path, headers=headers)


def test_a_client_that_does_not_run_the_lifespan_names_the_cure(model: Model) -> None:
    """The error of a `TestClient` without `with` says what to do."""
    client = TestClient(model.app())
    for path in ("/me", "/ai/openai/v1/models"):
        with pytest.raises(ConfigurationError, match=r"with TestClient\(app\)"):
            client.get(path, headers=ALICE)


def test_an_app_without_the_router_names_the_cure() -> None:
    """`get_bridge` in an app without the router says that the router must be included."""
    app = FastAPI()
    add_me(app)
    with TestClient(app) as client, pytest.raises(ConfigurationError, match=r"include_router\(aibridge.router\)"):
        client.get("/me")


def test_the_apps_own_lifespan_runs_and_keeps_its_state(model: Model) -> None:
    """The app's lifespan is entered before the pool's and left after it, and handlers see its state."""
    log: list[str] = []
    aibridge = model.bridge()

    def runs() -> bool:
        return aibridge.running

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        log.append(f"up, pool {runs()}")
        yield {"answer": 42}
        log.append(f"down, pool {runs()}")

    app = FastAPI(lifespan=lifespan)
    app.include_router(aibridge.router, prefix="/ai")

    @app.get("/state")
    async def state(request: Request, bridge: BridgeDep) -> int:
        return int(request.state.answer)

    with TestClient(app) as client:
        assert runs()
        assert client.get("/state", headers=ALICE).json() == 42
    assert log == ["up, pool False", "down, pool False"]


@pytest.mark.parametrize("yields", [True, False])
def test_a_lifespan_that_enters_ours_by_hand(model: Model, *, yields: bool) -> None:
    """The inner app's plugin is found by its router, even if the outer lifespan does not yield the state."""
    aibridge = model.bridge()
    inner = FastAPI()
    inner.include_router(aibridge.router, prefix="/ai")
    add_me(inner)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with aibridge.lifespan(app) as state:
            yield state if yields else {}

    outer = FastAPI(lifespan=lifespan)
    outer.mount("/sub", inner)
    with TestClient(outer) as client:
        assert client.post("/sub" + CHAT, json=ASK, headers=ALICE).status_code == 200
        assert client.get("/sub/me", headers=ALICE).status_code == 200


def test_an_app_can_be_started_again(model: Model) -> None:
    """The app can start again in another event loop, with an empty pool."""
    app = model.app()
    for _ in range(3):
        with TestClient(app) as client:
            assert client.get("/ai/admin/pool", headers=ADMIN).json()["size"] == 0
            assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200
            answers = [client.post("/ai/admin/reload", headers=ADMIN) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 200]


def test_a_second_event_loop_is_refused(model: Model) -> None:
    """One `AIBridge` in two running event loops is refused, and the error says what to do."""
    aibridge = model.bridge()
    app = FastAPI()
    app.include_router(aibridge.router, prefix="/ai")
    errors: list[Exception] = []

    async def enter() -> None:
        async with aibridge.lifespan(app):
            pass

    def other() -> None:
        try:
            asyncio.run(enter())
        except ConfigurationError as error:
            errors.append(error)

    with TestClient(app) as client:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert "make one AIBridge for each app" in str(errors[0])
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200


def test_settings_that_do_not_validate_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid variable stops the start; the error names the variable and not its value."""
    monkeypatch.setenv("AIBRIDGE_PROVIDERS__OPENAI__API_KEY", "sk-s3cret")
    monkeypatch.setenv("AIBRIDGE_POOL__MAX_ITEMS", "s3cret-many")
    app = FastAPI()
    app.include_router(AIBridge().router, prefix="/ai")
    with pytest.raises(SettingsError, match="AIBRIDGE_POOL__MAX_ITEMS") as raised, TestClient(app):
        pass
    assert "s3cret" not in str(raised.value)


def test_a_start_that_fails_half_way_leaves_nothing_open(model: Model) -> None:
    """If the recorder cannot be opened, everything else is closed, and the next start works."""

    class Broken:
        async def __aenter__(self) -> None:
            raise RuntimeError("no database")

        async def __aexit__(self, *exc_info: object) -> None: ...

        async def start(self, *args: object) -> None: ...

        async def observe(self, *args: object) -> None: ...

        async def end(self, *args: object) -> None: ...

    app = FastAPI()
    aibridge = model.bridge(recorder=Broken())
    app.include_router(aibridge.router, prefix="/ai")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no database"), TestClient(app):
            pass
    assert not aibridge.running
    assert aibridge._host._apps == 0


def test_openapi_of_the_host_app(model: Model) -> None:
    """The schema has the app's own and the admin routes, no gateway routes, and the parameters of the principal."""
    with TestClient(model.app(any_user)) as client:
        schema = client.get("/openapi.json").json()
        assert client.get("/docs").status_code == 200
    paths = schema["paths"]
    assert [one["name"] for one in paths["/me"]["get"]["parameters"]] == ["x-gate"]
    assert not any("{provider}" in path for path in paths)
    assert {"/ai/admin/reload", "/ai/admin/pool", "/ai/admin/metrics"} <= set(paths)


def test_postponed_annotations_work(model: Model) -> None:
    """The alias and the dependency work in modules with `from __future__ import annotations`."""
    source = (
        "from __future__ import annotations\n"
        "from typing import Annotated\n"
        "from fastapi import APIRouter, Depends\n"
        "from fastapi_aibridge import Principal, RequestBridge, get_bridge\n"
        "router = APIRouter()\n"
        "async def user() -> str:\n    return 'ann'\n"
        "async def principal(name: Annotated[str, Depends(user)]) -> Principal:\n    return Principal(name)\n"
        "@router.get('/later')\n"
        "async def later(bridge: Annotated[RequestBridge, Depends(get_bridge)]) -> str:\n"
        "    return bridge.principal.initiator_id\n"
    )
    module: dict[str, Any] = {"__name__": "postponed"}
    exec(compile(source, "postponed.py", "exec", dont_inherit=True), module)
    app = model.app(module["principal"])
    app.include_router(module["router"])
    with TestClient(app) as client:
        assert client.get("/later").json() == "ann"


def test_websockets(model: Model) -> None:
    """`get_bridge` works in a WebSocket route and holds its lease for the life of the connection."""
    app = model.app()

    @app.websocket("/ws")
    async def talk(websocket: WebSocket, bridge: BridgeDep) -> None:
        await websocket.accept()
        await websocket.send_text(bridge.principal.initiator_id)
        await websocket.receive_text()
        await websocket.close()

    def leases(client: TestClient) -> int:
        return int(client.get("/ai/admin/pool", headers=ADMIN).json()["leases"])

    with TestClient(app) as client:
        with client.websocket_connect("/ws", headers=ALICE) as socket:
            assert socket.receive_text() == "alice"
            assert leases(client) == 1
            socket.send_text("bye")
        assert leases(client) == 0
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/ws"):
            pass
        assert refused.value.code == 1008


def test_secrets_are_not_logged(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """No log line of any level has a key or a prompt."""
    caplog.set_level(logging.DEBUG)
    with TestClient(model.app()) as client:
        ask = {**ASK, "messages": [{"role": "user", "content": "my-private-prompt"}]}
        assert client.post(CHAT, json=ask, headers=ALICE).status_code == 200
        assert client.post(CHAT, json=ask, headers=bearer("k-wrong")).status_code == 401
    for secret in ("k-alice", "k-wrong", "sk-central-openai", "t-admin", "my-private-prompt"):
        assert secret not in caplog.text
