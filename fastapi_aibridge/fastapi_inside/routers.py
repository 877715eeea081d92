"""A router whose number of routes does not slow requests down."""

from __future__ import annotations

from fastapi import APIRouter


class FlatRouter(APIRouter):
    """A router that usually contains no other router.

    Twice for each request FastAPI goes through all routes to see whether a router below has changed. Without routers
    below, the version of the router's own routes is enough.
    """

    _flat: tuple[int, bool] | None = None
    """The version of the routes, and whether no router was below at that version."""

    def _get_routes_version(self, seen: set[int] | None = None) -> int:
        version = self._routes_version
        if self._flat is None or self._flat[0] != version:
            self._flat = (version, not any(hasattr(route, "original_router") for route in self.routes))
        return version if self._flat[1] else super()._get_routes_version(seen)
