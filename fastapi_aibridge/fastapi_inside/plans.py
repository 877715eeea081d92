"""Plans: precomputed steps that solve dependencies as FastAPI would, for functions that take only headers, each other's
results and the request. FastAPI works this out anew for each request, which takes longer than the rest of its work.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from fastapi import BackgroundTasks, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.models import Dependant
from fastapi.security import SecurityScopes
from starlette.background import BackgroundTasks as StarletteBackgroundTasks
from starlette.responses import Response

from .routes import everything_below

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
"""The fields of a `Dependant` that plans understand. If another field is set, FastAPI has to solve it."""


@dataclass(frozen=True, slots=True)
class Solved:
    values: dict[str, Any]
    """The dependencies' results, by the name of the parameter that takes each."""
    background_tasks: StarletteBackgroundTasks | None


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
class Plan:
    steps: tuple[_Step, ...]
    results: tuple[tuple[str, int], ...]
    required: tuple[str, ...]

    async def run(self, request: Request) -> Solved | None:
        headers = request.headers
        for name in self.required:
            if name not in headers:
                return None  # FastAPI makes the error
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


def planned(dependant: Dependant) -> Plan | None:
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
    return Plan(tuple(steps), results, tuple(sorted(required)))


def _add_steps(
    dependant: Dependant, steps: list[_Step], known: dict[tuple[object, object], tuple[int, tuple[str, ...]]]
) -> tuple[tuple[str, int], ...]:
    """Add the steps of the dependencies, in FastAPI's order. Return each parameter with the index of its step."""
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
    """Describe a header that takes any text. Raises `_NoPlan` for one that pydantic has to validate."""
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
    """Whether a dependency is awaited, rather than run in a thread. Raises `_NoPlan` for anything but functions."""
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
