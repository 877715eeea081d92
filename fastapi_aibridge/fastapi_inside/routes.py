"""Tells how a route was included, and which headers and parameters its dependencies declare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from fastapi.dependencies.models import Dependant
from pydantic import AliasChoices, BaseModel
from starlette.types import Scope


@dataclass(frozen=True, slots=True)
class Inclusion:
    """How a route was included: `dependant` has the dependencies of the route and of all routers above it."""

    key: object
    dependant: Dependant
    is_bare: bool
    """Whether none of the including routers adds a dependency."""
    is_limited: bool
    """Whether an including router or the app limits the size of request bodies."""


def route_key(scope: Scope) -> object | None:
    """Return FastAPI's object for the inclusion, the same one for all requests through it; None if it has none."""
    told = scope.get("fastapi")
    return told.get("effective_route_context") if isinstance(told, dict) else None


def inclusion(key: object | None) -> Inclusion | None:
    """Return the inclusion of a `route_key`, None if FastAPI does not tell everything about it."""
    try:
        dependant, dependencies = key.dependant, key.dependencies  # type: ignore[union-attr]
        limit = getattr(key, "max_body_size", None) is not None
        if isinstance(dependant, Dependant) and isinstance(dependencies, list):
            return Inclusion(key, dependant, not dependencies, limit)
    except AttributeError:
        pass
    return None


def included_routers(app: object) -> Iterator[object] | None:
    """Return the routers that an app has included, at any depth; None if FastAPI does not tell."""
    routes = getattr(getattr(app, "router", None), "routes", None)
    return None if routes is None else _routers_below(routes, set())


def _routers_below(routes: Iterable[object], seen: set[int]) -> Iterator[object]:
    for route in routes:
        router = getattr(route, "original_router", None)
        if router is not None and id(router) not in seen:
            seen.add(id(router))
            yield router
            yield from _routers_below(getattr(router, "routes", ()), seen)


def overrides(app: object) -> dict[Callable[..., Any], Callable[..., Any]]:
    found = getattr(app, "dependency_overrides", None)
    return found if isinstance(found, dict) else {}


# What dependencies declare


@dataclass(frozen=True, slots=True)
class Declared:
    """The headers and query parameters that dependencies read, which are meant for the app and not for providers."""

    headers: frozenset[bytes]
    """Names in lower case; `authorization` for security schemes that read it."""
    query: frozenset[str]


def declared(
    dependant: Dependant, secret: Callable[..., Any] | None = None, without: Callable[..., Any] | None = None
) -> Declared | None:
    """Return the headers that a dependency and all below it declare, and the query parameters of security schemes.

    For `secret` and all below it every query parameter is included, because that dependency only authenticates.
    `without` and all below it are left out. Returns None if FastAPI does not tell.
    """
    headers: set[str] = set()
    query: set[str] = set()
    try:
        for one in everything_below(dependant, without):
            names = [name for field in one.header_params for name in _names_of(field)]
            headers.update(name.replace("_", "-") for name in names)
            headers.update(names)
            scheme = getattr(one.call, "model", None)
            if (place := getattr(getattr(scheme, "in_", None), "value", None)) is not None:
                {"header": headers, "query": query}.get(place, set()).add(cast("Any", scheme).name)
            elif getattr(scheme, "type_", None) is not None:
                headers.add("authorization")
            if secret is not None and one.call == secret:
                query.update(_query_names(one))
    except AttributeError:
        return None
    return Declared(frozenset(name.lower().encode("latin-1", "replace") for name in headers), frozenset(query))


def query_names(scope: Scope) -> frozenset[str]:
    """Return the query parameters that a request's route declares, including all its dependencies."""
    known = inclusion(route_key(scope))
    dependant = scope["route"].dependant if known is None else known.dependant
    schemes = declared(dependant)
    return frozenset(_query_names(dependant)) | (frozenset() if schemes is None else schemes.query)


def _query_names(dependant: Dependant) -> Iterator[str]:
    return (name for one in everything_below(dependant) for field in one.query_params for name in _names_of(field))


def everything_below(dependant: Dependant, without: Callable[..., Any] | None = None) -> Iterable[Dependant]:
    """Return the dependant itself and all of its dependencies, at any depth."""
    dependencies = [one for one in dependant.dependencies if without is None or one.call != without]
    return [dependant, *(inner for one in dependencies for inner in everything_below(one, without))]


def calls_below(dependant: Dependant, call: Callable[..., Any]) -> frozenset[Callable[..., Any]]:
    """Return a dependency's call and the calls of all its own dependencies, wherever it occurs below the dependant."""
    found = (below.call for one in everything_below(dependant) if one.call == call for below in everything_below(one))
    return frozenset(one for one in found if one is not None)


def reads_body(dependant: Dependant) -> bool:
    return any(one.body_params for one in everything_below(dependant))


def _names_of(field: Any) -> Iterator[str]:
    """Yield a parameter's names in the request; for a model, the names of its fields."""
    annotation = field.field_info.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, inner in annotation.model_fields.items():
            yield from _aliases(inner.alias or name, inner.validation_alias)
    else:
        yield from _aliases(field.alias, field.field_info.validation_alias)


def _aliases(alias: str, validation_alias: object) -> Iterator[str]:
    choices = validation_alias.choices if isinstance(validation_alias, AliasChoices) else [validation_alias]
    yield from (name for name in [alias, *choices] if isinstance(name, str))
