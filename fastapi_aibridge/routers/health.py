"""Health routes for orchestrators: whether the process is alive, and whether it can take work."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ..host import Host
from ..providers.response_headers import PROTECTION


class HealthStatus(BaseModel):
    status: str
    """`alive`, `ready`, or the reason why not."""
    components: dict[str, str] | None = None
    """With `?verbose`: each part that the process depends on, with `ok` or its problem."""


def add_health_routes(router: APIRouter, host: Host) -> None:
    """Add the routes. They need no credential, and reveal nothing that should need one."""

    @router.api_route(
        "/healthz",
        methods=["GET", "HEAD"],
        tags=["aibridge"],
        include_in_schema=False,
        response_model_exclude_none=True,
    )
    async def healthz(response: Response) -> HealthStatus:
        """Report that the process is alive: its event loop runs."""
        _protect(response)
        return HealthStatus(status="alive")

    @router.api_route(
        "/readyz", methods=["GET", "HEAD"], tags=["aibridge"], include_in_schema=False, response_model_exclude_none=True
    )
    async def readyz(request: Request, response: Response) -> HealthStatus:
        """Answer 200 while work can be taken; 503 during start and end, and while no records can be written."""
        _protect(response)
        components = host.components() if "verbose" in request.query_params else None
        if (reason := host.unready()) is None:
            return HealthStatus(status="ready", components=components)
        response.status_code = 503
        response.headers["retry-after"] = "1"
        return HealthStatus(status=reason, components=components)


def _protect(response: Response) -> None:
    """Forbid caching: a cached response says nothing about the present."""
    response.headers["cache-control"] = "no-store"
    for name, value in PROTECTION:
        response.headers[name.decode()] = value.decode()
