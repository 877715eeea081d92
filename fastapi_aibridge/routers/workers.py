"""Admin routes that reload the settings and list the workers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from fastapi import APIRouter, HTTPException, Response

from ..cluster.worker import Worker
from ..errors import PoolShutdown, RecorderUnavailable, SettingsError
from .access import AdminAccess, Need
from .admin_routes import UNREADABLE, AdminRoutes, json_answer, reading
from .answers import Invalid, Problem, Reload, WorkerItems

logger = logging.getLogger(__name__)


class Workforce(Protocol):
    """The methods of the plugin that these routes need."""

    async def reload(self) -> object:
        """Read all settings again and replace the providers, on all workers. The result has the members of
        `answers.Reload`.

        Raises `SettingsError`, `RecorderUnavailable` if the others cannot be notified, `PoolShutdown` if the app stops,
        and what the app's own sources raise.
        """

    async def workers(self) -> Sequence[Worker]:
        """Return all workers that share the recorder's database; without one, this worker."""


def add_worker_routes(router: APIRouter, workforce: Workforce, access: AdminAccess) -> None:
    route = AdminRoutes(router, access).route

    @route("POST", "/admin/reload", Need.CHANGE, Reload,
           {422: {"model": Invalid, "description": "The settings do not validate; nothing was changed."},
            503: {"model": Problem,
                  "description": "Settings cannot be read, other workers not be told, or the app stops."}})  # fmt: skip
    async def reload() -> Any:
        """Read the settings again and replace the providers, on all workers; running requests are not affected."""
        try:
            return await workforce.reload()
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
            items = await workforce.workers()
        return json_answer({"items": [item.json() for item in items]})
