"""Solves dependencies: by a plan if there is one, else by FastAPI itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from fastapi import Request, WebSocket
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.background import BackgroundTasks as StarletteBackgroundTasks
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from .plans import Solved, planned
from .routes import overrides

INNER, FUNCTION = "fastapi_inner_astack", "fastapi_function_astack"
"""The keys under which a scope holds the exit stacks of a request's dependencies."""


@asynccontextmanager
async def dependency_stacks(scope: Scope) -> AsyncIterator[AsyncExitStack]:
    """Put the exit stacks into the scope that FastAPI gives each request of its routes; restore the scope at the end.

    The block gets the stack of the function scope, which must be closed before the response is sent.
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


class Solver:
    """Solves one dependant, for many requests. Raises what dependencies raise, and FastAPI's validation errors."""

    def __init__(self, dependant: Dependant) -> None:
        self._dependant = dependant
        self._plan = planned(dependant)

    @property
    def is_planned(self) -> bool:
        return self._plan is not None

    async def quick(self, request: Request) -> Solved | None:
        """Solve by the plan, without overrides and exit stacks. None, with nothing called yet, if FastAPI has to."""
        return None if self._plan is None else await self._plan.run(request)

    async def by_fastapi(
        self,
        connection: HTTPConnection,
        response: Response | None = None,
        background_tasks: StarletteBackgroundTasks | None = None,
    ) -> Solved:
        """Solve as FastAPI does. Call it within `dependency_stacks` or a route of FastAPI's."""
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
