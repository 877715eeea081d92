"""A router that costs a request no more for having many routes."""

from __future__ import annotations

from fastapi import APIRouter


class FlatRouter(APIRouter):
    """Routes, and as a rule no router below it.

    FastAPI looks twice a request whether a router anywhere below has changed, and passes all routes for that.
    """

    _flat: tuple[int, bool] | None = None
    """Whether there is none, at which version of the routes."""

    def _get_routes_version(self, seen: set[int] | None = None) -> int:
        version = self._routes_version
        if self._flat is None or self._flat[0] != version:
            self._flat = (version, not any(hasattr(route, "original_router") for route in self.routes))
        return version if self._flat[1] else super()._get_routes_version(seen)
