"""Access to the admin routes: tokens and their roles, the app's own dependency, pages of other sites, guesses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, HTTPException, Query, Security
from fastapi.security import APIKeyQuery
from fastapi.testclient import TestClient

from fastapi_aibridge.observability import wrong_keys
from fastapi_aibridge.observability.wrong_keys import MANY, WrongKeys

from .apps import ADMIN, ALICE, ASK, CHAT, Model, add_me, bearer

METRICS, AUDIT = bearer("t-metrics"), bearer("t-audit")
READ = ["pool", "providers", "interceptions", "interceptions/some-id", "interceptions/export", "usage", "workers",
        "audit", "budgets", "budgets/initiator/alice", "client-keys", "mcp-servers", "mcp-servers/files",
        "providers/house"]  # fmt: skip
CHANGES = [
    ("POST", "reload"), ("POST", "client-keys"), ("DELETE", "client-keys/some-id"), ("DELETE", "initiators/alice"),
    ("DELETE", "initiators/alice/content"), ("PUT", "budgets/initiator/alice"), ("DELETE", "budgets/initiator/alice"),
    *((method, path) for method in ("PUT", "PATCH", "DELETE") for path in ("providers/house", "mcp-servers/files")),
]  # fmt: skip
ROUTES = [*CHANGES, ("GET", "metrics"), *(("GET", path) for path in READ)]
each = pytest.mark.parametrize(("method", "path"), ROUTES)


def app_with(model: Model, **settings: object) -> FastAPI:
    app = FastAPI()
    app.include_router(model.bridge(settings=model.settings(**settings)).router, prefix="/ai")
    return app


@pytest.fixture(scope="module")
def with_roles(served_model: Model) -> Iterator[TestClient]:
    """A client of one app with all roles, for all tests; wrong tokens are not delayed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wrong_keys, "DELAY", 0)
        with TestClient(app_with(served_model, metrics_token="t-metrics", audit_token="t-audit")) as client:
            yield client


@pytest.fixture(scope="module")
def without_admin(served_model: Model) -> Iterator[TestClient]:
    """A client of an app whose only token is the metrics token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wrong_keys, "DELAY", 0)
        with TestClient(app_with(served_model, admin_token=None, metrics_token="t-metrics")) as client:
            yield client


@pytest.fixture(scope="module")
def with_cookie(served_model: Model) -> Iterator[TestClient]:
    """An administrator's client of an app that authenticates by cookie."""
    with TestClient(cookie_app(served_model), cookies={"session": "s"}) as client:
        yield client


def test_all_routes_are_listed(model: Model) -> None:
    """The lists above have every admin route, so that a new one is not forgotten."""
    for path, methods in app_with(model).openapi()["paths"].items():
        if path.startswith("/ai/admin/"):
            pattern = re.sub(r"\{[^/]+\}", "[^/]+", path.removeprefix("/ai/admin/"))
            for method in methods:
                assert [one for one in ROUTES if one[0] == method.upper() and re.fullmatch(pattern, one[1])], path


@each
def test_roles(with_roles: TestClient, method: str, path: str) -> None:
    """The metrics token opens the metrics, the audit token all routes that read, the admin token everything."""

    def status(headers: dict[str, str]) -> int:
        return with_roles.request(method, f"/ai/admin/{path}", headers=headers).status_code

    assert status(ADMIN) in (200, 404, 422)
    assert status(AUDIT) == (403 if (method, path) in CHANGES else status(ADMIN))
    assert status(METRICS) == (200 if path == "metrics" else 403)
    assert status(bearer("t-metric")) == 401
    assert status({}) == 401


def test_a_role_says_what_it_is_for(with_roles: TestClient) -> None:
    """The refusal of a token with a lesser role names that role."""
    assert "metrics only" in with_roles.get("/ai/admin/usage", headers=METRICS).text
    assert "reading only" in with_roles.post("/ai/admin/reload", headers=AUDIT).text


@each
def test_a_lesser_token_alone_opens_no_more(without_admin: TestClient, method: str, path: str) -> None:
    """Without an admin token, the routes beyond a role are closed for everybody."""
    with_its_token, with_another = (200, 401) if path == "metrics" else (403, 403)
    assert without_admin.request(method, f"/ai/admin/{path}", headers=METRICS).status_code == with_its_token
    assert without_admin.request(method, f"/ai/admin/{path}", headers=ADMIN).status_code == with_another


@each
def test_no_answer_may_be_stored(with_roles: TestClient, method: str, path: str) -> None:
    """No response, including refusals, may be stored by a browser or a proxy."""
    for headers in (ADMIN, {}):
        for query in ("", "?nonsense=1"):
            answer = with_roles.request(method, f"/ai/admin/{path}{query}", headers=headers)
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"


@each
def test_no_answer_to_another_method_may_be_stored(with_roles: TestClient, method: str, path: str) -> None:
    """The 405 for a missing method, which the framework sends, may not be stored either."""
    absent = next(one for one in ("POST", "PATCH") if (one, path) not in ROUTES)
    for other in ("PROPFIND", "TRACE", absent):
        answer = with_roles.request(other, f"/ai/admin/{path}", headers=ADMIN)
        assert answer.status_code == 405
        assert answer.headers["cache-control"] == "no-store"
        assert "allow" in answer.headers


# Pages of other sites


async def signed_in(session: Annotated[str, Cookie()] = "") -> None:
    if session != "s":
        raise HTTPException(401)


FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://testserver.evil.example"},
    {"Origin": "http://testserver:8080"},
    {"Origin": "http://[bad"},
    {"Origin": "https://evil.example", "Authorization": "Bearer anything"},
    {"Origin": "https://evil.example", "Authorization": "Basic YTpi"},
]
OWN: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy.example"},
    {"Origin": "http://testserver"},
    {"Origin": "https://testserver"},
    {"Origin": "https://testserver:443"},
    {"Origin": "HTTP://TESTSERVER"},
]


def cookie_app(model: Model) -> FastAPI:
    app = FastAPI()
    app.include_router(model.bridge(admin=signed_in).router, prefix="/ai")
    return app


@each
@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_sites_are_refused(
    with_cookie: TestClient, method: str, path: str, headers: dict[str, str]
) -> None:
    """A request from a page of another site is refused, although the browser adds the administrator's cookie."""
    answer = with_cookie.request(method, f"/ai/admin/{path}", headers=headers)
    assert (answer.status_code, "other sites" in answer.text) == (403, True)


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_the_apps_own_pages_are_not(with_cookie: TestClient, headers: dict[str, str]) -> None:
    """The app's own pages, clients that are no browsers, and typed addresses are accepted."""
    assert with_cookie.post("/ai/admin/reload", headers=headers).status_code == 200


def test_a_bearer_token_does_not_go_along_by_itself(model: Model) -> None:
    """A request of another site with a bearer token is accepted, because browsers do not add one by themselves."""

    async def anybody() -> None: ...

    app = FastAPI()
    app.include_router(model.bridge(admin=anybody).router, prefix="/ai")
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://admin.example"}
    with TestClient(app) as client:
        assert client.get("/ai/admin/pool", headers={**foreign, **ADMIN}).status_code == 200
        assert client.get("/ai/admin/pool", headers=foreign).status_code == 403
    with TestClient(app_with(model)) as client:
        assert client.get("/ai/admin/pool", headers={**foreign, **ADMIN}).status_code == 200


# Guesses


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays of responses to wrong keys, which are not slept."""
    monkeypatch.setattr(wrong_keys, "DELAY", 1.0)
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    defaults: Any = WrongKeys.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "sleep", sleep)
    return delays


def test_guessing_the_admin_token_is_told_and_slowed(
    model: Model, caplog: pytest.LogCaptureFixture, delays: list[float]
) -> None:
    """After ten wrong admin tokens the next is delayed; the right token and requests without one are not."""
    with TestClient(app_with(model)) as client:
        for _ in range(2 * MANY):
            client.get("/ai/admin/pool")
        for number in range(MANY):
            assert client.get("/ai/admin/pool", headers=bearer(f"guess-{number}")).status_code == 401
        assert f"{MANY} wrong admin keys or tokens" in caplog.text
        assert "guess-" not in caplog.text
        assert delays == []
        assert client.get("/ai/admin/pool", headers=bearer("guess-11")).status_code == 401
        assert delays == [1.0]
        exposition = client.get("/ai/admin/metrics", headers=ADMIN).text
        assert delays == [1.0]
    assert 'aibridge_wrong_keys_total{kind="admin"} 11.0' in exposition
    assert 'aibridge_key_guessing_total{kind="admin"} 1.0' in exposition


@pytest.mark.parametrize("way", ["gateway", "handler", "overridden"])
def test_guessing_client_keys_is_told_and_slowed(
    model: Model, caplog: pytest.LogCaptureFixture, delays: list[float], way: str
) -> None:
    """Wrong client keys are logged and delayed on gateway routes, with overrides too, and in handlers with a bridge."""
    app = app_with(model)
    add_me(app)
    if way == "overridden":  # any override makes FastAPI handle gateway requests
        app.dependency_overrides[signed_in] = signed_in
    path = "/me" if way == "handler" else "/ai/openai/v1/models"
    with TestClient(app) as client:
        for number in range(MANY):
            assert client.get(path, headers=bearer(f"guess-{number}")).status_code == 401
        assert f"{MANY} wrong client keys or tokens" in caplog.text
        assert delays == []
        assert client.get(path, headers=bearer("guess")).status_code == 401
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200
        assert delays == [1.0]


# Queries


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("usage?initiator=alice", "did you mean initiator_id?"),
        ("usage?Initiator_id=alice", "did you mean initiator_id?"),
        ("usage?initiator-id=alice", "did you mean initiator_id?"),
        ("usage?initiator_id=alice&initiator_id=bob", "once only"),
        ("usage?group=alice", "no such parameter"),
        ("usage?limit=3", "no such parameter"),
        ("usage?x=", "no such parameter"),
        ("interceptions?user=alice", "no such parameter"),
        ("interceptions?limit=1&limit=2", "once only"),
        ("interceptions?by=day", "no such parameter"),
        ("interceptions/export?initator_id=alice", "did you mean initiator_id?"),
        ("interceptions/some-id?initiator_id=alice", "no such parameter"),
        ("pool?x", "no such parameter"),
        ("providers?name=openai", "no such parameter"),
        ("metrics?name[]=x", "no such parameter"),
    ],
)
def test_a_parameter_that_there_is_not_is_refused(with_roles: TestClient, query: str, told: str) -> None:
    """A misspelled filter is refused, because without it the response would cover everybody."""
    answer = with_roles.get(f"/ai/admin/{query}", headers=ADMIN)
    assert answer.status_code == 422
    assert told in answer.text
    assert with_roles.get(f"/ai/admin/{query}").status_code == 401


def test_a_reload_takes_no_parameters(with_roles: TestClient) -> None:
    """A reload refuses parameters: a client could believe in `dry_run=1`."""
    assert with_roles.post("/ai/admin/reload?dry_run=1", headers=ADMIN).status_code == 422


def test_parameters_of_the_apps_own_dependencies_are_known(model: Model) -> None:
    """Query parameters of the admin dependency, of security schemes and of the router's inclusion are accepted."""

    async def operator(key: Annotated[str, Query(alias="operator-key")]) -> None:
        if key != "k":
            raise HTTPException(401)

    async def tenant(tenant: str = "") -> None: ...

    app = FastAPI()
    scheme = APIKeyQuery(name="token", auto_error=False)
    dependencies = [Depends(tenant), Security(scheme)]
    app.include_router(model.bridge(admin=operator).router, prefix="/ai", dependencies=dependencies)
    with TestClient(app) as client:
        assert client.get("/ai/admin/usage?operator-key=k&tenant=t&token=x&by=day&by=model").status_code == 200
        assert client.get("/ai/admin/usage?operator-key=k&tenants=t").status_code == 422


def test_a_flood_of_parameters_is_answered_briefly(with_roles: TestClient) -> None:
    """A response lists at most ten unknown parameters."""
    query = "&".join(f"initiator{number}=x" for number in range(3000))
    answer = with_roles.get(f"/ai/admin/usage?{query}", headers=ADMIN)
    assert (answer.status_code, len(answer.json()["detail"])) == (422, 10)
