"""Resolves the app's principal dependency in routes that were not declared with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Depends
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection
from starlette.responses import Response

from ..errors import ConfigurationError
from ..principal import Principal
from .routes import declared, reads_body
from .solving import Solver, dependant_of, dependency_stacks, has_stacks

OF_PROTOCOLS = frozenset(
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
        b"transfer-encoding",
        b"user-agent",
    }
)
"""Headers of HTTP and of the providers' APIs. They go upstream even if the app's dependency reads them."""


class PrincipalResolver:
    """Calls the principal dependency, with its sub-dependencies, security schemes and overrides."""

    def __init__(self, dependency: Callable[..., Any]) -> None:
        def ask(principal: object = Depends(dependency)) -> None: ...

        dependant = dependant_of(ask)
        if reads_body(dependant):
            raise ConfigurationError(
                f"the principal dependency {dependency!r} reads the request's body; it must make do with headers, "
                "cookies, path and query, because the body belongs to the provider"
            )
        told = declared(dependant)
        if told is None:
            raise ConfigurationError(
                f"this release of FastAPI does not tell which headers the principal dependency {dependency!r} reads, "
                "so they could not be kept from providers; use a release that fastapi_aibridge has been tested with"
            )
        self.header_names: frozenset[bytes] = told.headers - OF_PROTOCOLS
        """The headers that the dependency declares: they authenticate to the app, so they never go upstream."""
        self._solver = Solver(dependant)

    async def __call__(
        self,
        connection: HTTPConnection,
        response: Response | None = None,
        background_tasks: BackgroundTasks | None = None,
    ) -> Principal:
        """Return the caller's principal. Raises what the dependency raises, and FastAPI's validation errors.

        `response` receives the headers that the dependency sets, `background_tasks` the tasks that it adds. Outside of
        FastAPI's routes, for instance in a middleware, dependencies with `yield` end before this returns.
        """
        if has_stacks(connection.scope):
            solved = await self._solver.by_fastapi(connection, response, background_tasks)
        else:
            async with dependency_stacks(connection.scope):
                solved = await self._solver.by_fastapi(connection, response, background_tasks)
        return checked(solved.values["principal"])


def checked(principal: object) -> Principal:
    """Return the dependency's result. Raises `ConfigurationError` if it is no `Principal`."""
    if isinstance(principal, Principal):
        return principal
    raise ConfigurationError(f"the principal dependency must return a Principal, not {type(principal).__name__!r}")
