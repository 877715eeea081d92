"""The app's principal dependency, resolved where FastAPI could not know of it when the route was declared.

The one place that calls FastAPI's own dependency machinery; CI runs it against the oldest and the newest FastAPI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from fastapi import Depends, Request, WebSocket
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from pydantic import BaseModel
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from .errors import ConfigurationError
from .principal import Principal


class PrincipalResolver:
    """Asks a dependency who calls, its sub-dependencies, security schemes and overrides included."""

    def __init__(self, dependency: Callable[..., Any]) -> None:
        def ask(principal: object = Depends(dependency)) -> None: ...

        self.dependency = dependency
        self._dependant = get_dependant(path="/", call=ask)
        if any(dependant.body_params for dependant in _all(self._dependant)):
            raise ConfigurationError(
                f"the principal dependency {dependency!r} reads the request's body; it must make do with headers, "
                "cookies, path and query, because the body belongs to the provider"
            )

    @property
    def header_names(self) -> frozenset[bytes]:
        """The headers that the dependency declares: they authenticate to the app, so they never go upstream."""
        return declared(self._dependant).headers

    async def __call__(
        self,
        connection: HTTPConnection,
        response: Response | None = None,
        background_tasks: BackgroundTasks | None = None,
    ) -> Principal:
        """Who calls. Raises what the dependency raises, and FastAPI's validation errors.

        `response` takes the headers that the dependency sets, `background_tasks` what it wants to be done later.
        """
        solved = await solve_dependencies(
            request=cast("Request | WebSocket", connection),
            dependant=self._dependant,
            response=response,
            background_tasks=background_tasks,
            dependency_overrides_provider=connection.scope.get("app"),
            async_exit_stack=connection.scope["fastapi_inner_astack"],
            embed_body_fields=False,
        )
        if solved.errors:
            kind = RequestValidationError if isinstance(connection, Request) else WebSocketRequestValidationError
            raise kind(solved.errors)
        return checked(solved.values["principal"])


def checked(principal: object) -> Principal:
    """The dependency's answer. Raises `ConfigurationError` where it is no `Principal`."""
    if isinstance(principal, Principal):
        return principal
    raise ConfigurationError(f"the principal dependency must return a Principal, not {type(principal).__name__!r}")


@dataclass(frozen=True, slots=True)
class Declared:
    """What dependencies read that is the app's business, and no provider's."""

    headers: frozenset[bytes]
    """In lower case."""
    query: frozenset[str]


def declared(dependant: Dependant, secret: Callable[..., Any] | None = None) -> Declared:
    """The headers that a dependency and all below it declare, and the keys of security schemes in the query.

    Of `secret` and all below it every query parameter counts: it has no other business than to tell who calls.
    """
    headers: set[str] = set()
    query: set[str] = set()
    for one in _all(dependant):
        headers.update(name for field in one.header_params for name in _names(field.field_info.annotation, field.alias))
        place = getattr(getattr(one.call, "model", None), "in_", None)
        if place is not None:
            names = {"header": headers, "query": query}.get(place.value, set())
            names.add(cast("Any", one.call).model.name)
        if secret is not None and one.call is secret:
            query.update(
                name
                for below in _all(one)
                for field in below.query_params
                for name in _names(field.field_info.annotation, field.alias)
            )
    return Declared(frozenset(name.lower().encode("latin-1") for name in headers) - _SAYS_NOTHING, frozenset(query))


def query_names(scope: Scope) -> frozenset[str]:
    """The query parameters that a request's route declares, those of its dependencies and of the app's included."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    names: set[str] = set()
    for one in _all(getattr(context, "dependant", None) or scope["route"].dependant):
        for field in one.query_params:
            model = field.field_info.annotation
            if isinstance(model, type) and issubclass(model, BaseModel):
                names.update(member.alias or name for name, member in model.model_fields.items())
            else:
                names.add(field.alias)
        scheme = getattr(one.call, "model", None)
        if getattr(getattr(scheme, "in_", None), "value", None) == "query":
            names.add(cast("Any", scheme).name)
    return frozenset(names)


_SAYS_NOTHING = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"anthropic-beta",
        b"anthropic-version",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"openai-beta",
        b"user-agent",
    }
)
"""Headers of HTTP and of the providers' own APIs: an app may look at them too, without making them its secret."""


def _names(annotation: object, alias: str) -> Iterator[str]:
    """What a parameter is called in the request; one that is a model stands for its fields."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        yield alias
        return
    for name, field in annotation.model_fields.items():
        called = field.validation_alias if isinstance(field.validation_alias, str) else field.alias or name
        yield from {called, called.replace("_", "-")}


def _all(dependant: Dependant) -> Iterable[Dependant]:
    return [dependant, *(inner for one in dependant.dependencies for inner in _all(one))]
