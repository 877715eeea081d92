"""All that this package knows of FastAPI's inside: how a route was included, what dependencies declare, how to solve
them.

Everything here holds for FastAPI 0.137 and later as far as CI has run it, and nothing is relied on: what a release
does not tell, or tells in another way, comes out as None, and callers take the slower or the stricter way.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from fastapi import BackgroundTasks, Request, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.security import SecurityScopes
from pydantic import AliasChoices, BaseModel
from starlette.background import BackgroundTasks as StarletteBackgroundTasks
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

INNER, FUNCTION = "fastapi_inner_astack", "fastapi_function_astack"
"""Where a scope holds the exit stacks of a request's dependencies."""


# How a route was included


@dataclass(frozen=True, slots=True)
class Inclusion:
    """How FastAPI came to a route: `dependant` holds its own dependencies and those of all routers above it."""

    key: object
    dependant: Dependant
    is_bare: bool
    """Whether no including router adds a dependency."""
    is_limited: bool
    """Whether an including router or the app limits the body's size."""


def route_key(scope: Scope) -> object | None:
    """What FastAPI tells of the inclusion, as one object for all requests that come the same way."""
    told = scope.get("fastapi")
    return told.get("effective_route_context") if isinstance(told, dict) else None


def inclusion(key: object | None) -> Inclusion | None:
    """None where FastAPI does not tell, or not all."""
    try:
        dependant, dependencies = key.dependant, key.dependencies  # type: ignore[union-attr]
        limit = getattr(key, "max_body_size", None) is not None
        if isinstance(dependant, Dependant) and isinstance(dependencies, list):
            return Inclusion(key, dependant, not dependencies, limit)
    except AttributeError:
        pass
    return None


def included_routers(app: object) -> Iterator[object] | None:
    """The routers that an app has included, at any depth. None where FastAPI does not tell."""
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
    """What dependencies read that is the app's business, and no provider's."""

    headers: frozenset[bytes]
    """In lower case, `authorization` for schemes that read it."""
    query: frozenset[str]


def declared(
    dependant: Dependant, secret: Callable[..., Any] | None = None, without: Callable[..., Any] | None = None
) -> Declared | None:
    """The headers that a dependency and all below it declare, and the keys of security schemes in the query.

    Of `secret` and all below it every query parameter counts: it has no other business than to tell who calls.
    `without` is left out, with all below it. None where FastAPI does not tell.
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
    """The query parameters that a request's route declares, those of its dependencies and of the app's included."""
    known = inclusion(route_key(scope))
    dependant = scope["route"].dependant if known is None else known.dependant
    schemes = declared(dependant)
    return frozenset(_query_names(dependant)) | (frozenset() if schemes is None else schemes.query)


def _query_names(dependant: Dependant) -> Iterator[str]:
    return (name for one in everything_below(dependant) for field in one.query_params for name in _names_of(field))


def everything_below(dependant: Dependant, without: Callable[..., Any] | None = None) -> Iterable[Dependant]:
    """The dependant itself and all of its dependencies, at any depth."""
    dependencies = [one for one in dependant.dependencies if without is None or one.call != without]
    return [dependant, *(inner for one in dependencies for inner in everything_below(one, without))]


def calls_below(dependant: Dependant, call: Callable[..., Any]) -> frozenset[Callable[..., Any]]:
    """All that a call which the dependant asks for asks for in turn, and the call itself."""
    found = (below.call for one in everything_below(dependant) if one.call == call for below in everything_below(one))
    return frozenset(one for one in found if one is not None)


def reads_body(dependant: Dependant) -> bool:
    return any(one.body_params for one in everything_below(dependant))


def _names_of(field: Any) -> Iterator[str]:
    """What a parameter is called in the request; one that is a model stands for its fields."""
    annotation = field.field_info.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, inner in annotation.model_fields.items():
            yield from _aliases(inner.alias or name, inner.validation_alias)
    else:
        yield from _aliases(field.alias, field.field_info.validation_alias)


def _aliases(alias: str, validation_alias: object) -> Iterator[str]:
    choices = validation_alias.choices if isinstance(validation_alias, AliasChoices) else [validation_alias]
    yield from (name for name in [alias, *choices] if isinstance(name, str))


# Solving dependencies


@asynccontextmanager
async def dependency_stacks(scope: Scope) -> AsyncIterator[AsyncExitStack]:
    """The exit stacks that FastAPI gives each request of its routes; the scope is as before when the block ends.

    The stack that the block gets is that of the function scope: close it before the response is sent.
    """
    before = {name: scope[name] for name in (INNER, FUNCTION) if name in scope}
    try:
        async with AsyncExitStack() as inner, AsyncExitStack() as function:
            scope[INNER], scope[FUNCTION] = inner, function
            yield function
    finally:
        for name in (INNER, FUNCTION):
            scope.pop(name, None)
        scope.update(before)


def has_stacks(scope: Scope) -> bool:
    return INNER in scope and FUNCTION in scope


@dataclass(frozen=True, slots=True)
class Solved:
    values: dict[str, Any]
    """What the dependencies gave, by the parameter that asks for them."""
    background_tasks: StarletteBackgroundTasks | None


class Solver:
    """Solves one dependant for many requests. Raises what dependencies raise, and FastAPI's validation errors."""

    def __init__(self, dependant: Dependant) -> None:
        self._dependant = dependant
        self._plan = _planned(dependant)

    @property
    def is_planned(self) -> bool:
        return self._plan is not None

    async def quick(self, request: Request) -> Solved | None:
        """Solve without overrides and exit stacks. None, before anything has been called, where it takes FastAPI."""
        return None if self._plan is None else await self._plan.run(request)

    async def by_fastapi(
        self,
        connection: HTTPConnection,
        response: Response | None = None,
        background_tasks: StarletteBackgroundTasks | None = None,
    ) -> Solved:
        """Solve as FastAPI does, within `dependency_stacks` or a route of FastAPI's."""
        app = connection.scope.get("app")
        solved = await solve_dependencies(
            request=cast("Request | WebSocket", connection),
            dependant=self._dependant,
            response=response,
            background_tasks=background_tasks,
            dependency_overrides_provider=app if overrides(app) else None,
            async_exit_stack=connection.scope[INNER],
            embed_body_fields=False,
        )
        if solved.errors:
            kind = (
                WebSocketRequestValidationError if connection.scope["type"] == "websocket" else RequestValidationError
            )
            raise kind(solved.errors)
        return Solved(solved.values, solved.background_tasks)


def dependant_of(call: Callable[..., Any]) -> Dependant:
    return get_dependant(path="/", call=call)


# Plans: what FastAPI would do for dependencies that are functions and ask for nothing but headers, each other, and the
# request. FastAPI finds that out anew for each request, which takes longer than all the rest of its work.

_KNOWN = frozenset(
    {
        "background_tasks_param_name",
        "body_params",
        "call",
        "cookie_params",
        "dependencies",
        "header_params",
        "http_connection_param_name",
        "name",
        "own_oauth_scopes",
        "parent_oauth_scopes",
        "path",
        "path_params",
        "query_params",
        "request_param_name",
        "response_param_name",
        "scope",
        "security_scopes_param_name",
        "use_cache",
        "websocket_param_name",
    }
)
"""The fields of a `Dependant` that plans understand. Another field that is set makes FastAPI solve it."""


class _NoPlan(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    key: str
    default: Any
    is_required: bool


@dataclass(slots=True)
class _Step:
    call: Callable[..., Any]
    is_coroutine: bool
    results: tuple[tuple[str, int], ...]
    headers: tuple[_Parameter, ...]
    connection: tuple[str, ...]
    response: str | None
    background_tasks: str | None
    security_scopes: str | None
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    steps: tuple[_Step, ...]
    results: tuple[tuple[str, int], ...]
    required: tuple[str, ...]

    async def run(self, request: Request) -> Solved | None:
        headers = request.headers
        for name in self.required:
            if name not in headers:
                return None  # FastAPI knows how to say so
        response: Response | None = None
        tasks: BackgroundTasks | None = None
        solved: list[Any] = []
        for step in self.steps:
            values: dict[str, Any] = {name: solved[index] for name, index in step.results}
            for parameter in step.headers:
                values[parameter.name] = headers.get(parameter.key, parameter.default)
            for name in step.connection:
                values[name] = request
            if step.response is not None:
                response = values[step.response] = response or _empty_response()
            if step.background_tasks is not None:
                tasks = values[step.background_tasks] = tasks or BackgroundTasks()
            if step.security_scopes is not None:
                values[step.security_scopes] = SecurityScopes(scopes=list(step.scopes))
            if step.is_coroutine:
                solved.append(await step.call(**values))
            else:
                solved.append(await run_in_threadpool(step.call, **values))
        return Solved({name: solved[index] for name, index in self.results}, tasks)


def _empty_response() -> Response:
    response = Response()
    del response.headers["content-length"]
    response.status_code = None  # type: ignore[assignment] # as FastAPI does
    return response


def _planned(dependant: Dependant) -> _Plan | None:
    steps: list[_Step] = []
    known: dict[tuple[object, object], tuple[int, tuple[str, ...]]] = {}
    try:
        _check_fields(dependant)
        if any((dependant.header_params, dependant.query_params, dependant.cookie_params, dependant.path_params)):
            return None
        results = _add_steps(dependant, steps, known)
    except (_NoPlan, AttributeError, TypeError):
        return None
    required = {one.key for step in steps for one in step.headers if one.is_required}
    return _Plan(tuple(steps), results, tuple(sorted(required)))


def _add_steps(
    dependant: Dependant, steps: list[_Step], known: dict[tuple[object, object], tuple[int, tuple[str, ...]]]
) -> tuple[tuple[str, int], ...]:
    """Add what the dependencies need, in FastAPI's order; returns which step answers which parameter."""
    results: list[tuple[str, int]] = []
    for one in dependant.dependencies:
        _check_fields(one)
        key = (one.call, one.scope)
        scopes = tuple(dict.fromkeys([*(one.parent_oauth_scopes or ()), *(one.own_oauth_scopes or ())]))
        found = known.get(key)
        if found is None:
            below = _add_steps(one, steps, known)
            steps.append(_step(one, below, scopes))
            found = known[key] = (len(steps) - 1, scopes)
        elif not one.use_cache or found[1] != scopes:
            raise _NoPlan
        if not one.use_cache and _stands_often(one, dependant):
            raise _NoPlan
        if one.name is not None:
            results.append((one.name, found[0]))
    return tuple(results)


def _stands_often(one: Dependant, dependant: Dependant) -> bool:
    return sum(other.call is one.call for other in everything_below(dependant)) > 1


def _step(one: Dependant, below: tuple[tuple[str, int], ...], scopes: tuple[str, ...]) -> _Step:
    if one.path_params or one.query_params or one.cookie_params or one.body_params or one.websocket_param_name:
        raise _NoPlan
    call = cast("Callable[..., Any]", one.call)
    names = (one.http_connection_param_name, one.request_param_name)
    return _Step(
        call=call,
        is_coroutine=_is_coroutine(call),
        results=below,
        headers=tuple(_parameter(field) for field in one.header_params),
        connection=tuple(name for name in names if name is not None),
        response=one.response_param_name,
        background_tasks=one.background_tasks_param_name,
        security_scopes=one.security_scopes_param_name,
        scopes=scopes,
    )


def _parameter(field: Any) -> _Parameter:
    """A header that is any text. Raises `_NoPlan` for one that pydantic has to look at."""
    info = field.field_info
    is_text = info.annotation is str or info.annotation == (str | None)
    aliases = {info.alias, info.validation_alias} - {None}
    default = None if info.is_required() else info.default
    if (
        not is_text
        or info.metadata
        or info.default_factory is not None
        or info.validate_default
        or not (default is None or type(default) is str)
        or not aliases <= {field.alias}
        or getattr(field, "config", None)
    ):
        raise _NoPlan
    return _Parameter(field.name, field.alias, default, info.is_required())


def _is_coroutine(call: Callable[..., Any]) -> bool:
    """Whether a dependency is to be awaited; False: a plain function for a thread. Raises `_NoPlan` for all else."""
    if inspect.unwrap(call) is not call:
        raise _NoPlan
    function = call if inspect.isfunction(call) or inspect.ismethod(call) else type(call).__call__
    if not (inspect.isfunction(function) or inspect.ismethod(function)) or inspect.isclass(call):
        raise _NoPlan
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _NoPlan
    if inspect.iscoroutinefunction(function):
        return True
    if hasattr(function, "_is_coroutine") or hasattr(function, "_is_coroutine_marker"):
        raise _NoPlan
    return False


def _check_fields(dependant: Dependant) -> None:
    for field in dataclasses.fields(dependant):
        if field.name not in _KNOWN and getattr(dependant, field.name) != field.default:
            raise _NoPlan
