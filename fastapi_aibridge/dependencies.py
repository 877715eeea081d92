"""The app's principal dependency, resolved where FastAPI could not know of it when the route was declared.

The one place that calls FastAPI's own dependency machinery; CI runs it against the oldest and the newest FastAPI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from fastapi import Depends, Request, WebSocket
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.requests import HTTPConnection

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
        names = {field.alias for dependant in _all(self._dependant) for field in dependant.header_params}
        for dependant in _all(self._dependant):
            model = getattr(dependant.call, "model", None)
            if getattr(getattr(model, "in_", None), "value", None) == "header":
                names.add(cast("Any", model).name)
        return frozenset(name.lower().encode("latin-1") for name in names)

    async def __call__(self, connection: HTTPConnection) -> Principal:
        """Who calls. Raises what the dependency raises, and FastAPI's validation errors."""
        solved = await solve_dependencies(
            request=cast("Request | WebSocket", connection),
            dependant=self._dependant,
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


def _all(dependant: Dependant) -> list[Dependant]:
    return [dependant, *(inner for one in dependant.dependencies for inner in _all(one))]
