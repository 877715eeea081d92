"""The app's OpenAPI document, extended by how callers of routes with `Depends(get_bridge)` authenticate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

Document = dict[str, Any]

_BEARER, _HEADER = "AIBridgeClientKey", "AIBridgeClientKeyHeader"
_OPERATIONS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


class CallerScheme(SecurityBase):
    """Marks the routes whose caller has a bridge. It checks nothing: the bridge's resolver does."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(description="the client key that the gateway knows the caller by")
        self.scheme_name = _BEARER

    async def __call__(self) -> None:
        return None


@contextmanager
def described(app: object, principal: Callable[..., Any] | None) -> Iterator[None]:
    """Make the app's OpenAPI document say how its callers authenticate, while the block runs.

    `principal` is the app's own dependency, whose security schemes and parameters are shown; None means client keys.
    """
    if not isinstance(app, FastAPI):
        yield
        return
    original = app.openapi

    def openapi() -> Document:
        document = original()
        _describe(document, _client_keys() if principal is None else _declared(principal))
        return document

    # FastAPI documents this way to extend the document.
    app.openapi = openapi  # type: ignore[method-assign]
    try:
        yield
    finally:
        if app.openapi is openapi:
            app.openapi = original  # type: ignore[method-assign]


def _client_keys() -> Document:
    header = {
        "type": "apiKey",
        "in": "header",
        "name": "X-Api-Key",
        "description": "the same, as Anthropic's SDKs send it",
    }
    return {"security": [{_BEARER: []}, {_HEADER: []}], "components": {"securitySchemes": {_HEADER: header}}}


def _declared(principal: Callable[..., Any]) -> Document:
    """Return what FastAPI's document says of a route that has only this dependency."""
    probe = FastAPI()

    @probe.get("/")
    async def ask(caller: object = Depends(principal)) -> None: ...

    document = probe.openapi()
    operation = document["paths"]["/"]["get"]
    return {
        "security": operation.get("security", []),
        "parameters": [one for one in operation.get("parameters", []) if one["in"] != "path"],
        "components": document.get("components", {}),
    }


def _describe(document: Document, told: Document) -> None:
    marked = [
        operation
        for path in document.get("paths", {}).values()
        for method, operation in path.items()
        if method in _OPERATIONS and {_BEARER: []} in operation.get("security", [])
    ]
    if not marked:
        return
    components = document.setdefault("components", {})
    for operation in marked:
        others = [one for one in operation["security"] if one != {_BEARER: []}]
        operation["security"] = [*told["security"], *(one for one in others if one not in told["security"])]
        parameters = operation.setdefault("parameters", [])
        known = {(one.get("in"), one.get("name")) for one in parameters}
        parameters += [one for one in told.get("parameters", []) if (one["in"], one["name"]) not in known]
        for name in ("security", "parameters"):
            if not operation[name]:
                del operation[name]
    for kind, named in told["components"].items():
        section = components.setdefault(kind, {})
        for name, one in named.items():
            section.setdefault(name, one)
    if {_BEARER: []} not in told["security"]:
        components["securitySchemes"].pop(_BEARER, None)
