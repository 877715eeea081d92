"""The principal of a request: from the app's own dependency or from the built-in client keys."""

import contextvars
import hashlib
import hmac
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import (
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPAuthorizationCredentials,
    HTTPBearer,
    SecurityScopes,
)
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Route

from fastapi_aibridge import AIBridge, ConfigurationError, Principal, RequestBridge, Settings, get_bridge

from .apps import ADMIN, ALICE, ASK, CHAT, Model, bearer, by, initiators, is_openai_error

USERS = {"t-ann": "ann", "t-ben": "ben"}


def user_of(token: str | None) -> Principal:
    if token not in USERS:
        raise HTTPException(401, "who are you?", headers={"WWW-Authenticate": "Custom"})
    return by(USERS[token], "key-1")


async def plain(connection: HTTPConnection) -> Principal:
    return user_of(connection.headers.get("x-user-token"))


def synchronous(x_user_token: Annotated[str | None, Header()] = None) -> Principal:
    return user_of(x_user_token)


async def current_user(x_user_token: Annotated[str | None, Header()] = None) -> str:
    return user_of(x_user_token).initiator_id


async def with_a_sub_dependency(user: Annotated[str, Depends(current_user)]) -> Principal:
    return by(user, "key-1")


async def yielding(x_user_token: Annotated[str | None, Header()] = None) -> AsyncIterator[Principal]:
    yield user_of(x_user_token)


def yielding_synchronously(x_user_token: Annotated[str | None, Header()] = None) -> Iterator[Principal]:
    yield user_of(x_user_token)


async def by_key_header(
    key: Annotated[str | None, Security(APIKeyHeader(name="X-User-Token", auto_error=False))],
) -> Principal:
    return user_of(key)


class Authenticator:
    """A callable object, as auth libraries provide."""

    async def __call__(self, x_user_token: Annotated[str | None, Header()] = None) -> Principal:
        return user_of(x_user_token)


DEPENDENCIES = [
    plain,
    synchronous,
    with_a_sub_dependency,
    yielding,
    yielding_synchronously,
    by_key_header,
    Authenticator(),
]


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda one: getattr(one, "__name__", "object"))
def test_the_apps_own_dependency_tells_who_calls(model: Model, dependency: Any) -> None:
    """The dependency, whatever its form, decides the same on gateway routes and in handlers."""
    with TestClient(model.app(dependency)) as client:
        for token, user in USERS.items():
            headers = {"X-User-Token": token}
            assert client.get("/me", headers=headers).json() == {"initiator": user, "key": "key-1"}
            assert client.post(CHAT, json=ASK, headers=headers).status_code == 200
            assert initiators(client)[0] == user


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda one: getattr(one, "__name__", "object"))
def test_the_apps_own_refusal_has_the_providers_shape(model: Model, dependency: Any) -> None:
    """An `HTTPException` of the app's auth keeps status and headers, and gets the shape of the provider's errors."""
    with TestClient(model.app(dependency)) as client:
        answer = client.post(CHAT, json=ASK)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Custom"
        assert answer.json()["error"]["message"] == "who are you?"
        assert is_openai_error(answer.content)
        answer = client.post("/ai/anthropic/v1/messages", json={**ASK, "max_tokens": 5})
        assert answer.json() == {
            "type": "error",
            "error": {"type": "authentication_error", "message": "who are you?"},
        }
        assert client.get("/me").json() == {"detail": "who are you?"}
    assert model.received == []


def test_bearer_tokens(model: Model) -> None:
    """`HTTPBearer` works; the caller's token is replaced by the gateway's on the way to the provider."""

    async def principal(token: Annotated[HTTPAuthorizationCredentials, Security(HTTPBearer())]) -> Principal:
        return user_of(token.credentials)

    with TestClient(model.app(principal)) as client:
        assert client.post(CHAT, json=ASK, headers=bearer("t-ann")).status_code == 200
        assert model.received[0].headers["authorization"] == "Bearer sk-central-openai"
        assert client.post(CHAT, json=ASK).status_code == 401


def test_cookies(model: Model) -> None:
    """`APIKeyCookie` works; no cookie is sent to the provider."""

    async def principal(session: Annotated[str, Security(APIKeyCookie(name="session"))]) -> Principal:
        return user_of(session)

    with TestClient(model.app(principal), cookies={"session": "t-ben"}) as client:
        assert client.post(CHAT, json=ASK).status_code == 200
        assert initiators(client) == ["ben"]
        assert "cookie" not in model.received[0].headers


def test_scopes(model: Model) -> None:
    """The scopes of `Security` reach the dependency that asks for them."""

    async def user(scopes: SecurityScopes, x_user_token: Annotated[str, Header()]) -> str:
        if scopes.scopes != ["models:use"]:
            raise HTTPException(403, "not your scope")
        return user_of(x_user_token).initiator_id

    async def principal(name: Annotated[str, Security(user, scopes=["models:use"])]) -> Principal:
        return by(name)

    with TestClient(model.app(principal)) as client:
        assert client.post(CHAT, json=ASK, headers={"X-User-Token": "t-ann"}).status_code == 200
        assert client.get("/me", headers={"X-User-Token": "t-ann"}).json()["initiator"] == "ann"


class Tokens(BaseModel):
    x_user_token: str
    x_tenant: str = ""


async def by_model(tokens: Annotated[Tokens, Header()]) -> Principal:
    return user_of(tokens.x_user_token)


async def by_alias(token: Annotated[str, Header(alias="X-User-Token")]) -> Principal:
    return user_of(token)


@pytest.mark.parametrize("dependency", [synchronous, with_a_sub_dependency, by_key_header, by_model, by_alias])
@pytest.mark.parametrize("path", [CHAT, "/ai/openai/v1/models"])
def test_headers_that_the_principal_reads_stay_here(model: Model, dependency: Any, path: str) -> None:
    """A header that the principal reads is not sent to the provider, however it is declared."""
    headers = {"X-User-Token": "t-ann", "X-Other": "goes up"}
    with TestClient(model.app(dependency)) as client:
        answer = client.post(path, json=ASK, headers=headers) if path == CHAT else client.get(path, headers=headers)
        assert answer.status_code == 200
        assert "x-user-token" not in model.received[0].headers
        assert model.received[0].headers["x-other"] == "goes up"


async def by_query(token: Annotated[str, Query()]) -> Principal:
    return user_of(token)


async def by_query_key(key: Annotated[str, Security(APIKeyQuery(name="token"))]) -> Principal:
    return user_of(key)


@pytest.mark.parametrize("dependency", [by_query, by_query_key])
def test_tokens_in_the_query_stay_here(model: Model, dependency: Any) -> None:
    """A token in the query is removed from it; the rest is sent unchanged."""
    with TestClient(model.app(dependency)) as client:
        assert client.get("/ai/openai/v1/models?a=%41&t%6Fken=t-ann&b").status_code == 200
        assert model.received[0].query == "a=%41&b"


def test_headers_of_protocols_go_up_although_an_app_looks_at_them(model: Model) -> None:
    """Headers such as the user agent are sent to the provider even if a dependency reads them."""

    async def principal(
        anthropic_version: Annotated[str, Header()],
        user_agent: Annotated[str, Header()],
        x_user_token: Annotated[str, Header()],
    ) -> Principal:
        return user_of(x_user_token)

    headers = {"X-User-Token": "t-ann", "Anthropic-Version": "2023-06-01", "User-Agent": "me/1"}
    with TestClient(model.app(principal)) as client:
        assert client.get("/ai/anthropic/v1/models", headers=headers).status_code == 200
        assert model.received[0].headers["anthropic-version"] == "2023-06-01"
        assert model.received[0].headers["user-agent"] == "me/1"


def test_overrides_of_the_principal(model: Model) -> None:
    """`dependency_overrides` of the dependency and of its sub-dependencies work on gateway routes and in handlers."""
    for overridden, replacement in (
        (with_a_sub_dependency, lambda: by("fake", "key-1")),
        (current_user, lambda: "fake"),
    ):
        app = model.app(with_a_sub_dependency)
        app.dependency_overrides[overridden] = replacement
        with TestClient(app) as client:
            assert client.get("/me").json()["initiator"] == "fake"
            assert client.post(CHAT, json=ASK).status_code == 200
            assert initiators(client) == ["fake"]
            app.dependency_overrides.clear()
            assert client.get("/me").status_code == 401
            assert client.post(CHAT, json=ASK).status_code == 401


def test_overrides_of_the_built_in_principal(model: Model) -> None:
    """`aibridge.principal` is the key that overrides the check of client keys."""
    app = model.app()
    app.dependency_overrides[app.state.aibridge.principal] = lambda: by("fake")
    with TestClient(app) as client:
        assert client.get("/me").json()["initiator"] == "fake"
        assert client.post(CHAT, json=ASK).status_code == 200
        assert initiators(client) == ["fake"]


def test_overrides_of_the_bridge(model: Model) -> None:
    """`dependency_overrides[get_bridge]` gives handlers the bridge of a test."""

    class Fake:
        principal = by("nobody")

    app = model.app()
    app.dependency_overrides[get_bridge] = Fake
    assert TestClient(app).get("/me").json()["initiator"] == "nobody"


def test_overrides_of_something_else_leave_the_gateway_alone(model: Model) -> None:
    """An override of another dependency does not open the gateway."""
    app = model.app()
    app.dependency_overrides[current_user] = lambda: "fake"
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK).status_code == 401
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200
        assert initiators(client) == ["alice"]


def test_client_keys(model: Model) -> None:
    """Without a dependency the settings' client keys decide, in either header, and may be hashed."""
    digest = hashlib.sha256(b"k-carol").hexdigest()
    app = FastAPI()
    aibridge = model.bridge(settings=model.settings(client_keys={"alice": "k-alice", "carol": f"sha256:{digest}"}))
    app.include_router(aibridge.router, prefix="/ai")
    with TestClient(app) as client:
        for headers in (ALICE, {"X-Api-Key": "k-carol"}, {"X-AIBridge-Token": "k-carol"}):
            assert client.get("/ai/openai/v1/models", headers=headers).status_code == 200
        for headers in (
            {},
            bearer("k-alicf"),
            bearer(digest),
            bearer(f"sha256:{digest}"),
            {"Authorization": "k-alice"},
        ):
            assert client.get("/ai/openai/v1/models", headers=headers).status_code == 401


def test_a_dependency_that_returns_something_else_is_named(model: Model) -> None:
    """A dependency that does not return a `Principal` raises an error that names it."""

    async def principal() -> str:
        return "ann"

    with TestClient(model.app(principal)) as client:
        for path in ("/me", "/ai/openai/v1/models"):
            with pytest.raises(ConfigurationError, match="must return a Principal, not 'str'"):
                client.get(path)


def test_a_dependency_that_declares_a_body_is_refused(model: Model) -> None:
    """A dependency that declares a body is refused when the plugin is made: the body belongs to the provider."""

    async def principal(token: Annotated[str, Body()]) -> Principal:
        return by(token)

    async def below(one: Annotated[Principal, Depends(principal)]) -> Principal:
        return one

    for dependency in (principal, below):
        with pytest.raises(ConfigurationError, match="reads the request's body"):
            model.bridge(dependency)


def test_a_dependency_may_check_a_signature_of_the_body(model: Model) -> None:
    """A dependency can read the body, for instance to check a signature, and the provider still gets it."""

    async def principal(request: Request) -> Principal:
        signature = hmac.new(b"secret", await request.body(), "sha256").hexdigest()
        if not hmac.compare_digest(signature, request.headers.get("x-signature", "")):
            raise HTTPException(401, "the signature is wrong")
        return by("signer")

    body = b'{"model": "gpt-5",   "messages": []}'
    with TestClient(model.app(principal)) as client:
        signature = hmac.new(b"secret", body, "sha256").hexdigest()
        answer = client.post(CHAT, content=body, headers={"X-Signature": signature})
        assert answer.status_code == 200
        assert model.received[0].body == body
        assert client.post(CHAT, content=body, headers={"X-Signature": "?"}).status_code == 401


def test_errors_of_validation_have_the_providers_shape(model: Model) -> None:
    """The error for a missing header names it without values, in the provider's shape."""

    async def principal(x_tenant: Annotated[int, Header()]) -> Principal:
        return by(str(x_tenant))

    with TestClient(model.app(principal)) as client:
        answer = client.post(CHAT, json=ASK, headers={"X-Tenant": "s3cret"})
        assert answer.status_code == 422
        assert is_openai_error(answer.content)
        assert "x-tenant" in answer.json()["error"]["message"]
        assert "s3cret" not in answer.text
        assert client.get("/me").status_code == 422


def test_exceptions_of_starlette_and_subclasses_have_the_providers_shape(model: Model) -> None:
    """Starlette's `HTTPException` and subclasses are converted; on the app's own routes its handler responds."""

    class NotAMember(HTTPException):
        pass

    async def principal(x_how: Annotated[str, Header()]) -> Principal:
        if x_how == "starlette":
            raise StarletteHTTPException(402, "pay first")
        raise NotAMember(403, detail={"reason": "not a member"})

    app = model.app(principal)

    @app.exception_handler(NotAMember)
    async def handler(request: Request, error: Exception) -> Response:
        return Response("the app's own words", status_code=418)

    with TestClient(app) as client:
        answer = client.post(CHAT, json=ASK, headers={"X-How": "starlette"})
        assert (answer.status_code, answer.json()["error"]["message"]) == (402, "pay first")
        answer = client.post(CHAT, json=ASK, headers={"X-How": "subclass"})
        assert answer.status_code == 403
        assert "not a member" in answer.json()["error"]["message"]
        answer = client.get("/me", headers={"X-How": "subclass"})
        assert (answer.status_code, answer.text) == (418, "the app's own words")


def test_other_exceptions_reach_the_apps_handlers(model: Model) -> None:
    """An exception of the app is handled by the app's handler, on gateway routes too."""

    class LoggedOut(Exception):
        pass

    async def principal() -> Principal:
        raise LoggedOut

    app = model.app(principal)

    @app.exception_handler(LoggedOut)
    async def handler(request: Request, error: Exception) -> Response:
        return Response("log in", status_code=401)

    with TestClient(app) as client:
        for path in ("/me", "/ai/openai/v1/models"):
            answer = client.get(path)
            assert (answer.status_code, answer.text) == (401, "log in")


def test_background_tasks_of_the_principal_run(model: Model) -> None:
    """The dependency's background tasks run on gateway routes and in handlers."""
    done: list[str] = []

    async def principal(background: BackgroundTasks, request: Request) -> Principal:
        background.add_task(done.append, request.url.path)
        return by("ann")

    with TestClient(model.app(principal)) as client:
        client.get("/me")
        client.get("/ai/openai/v1/models")
    assert done == ["/me", "/ai/openai/v1/models"]


def test_the_principal_may_set_a_cookie_in_handlers(model: Model) -> None:
    """The dependency can set a cookie in the response of the app's own routes."""

    async def principal(response: Response, session: Annotated[str | None, Cookie()] = None) -> Principal:
        response.set_cookie("session", "renewed")
        return by("ann")

    with TestClient(model.app(principal)) as client:
        assert client.get("/me").cookies["session"] == "renewed"


def test_what_a_yielding_dependency_holds_is_let_go_after_the_answer(model: Model) -> None:
    """The part after `yield` runs once the whole response has been sent, on gateway routes too."""
    log: list[str] = []

    async def principal() -> AsyncIterator[Principal]:
        log.append("open")
        yield by("ann")
        log.append("closed")

    with TestClient(model.app(principal)) as client:
        for path in ("/me", "/ai/openai/v1/models"):
            assert client.get(path).status_code == 200
        assert log == ["open", "closed"] * 2


def test_context_variables_of_the_principal_do_not_stay_in_the_bridge(model: Model) -> None:
    """A bridge outlives the request that caused its build, and does not keep the request's context variables."""
    tenant = contextvars.ContextVar("tenant", default="none")

    async def principal(x_tenant: Annotated[str, Header()]) -> Principal:
        tenant.set(x_tenant)
        return by("ann")

    app = model.app(principal)

    @app.get("/tenant")
    async def seen(bridge: Annotated[Any, Depends(get_bridge)]) -> str:
        return tenant.get()

    with TestClient(app) as client:
        assert client.get("/tenant", headers={"X-Tenant": "a"}).json() == "a"
        assert client.get("/tenant", headers={"X-Tenant": "b"}).json() == "b"
        assert client.get("/ai/admin/pool", headers=ADMIN).json()["keys_added"] == 1


def test_users_and_keys_have_bridges_of_their_own(model: Model) -> None:
    """The pool's key is the pair of user and key, which cannot be confused whatever the names contain."""
    pairs = [("a", "b|c"), ("a|b", "c"), ("a", "b"), ("a", "")]

    async def principal(x_pair: Annotated[int, Header()]) -> Principal:
        return by(*pairs[x_pair])

    with TestClient(model.app(principal)) as client:
        for number, (initiator, key) in enumerate(pairs):
            answer = client.get("/me", headers={"X-Pair": str(number)})
            assert answer.json() == {"initiator": initiator, "key": key}
        assert client.get("/ai/admin/pool", headers=ADMIN).json()["size"] == len(pairs)


def test_no_settings_no_key_no_entry() -> None:
    """A gateway without client keys refuses every request."""
    app = FastAPI()
    app.include_router(AIBridge(Settings(recorder={"enabled": False})).router, prefix="/ai")
    with TestClient(app) as client:
        for headers in ({}, bearer(""), bearer("None"), {"X-Api-Key": ""}, {"X-AIBridge-Token": ""}):
            assert client.get("/ai/openai/v1/models", headers=headers).status_code == 401


# The principal of each request


async def from_headers(x_user_token: Annotated[str, Header()], x_shift: Annotated[str, Header()] = "") -> Principal:
    return Principal(x_user_token, metadata={"shift": x_shift} if x_shift else {})


def test_metadata_is_each_requests_own(model: Model) -> None:
    """Requests of one initiator are recorded with their own metadata, which handlers see too."""
    app = model.app(from_headers)

    @app.get("/shift")
    async def shift(bridge: Annotated[RequestBridge, Depends(get_bridge)]) -> dict[str, Any]:
        return dict(bridge.principal.metadata)

    with TestClient(app) as client:
        for name in ("day", "night", ""):
            headers = {"X-User-Token": "ann", "X-Shift": name}
            assert client.post(CHAT, json=ASK, headers=headers).status_code == 200
            assert client.get("/shift", headers=headers).json() == ({"shift": name} if name else {})
        items = client.get("/ai/admin/interceptions", headers=ADMIN).json()["items"]
        assert [item["metadata"] for item in items] == [{}, {"shift": "night"}, {"shift": "day"}]
        assert app.state.aibridge.pool.metrics().misses == 1


WRONG_PRINCIPALS: dict[str, Any] = {"None": None, "int": 5, "UUID": uuid.UUID(int=7), "bytes": b"x", "tuple": ("a",)}


@pytest.mark.parametrize("kind", WRONG_PRINCIPALS)
def test_an_id_that_is_no_text_is_refused_before_the_provider(model: Model, kind: str) -> None:
    """An id that is not text is a 500 in the provider's shape that says why; nothing is sent or recorded."""

    async def wrong() -> Principal:
        return Principal(WRONG_PRINCIPALS[kind])

    app = model.app(wrong)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post(CHAT, json=ASK)
        assert answer.status_code == 500
        assert is_openai_error(answer.content)
        assert f"initiator_id of a Principal must be a str, not {kind.replace('None', 'NoneType')}" in answer.text
        assert client.get("/me").status_code == 500
        assert initiators(client) == []
    assert model.received == []


@pytest.mark.parametrize("value", ["\ud800", "a\0", "x" * 600])
def test_an_id_that_the_caller_made_impossible_is_a_400(model: Model, value: str) -> None:
    """An invalid id that a caller can cause, for instance by a token, is a 400."""

    async def odd() -> Principal:
        return Principal(value)

    with TestClient(model.app(odd)) as client:
        answer = client.post(CHAT, json=ASK)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_principal")
        assert client.get("/me").status_code == 400
        assert initiators(client) == []
    assert model.received == []


# The key that pays


async def by_bearer(token: Annotated[HTTPAuthorizationCredentials, Security(HTTPBearer())]) -> Principal:
    return user_of(token.credentials)


async def by_hand(connection: HTTPConnection) -> Principal:
    return user_of(connection.headers["authorization"].removeprefix("Bearer "))


async def by_token_header(key: Annotated[str, Security(APIKeyHeader(name="X-AIBridge-Token"))]) -> Principal:
    return user_of(key)


async def by_either(
    key: Annotated[str | None, Security(APIKeyHeader(name="X-AIBridge-Token", auto_error=False))],
    token: Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))],
) -> Principal:
    try:
        return user_of(key)
    except HTTPException:
        return user_of(token.credentials if token else None)


@pytest.mark.parametrize("dependency", [by_bearer, by_hand, by_either])
@pytest.mark.parametrize("token", ["x", "t-ann"])
def test_the_apps_own_bearer_token_is_no_provider_key(model: Model, dependency: Any, token: str) -> None:
    """A bearer token that authenticates to the app is not sent to the provider, even beside `X-AIBridge-Token`."""
    headers = {"X-AIBridge-Token": token, "Authorization": "Bearer t-ann"}
    app = FastAPI()
    providers = {"openai": {"base_url": f"{model.url}/v1", "api_key": "sk-central-openai", "byok": True}}
    app.include_router(model.bridge(dependency, settings=model.settings(providers=providers)).router, prefix="/ai")
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=headers).status_code == 200
        app.dependency_overrides[current_user] = lambda: "somebody"  # makes FastAPI handle the request
        assert client.post(CHAT, json=ASK, headers=headers).status_code == 200
    for sent in model.received:
        assert sent.headers["authorization"] == "Bearer sk-central-openai"
        assert "t-ann" not in str(sent.headers)


def test_own_keys_beside_the_gateways_token(model: Model) -> None:
    """If the dependency authenticates by `X-AIBridge-Token`, `Authorization` is the caller's own provider key."""
    headers = {"X-AIBridge-Token": "t-ann", "Authorization": "Bearer sk-of-ann"}
    app = FastAPI()
    providers = {"openai": {"base_url": f"{model.url}/v1", "api_key": "sk-central-openai", "byok": True}}
    app.include_router(model.bridge(by_token_header, settings=model.settings(providers=providers)).router, prefix="/ai")
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=headers).status_code == 200
        assert model.received[-1].headers["authorization"] == "Bearer sk-of-ann"
        app.dependency_overrides[by_token_header] = lambda: by("tester")  # now the override determines the caller
        assert client.post(CHAT, json=ASK, headers=headers).status_code == 200
        assert model.received[-1].headers["authorization"] == "Bearer sk-central-openai"


def test_a_guards_bearer_token_is_no_provider_key(model: Model) -> None:
    """A bearer token that a guard around the router reads is not taken for the caller's own key."""
    app = FastAPI()
    providers = {"openai": {"base_url": f"{model.url}/v1", "api_key": "sk-central-openai", "byok": True}}
    router = model.bridge(settings=model.settings(providers=providers)).router
    app.include_router(router, prefix="/ai", dependencies=[Security(HTTPBearer())])
    headers = {"X-AIBridge-Token": "k-alice", "Authorization": "Bearer of-the-guard"}
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=headers).status_code == 200
        assert model.received[-1].headers["authorization"] == "Bearer sk-central-openai"


# Outside FastAPI's routes


def test_resolving_in_a_middleware_and_in_a_plain_route(model: Model) -> None:
    """`resolve_principal` works in middleware and plain routes; a dependency that yields is closed at once."""
    closed: list[str] = []

    async def principal(name: Annotated[str, Depends(current_user)]) -> AsyncIterator[Principal]:
        yield by(name)
        closed.append(name)

    app = model.app(principal)
    aibridge: AIBridge = app.state.aibridge

    @app.middleware("http")
    async def stamp(request: Request, call_next: Any) -> Response:
        who = await aibridge.resolve_principal(request)
        response: Response = await call_next(request)
        response.headers["x-who"] = who.initiator_id
        return response

    async def plain_route(request: Request) -> Response:
        return Response((await aibridge.resolve_principal(request)).initiator_id)

    app.router.routes.append(Route("/plain", plain_route))
    with TestClient(app) as client:
        headers = {"X-User-Token": "t-ben"}
        answer = client.get("/plain", headers=headers)
        assert (answer.text, answer.headers["x-who"]) == ("ben", "ben")
        assert client.post(CHAT, json=ASK, headers=headers).headers["x-who"] == "ben"
        assert closed == ["ben"] * 4
        app.dependency_overrides[current_user] = lambda: "fake"
        assert client.get("/plain").text == "fake"
