"""The app's OpenAPI document describes the authentication and the types of its routes."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Security
from fastapi.security import APIKeyCookie, HTTPBasic, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from fastapi.testclient import TestClient

from fastapi_aibridge import Principal, get_bridge

from .apps import ALICE, Model

oauth = OAuth2PasswordBearer("token", scopes={"ask": "ask models"})


async def by_scheme(token: Annotated[str, Depends(oauth)]) -> Principal:
    return Principal(token)


async def by_scopes(scopes: SecurityScopes, token: Annotated[str, Security(oauth, scopes=["ask"])]) -> Principal:
    return Principal(token)


async def by_session(session: Annotated[str, Depends(APIKeyCookie(name="session"))]) -> Principal:
    return Principal(session)


async def by_header(
    x_user: Annotated[str, Header()], tenant: str = "", session: Annotated[str, Cookie()] = ""
) -> Principal:
    return Principal(x_user)


async def by_either(
    a: Annotated[Any, Depends(HTTPBasic(auto_error=False))], b: Annotated[Any, Depends(HTTPBearer(auto_error=False))]
) -> Principal:
    return Principal("a")


def document(app: FastAPI) -> dict[str, Any]:
    with TestClient(app) as client:
        whole: dict[str, Any] = client.get("/openapi.json").json()
        assert client.get("/openapi.json").json() == whole
    return whole


def test_client_keys(model: Model) -> None:
    """Client keys have a scheme for either header, the admin routes have their own, and all references resolve."""
    whole = document(model.app())
    assert whole["paths"]["/me"]["get"]["security"] == [{"AIBridgeClientKey": []}, {"AIBridgeClientKeyHeader": []}]
    assert whole["paths"]["/ai/me/usage"]["get"]["security"] == whole["paths"]["/me"]["get"]["security"]
    schemes = whole["components"]["securitySchemes"]
    assert (schemes["AIBridgeClientKey"]["type"], schemes["AIBridgeClientKey"]["scheme"]) == ("http", "bearer")
    header = schemes["AIBridgeClientKeyHeader"]
    assert (header["type"], header["in"], header["name"]) == ("apiKey", "header", "X-Api-Key")
    for path, operations in whole["paths"].items():
        if "/admin/" in path:
            for operation in operations.values():
                assert operation["security"] == [{"AIBridgeAdminToken": []}]
    assert schemes["AIBridgeAdminToken"]["scheme"] == "bearer"
    assert set(schemes) == {"AIBridgeClientKey", "AIBridgeClientKeyHeader", "AIBridgeAdminToken"}


@pytest.mark.parametrize(
    ("principal", "security"),
    [
        (by_scheme, [{"OAuth2PasswordBearer": []}]),
        (by_scopes, [{"OAuth2PasswordBearer": ["ask"]}]),
        (by_session, [{"APIKeyCookie": []}]),
        (by_either, [{"HTTPBasic": []}, {"HTTPBearer": []}]),
    ],
)
def test_the_apps_own_dependency(model: Model, principal: Any, security: list[Any]) -> None:
    """The schemes of the app's own dependency replace the built-in ones on each route with a bridge."""
    whole = document(model.app(principal))
    for path in ("/me", "/ai/me/interceptions"):
        assert whole["paths"][path]["get"]["security"] == security
    schemes = whole["components"]["securitySchemes"]
    assert set(schemes) == {"AIBridgeAdminToken", *(name for one in security for name in one)}


def test_answers_have_their_types(model: Model) -> None:
    """Content types and schemas match the responses: JSON has a schema, and other types are not shown as JSON."""
    for path, operations in document(model.app())["paths"].items():
        for operation in operations.values() if path.startswith("/ai/") else ():
            for answer in operation["responses"].values():
                for kind, content in answer.get("content", {}).items():
                    assert ("schema" in content and content["schema"] != {}) is (kind == "application/json"), path


def test_parameters_of_the_apps_own_dependency(model: Model) -> None:
    """The headers that the principal dependency reads appear as parameters."""
    operation = document(model.app(by_header))["paths"]["/me"]["get"]
    told = {(one["in"], one["name"], one["required"]) for one in operation["parameters"]}
    assert told == {("header", "x-user", True), ("query", "tenant", False), ("cookie", "session", False)}
    assert "security" not in operation


def test_a_route_with_schemes_and_parameters_of_its_own(model: Model) -> None:
    """A route's own schemes and parameters stay, and nothing is listed twice."""
    app = model.app(by_header)

    @app.get("/own/{name}", dependencies=[Security(HTTPBasic())])
    async def own(name: str, bridge: Any = Depends(get_bridge), x_user: Annotated[str, Header()] = "") -> None: ...

    operation = document(app)["paths"]["/own/{name}"]["get"]
    assert operation["security"] == [{"HTTPBasic": []}]
    names = sorted(one["name"] for one in operation["parameters"])
    assert names == ["name", "session", "tenant", "x-user"]


def test_other_routes_are_not_touched(model: Model) -> None:
    """Routes without a bridge are unchanged, and the app's own `openapi` function is kept."""
    app = model.app(by_scheme)

    @app.get("/public")
    async def public() -> None: ...

    made = app.openapi

    def titled() -> dict[str, Any]:
        return {**made(), "x-mine": True}

    app.openapi = titled  # type: ignore[method-assign]
    whole = document(app)
    assert whole["x-mine"]
    assert "security" not in whole["paths"]["/public"]["get"]
    assert app.openapi is titled


def test_before_the_start(model: Model) -> None:
    """The document shows the credential even if the app does not run."""
    assert model.app().openapi()["paths"]["/me"]["get"]["security"] == [{"AIBridgeClientKey": []}]


def test_the_mark_costs_no_caller_anything(model: Model) -> None:
    """The dependency that documents the credential checks nothing by itself."""
    with TestClient(model.app()) as client:
        assert client.get("/me", headers={"X-Api-Key": "k-alice"}).status_code == 200
        assert client.get("/me", headers=ALICE).status_code == 200
        assert client.get("/me").status_code == 401
