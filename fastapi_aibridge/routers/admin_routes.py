"""Registration of admin routes: their access, their parameters, and the common properties of their responses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Message, Receive, Scope, Send

from ..recorder import InvalidCursor
from ..recorder.text import cut, dump_bytes, storable
from .access import AdminAccess, Need
from .answers import Invalid, Problem
from .bodies import refuse_duplicate_members
from .queries import MOST_PROBLEMS, refuse_unknown_parameters

logger = logging.getLogger(__name__)

MAX_BODY = 256 * 1024
"""Bytes of a request's body."""
NO_STORE = "the recorder is switched off (AIBRIDGE_RECORDER__ENABLED), or it is the app's own and cannot be read back"


_WITH_BODY = {"POST", "PUT", "PATCH"}
_LONGEST_WORDS = 512
"""Bytes of a problem's description, which may quote a name or a path."""
_LONGEST_NAME = 64
"""Bytes of a member's name that a 422 repeats."""


class GuardedRoute(APIRoute):
    """A route whose responses, refusals included, may neither be cached nor be taken for another content type.

    Values of a request are not repeated in errors: they may be secrets, of any size, or not expressible in JSON.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                raise RequestValidationError(
                    problem_list((one["type"], one["loc"], one["msg"]) for one in error.errors())
                ) from None

        return handle

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_GUARDS]}
            await send(message)

        try:
            await super().handle(scope, _bounded(receive), guarded)
        except StarletteHTTPException as error:  # an unknown method: the app answers
            error.headers = {**(error.headers or {}), **GUARD_HEADERS}
            raise


def problem_list(problems: Iterable[tuple[str, Iterable[str | int], str]]) -> list[dict[str, Any]]:
    """Return the first of these problems, each a kind, a place and a message, in the form of a 422 response."""
    return [
        {
            "type": kind,
            "loc": [part if isinstance(part, int) else cut(storable(part), _LONGEST_NAME) for part in place],
            "msg": cut(storable(words), _LONGEST_WORDS),
        }
        for kind, place, words in islice(problems, MOST_PROBLEMS)
    ]


def _bounded(receive: Receive) -> Receive:
    """Limit the size of a body, because FastAPI reads it before it authenticates the sender."""
    size = 0

    async def read() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise HTTPException(413, f"the body is larger than {MAX_BODY} bytes", {"Connection": "close"})
        return message

    return read


GUARD_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_GUARDS = tuple((name.encode(), value.encode()) for name, value in GUARD_HEADERS.items())
_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No valid credential was given."},
    403: {"model": Problem, "description": "The credential does not open this route."},
    422: {"model": Invalid, "description": "A parameter is unknown or has no valid value."},
}
UNREADABLE: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such record, or there are no records to read."},
    503: {"model": Problem, "description": "The records cannot be read now."},
}


class AdminRoutes:
    """Adds admin routes to a router, all of which `access` guards."""

    def __init__(self, router: APIRouter, access: AdminAccess) -> None:
        self._router = router
        self._access = access

    def route(
        self,
        method: str,
        path: str,
        need: Need,
        model: Any,
        responses: Mapping[int | str, dict[str, Any]] = MappingProxyType({}),
        status: int = 200,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that adds an endpoint for this method and path, with `model` in the OpenAPI document."""
        checks = [refuse_unknown_parameters]
        if method in _WITH_BODY:
            checks.append(refuse_duplicate_members)

        def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            self._router.add_api_route(
                path,
                endpoint,
                methods=[method],
                status_code=status,
                response_model=model,
                response_class=Response if model is None else JSONResponse,
                dependencies=[*self._access.dependencies(need), *map(Depends, checks)],
                responses={**_REFUSALS, **responses},
                tags=["aibridge"],
                route_class_override=GuardedRoute,
            )
            return endpoint

        return add


@contextmanager
def reading(*passing: type[Exception]) -> Iterator[None]:
    """Turn the errors of a store into responses: an invalid cursor is 400, any other error 503, whether it is a
    driver's or the app's own. An `HTTPException` and the exceptions in `passing` are raised unchanged.
    """
    try:
        yield
    except HTTPException:
        raise
    except passing:
        raise
    except InvalidCursor:
        raise HTTPException(400, "the cursor is not one that this list handed out") from None
    except Exception as error:
        # The text may quote values of the request.
        logger.warning("the records cannot be read: %s", type(error).__name__)
        logger.debug("the records cannot be read", exc_info=error)
        raise HTTPException(503, "the records cannot be read now", {"Retry-After": "5"}) from None


def json_answer(value: object, status: int = 200) -> Response:
    return Response(dump_bytes(value), status, media_type="application/json")
