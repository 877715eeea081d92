"""Admin routes that reload the settings and list the workers."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter, HTTPException, Response

from ..errors import PoolShutdown, RecorderUnavailable, SettingsError
from ..host import Host
from ..parts import Reload
from ..recorder.jsonform import members
from .access import AdminAccess, Need
from .admin_routes import UNREADABLE, AdminRoutes, json_answer, reading
from .answers import Invalid, Problem, WorkerItems

logger = logging.getLogger(__name__)


def add_worker_routes(router: APIRouter, host: Host, access: AdminAccess) -> None:
    route = AdminRoutes(router, access).route

    @route("POST", "/admin/reload", Need.CHANGE, Reload,
           {422: {"model": Invalid, "description": "The settings do not validate; nothing was changed."},
            503: {"model": Problem,
                  "description": "Settings cannot be read, other workers not be told, or the app stops."}})  # fmt: skip
    async def reload() -> Any:
        """Read the settings again and replace the providers, on all workers; running requests are not affected."""
        try:
            return await host.runtime.reload()
        except SettingsError as error:
            raise HTTPException(422, str(error)) from None
        except (PoolShutdown, RecorderUnavailable) as error:
            raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from None
        except Exception as error:
            # Raised by the app's own source; the text may quote secrets.
            logger.debug("not reloaded", exc_info=error)
            raise HTTPException(
                503, f"the settings cannot be read now: {type(error).__name__}", headers={"Retry-After": "5"}
            ) from None

    @route("GET", "/admin/workers", Need.READ, WorkerItems, {503: UNREADABLE[503]})
    async def workers() -> Response:
        """List the workers that share the recorder's database, and what each has in force."""
        with reading():
            items = await host.runtime.reloads.workers()
        return json_answer({"items": [members(item) for item in items]})
