"""The access checks of the admin routes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPBearer

from ..credentials import same_token
from ..observability.wrong_keys import WrongKeys
from ..principal import Principal
from ..settings import Settings

_BEARER = HTTPBearer(
    scheme_name="AIBridgeAdminToken",
    description="AIBRIDGE_ADMIN_TOKEN; for reading also AIBRIDGE_AUDIT_TOKEN, for the metrics AIBRIDGE_METRICS_TOKEN",
    auto_error=False,
)


class Need(IntEnum):
    """The permission that a route needs. Each includes those before it."""

    METRICS = 1
    READ = 2
    CHANGE = 3


class AdminAccess:
    """The dependencies of an admin route, by the permission that it needs."""

    def __init__(self, own: Callable[..., Any] | None, settings: Callable[[], Settings], wrong_keys: WrongKeys) -> None:
        """`own` is the app's dependency, which alone decides; without it, the tokens of the settings in force do."""
        self._own = own
        self._settings = settings
        self._wrong_keys = wrong_keys
        self._actor: Callable[..., Any] | None = None

    def dependencies(self, need: Need) -> Sequence[Dependency]:
        if self._own is not None:
            return [Depends(refuse_other_sites), Depends(self._own)]

        async def token(request: Request, _: object = Depends(_BEARER)) -> None:
            await self._check(request, need)

        return [Depends(token)]

    @property
    def actor(self) -> Callable[..., Any]:
        """A dependency that returns the actor for the audit: the text or the principal's id that the app's own `admin`
        dependency returns, else `admin`; without such a dependency, `admin_token`.
        """
        if self._actor is None:
            own = self._own

            async def token() -> str:
                return "admin_token"

            async def of_app(answer: object = Depends(own)) -> str:
                if isinstance(answer, Principal):
                    return answer.initiator_id
                return answer if isinstance(answer, str) and answer else "admin"

            self._actor = token if own is None else of_app
        return self._actor

    async def _check(self, request: Request, need: Need) -> None:
        settings = self._settings()
        tokens = ((settings.admin_token, Need.CHANGE), (settings.audit_token, Need.READ),
                  (settings.metrics_token, Need.METRICS))  # fmt: skip
        if not any(token is not None and grants >= need for token, grants in tokens):
            raise HTTPException(403, "this admin route is closed: AIBRIDGE_ADMIN_TOKEN is not set")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        presented = given.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
        # All are compared, so that the time taken does not reveal which one matched.
        granted = [grants for token, grants in tokens if token is not None and same_token(presented, token)]
        if not granted:
            if presented:
                await self._wrong_keys.note(request.scope, "admin")
            raise HTTPException(401, "not the admin token", headers={"WWW-Authenticate": "Bearer"})
        if max(granted) < need:
            raise HTTPException(403, f"this token is for {_ALLOWED[max(granted)]} only")


_ALLOWED = {Need.METRICS: "metrics", Need.READ: "reading"}


async def refuse_other_sites(request: Request) -> None:
    """Refuse requests that a page of another site makes a browser send.

    The browser's cookies, passwords and address go along by themselves. A bearer token does not, so a request that has
    one, and no cookie, may come from anywhere.
    """
    headers = request.headers
    if headers.get("authorization", "").lower().startswith("bearer ") and "cookie" not in headers:
        return
    site = headers.get("sec-fetch-site")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        origin = headers.get("origin")
        foreign = origin is not None and _place(origin) != _place(f"{request.url.scheme}://{headers.get('host', '')}")
    if foreign:
        raise HTTPException(403, "the admin routes are not for pages of other sites")


def _place(origin: str) -> tuple[str | None, int | None]:
    """The host and port. Not the scheme: a proxy in front of the app may have ended TLS."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None, None
    return parts.hostname, None if port in (80, 443) else port
