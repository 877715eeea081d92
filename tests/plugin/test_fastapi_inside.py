"""The only module that depends on FastAPI's internals: it behaves like FastAPI, and fails safely if they change."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Header, Query, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from fastapi.testclient import TestClient
from pydantic import AliasChoices
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from fastapi_aibridge import fastapi_inside
from fastapi_aibridge.fastapi_inside import Solver, declared, dependant_of, dependency_stacks, included_routers, plans

from .apps import ALICE, ASK, CHAT, Model, by

pytestmark = pytest.mark.anyio

calls: list[str] = []


async def user(x_user: str = Header()) -> str:
    calls.append("user")
    return x_user


async def optional(x_team: str | None = Header(None), x_kind: str = Header("plain")) -> tuple[str | None, str]:
    return x_team, x_kind


async def nested(name: str = Depends(user), again: str = Depends(user), team: Any = Depends(optional)) -> Any:
    return name, again, team


def in_a_thread(connection: HTTPConnection, name: str = Depends(user)) -> Any:
    return connection.headers["x-user"], name


async def with_objects(request: Request, response: Response, tasks: BackgroundTasks, name: str = Depends(user)) -> Any:
    response.headers["x-seen"] = name
    tasks.add_task(calls.append, f"later {name}")
    return request.url.path, name


async def scoped(scopes: SecurityScopes, key: str | None = Depends(HTTPBearer(auto_error=False))) -> Any:
    return list(scopes.scopes), getattr(key, "credentials", None)


async def needs_scopes(one: Annotated[Any, Security(scoped, scopes=["a", "b"])]) -> Any:
    return one


class Callable:
    async def __call__(self, x_user: str = Header()) -> str:
        return f"object {x_user}"


class Resource:
    def __init__(self, x_user: str = Header()) -> None:
        self.name = x_user

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Resource) and other.name == self.name

    __hash__ = None  # type: ignore[assignment]


async def yielding(name: str = Depends(user)) -> AsyncIterator[str]:
    yield name
    calls.append("closed")


async def uncached(one: str = Depends(user), two: str = Depends(user, use_cache=False)) -> Any:
    return one, two


async def converted(x_number: int = Header(7)) -> int:
    return x_number


async def constrained(x_user: str = Header(min_length=2)) -> str:
    return x_user


async def listed(x_user: Annotated[list[str], Header()]) -> list[str]:
    return x_user


async def queried(q: str = Query("none")) -> str:
    return q


async def aliased(who: str = Header(alias="X-User")) -> str:
    return who


async def with_choices(who: str = Header("?", validation_alias=AliasChoices("x-user", "x-other"))) -> str:
    return who


async def keyed(key: str = Security(APIKeyHeader(name="X-User"))) -> str:
    return key


async def underscored(x_user: str = Header("?", convert_underscores=False)) -> str:
    return x_user


PLANNED = [user, optional, nested, in_a_thread, with_objects, needs_scopes, Callable(), aliased, keyed, underscored]
LEFT_TO_FASTAPI = [Resource, yielding, uncached, converted, constrained, listed, queried, with_choices]


def asking(dependency: Any) -> Any:
    def ask(answer: object = Depends(dependency)) -> None: ...

    return dependant_of(ask)


def request_with(headers: dict[str, str]) -> Request:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {"type": "http", "method": "GET", "path": "/p", "query_string": b"", "headers": raw, "path_params": {}}
    )


async def outcome(solver: Solver, headers: dict[str, str], *, quick: bool) -> Any:
    """The result or error of the dependency, and the calls that it and its background tasks made."""
    calls.clear()
    request = request_with(headers)
    try:
        if quick:
            solved = await solver.quick(request)
            if solved is None:
                return None
        else:
            async with dependency_stacks(request.scope):
                solved = await solver.by_fastapi(request)
    except HTTPException as error:
        return error.status_code, error.detail, list(calls)
    if solved.background_tasks is not None:
        await solved.background_tasks()
    return solved.values, list(calls)


HEADERS = [
    {"X-User": "ann", "X-Team": "t"},
    {"X-User": ""},
    {"X-User": "ann", "Authorization": "Bearer k"},
    {"x_user": "u"},
]


@pytest.mark.parametrize("dependency", PLANNED, ids=lambda one: getattr(one, "__name__", "object"))
async def test_plans_do_as_fastapi_does(dependency: Any) -> None:
    """A dependency that needs only headers and objects is solved without FastAPI, with the same result."""
    solver = Solver(asking(dependency))
    assert solver.is_planned
    for headers in HEADERS:
        quick = await outcome(solver, headers, quick=True)
        if quick is None:
            assert calls == []
        else:
            assert quick == await outcome(solver, headers, quick=False)


@pytest.mark.parametrize("dependency", LEFT_TO_FASTAPI, ids=lambda one: getattr(one, "__name__", "object"))
async def test_all_else_is_left_to_fastapi(dependency: Any) -> None:
    """A dependency that needs validation, conversion, closing or repetition has no plan."""
    solver = Solver(asking(dependency))
    assert not solver.is_planned
    assert await solver.quick(request_with(HEADERS[0])) is None


async def test_a_field_that_is_not_known_makes_no_plan() -> None:
    """An unknown field of a dependant, from a later release of FastAPI, leaves the dependency to FastAPI."""
    dependant = asking(user)
    known = plans._KNOWN
    names = {field.name for field in dataclasses.fields(dependant)}
    assert known <= names
    unknown = type(dependant)()
    for name in names:
        setattr(unknown, name, getattr(dependant, name))
    assert Solver(unknown).is_planned
    if "concurrency" in names:
        unknown.dependencies[0].concurrency = object()
        assert not Solver(unknown).is_planned


async def test_stacks_leave_the_scope_as_it_was() -> None:
    """After a resolution the request's scope has its former exit stacks again."""
    scope: dict[str, Any] = {"fastapi_inner_astack": "before"}
    async with dependency_stacks(scope):
        assert scope["fastapi_inner_astack"] != "before"
    assert scope == {"fastapi_inner_astack": "before"}


TOKEN_SCHEME = OAuth2PasswordBearer("/token")


def test_all_names_of_a_header_are_declared() -> None:
    """A header is held back under all names by which it is declared, including `Authorization` of security schemes."""

    async def reads(
        one: str = Header(validation_alias=AliasChoices("x-one", "X-Uno")),
        two_words: str = Header(),
        three: Any = Depends(TOKEN_SCHEME),
        four: str = Depends(APIKeyHeader(name="X-Four")),
    ) -> None: ...

    found = declared(asking(reads))
    assert found is not None
    assert found.headers >= {b"x-one", b"x-uno", b"two-words", b"authorization", b"x-four"}


def test_included_routers_are_found_at_any_depth(model: Model) -> None:
    """The routers of an app are found at any depth of inclusion."""
    aibridge = model.bridge()
    inner, app = FastAPI(), FastAPI()
    inner.include_router(aibridge.router)
    app.include_router(inner.router)
    found = included_routers(app)
    assert found is not None
    assert any(router is aibridge.router for router in found)


# Hidden internals

SECRET = "s3cret-of-the-app"


async def guard(x_guard: str = Header()) -> None:
    if x_guard != SECRET:
        raise HTTPException(403)


async def own(x_user: str = Header()) -> Any:
    return by(x_user)


class Without:
    """FastAPI's route key without some of its attributes."""

    def __init__(self, told: Any, hidden: set[str]) -> None:
        self._told = told
        self._hidden = hidden

    def __getattr__(self, name: str) -> Any:
        if name in self._hidden:
            raise AttributeError(name)
        return getattr(self._told, name)


@pytest.mark.parametrize("hidden", [{"dependant"}, {"dependencies"}, {"dependant", "dependencies"}, None])
@pytest.mark.parametrize("principal", [None, own], ids=["built-in", "own"])
def test_what_fastapi_hides_goes_to_nobody(
    model: Model, monkeypatch: pytest.MonkeyPatch, hidden: set[str] | None, principal: Any
) -> None:
    """If FastAPI hides which headers dependencies read, the guard still works and no secret is sent upstream."""
    real = fastapi_inside.route_key
    shown: dict[int, Any] = {}

    def told(scope: Any) -> Any:
        key = real(scope)
        if hidden is None or key is None:
            return None
        return shown.setdefault(id(key), Without(key, hidden))

    for module in ("fastapi_inside.routes", "routers.gateway"):
        monkeypatch.setattr(f"fastapi_aibridge.{module}.route_key", told)
    app = model.app(principal, include={"dependencies": [Depends(guard)]})
    headers = {**ALICE, "X-User": "ann", "X-Guard": SECRET, "Anthropic-Beta": "b"}
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers={**headers, "X-Guard": "no"}).status_code == 403
        for token in ({}, {"X-AIBridge-Token": "k-alice"}):
            answer = client.post(f"{CHAT}?x_guard={SECRET}", json=ASK, headers={**headers, **token})
            assert answer.status_code == 200
            sent = model.received[-1]
            assert SECRET not in str((sent.headers, sent.query))
            assert "k-alice" not in str(sent.headers)
            assert sent.headers["authorization"] == "Bearer sk-central-openai"
            assert sent.headers["anthropic-beta"] == "b"


def test_a_dependant_that_is_spelled_anew_is_refused_at_the_start(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the headers of the app's own principal cannot be found out, the plugin cannot be created."""
    monkeypatch.setattr("fastapi_aibridge.fastapi_inside.principal_dependency.declared", lambda *_: None)
    with pytest.raises(Exception, match="does not tell which headers"):
        model.bridge(own)


def test_the_direct_way_is_taken(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateway requests bypass FastAPI's handling, with the built-in principal and with the app's own."""

    async def never(*_: Any) -> None:
        raise AssertionError("the slow way")

    for principal in (None, own):
        app = model.app(principal)
        with TestClient(app) as client, monkeypatch.context() as patched:
            patched.setattr(APIRoute, "handle", never)
            assert client.post(CHAT, json=ASK, headers={**ALICE, "X-User": "ann"}).status_code == 200
