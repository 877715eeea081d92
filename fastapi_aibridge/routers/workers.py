"""Reloads, and the workers that they reach."""

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
    """What the routes need of the plugin."""

    async def reload(self) -> object:
        """Read all settings again and swap the providers, on all workers. The value has the members of
        `answers.Reload`.

        Raises `SettingsError`, `RecorderUnavailable` where the others cannot be told, `PoolShutdown` where the app
        stops, and what the app's own sources raise.
        """

    async def workers(self) -> Sequence[Worker]:
        """All that share the recorder's database; this one where there is none."""


def add_worker_routes(router: APIRouter, workforce: Workforce, access: AdminAccess) -> None:
    route = AdminRoutes(router, access).route

    @route("POST", "/admin/reload", Need.CHANGE, Reload,
           {422: {"model": Invalid, "description": "The settings do not validate; nothing was changed."},
            503: {"model": Problem,
                  "description": "Settings cannot be read, other workers not be told, or the app stops."}})  # fmt: skip
    async def reload() -> Any:
        """Read the settings' sources again and swap the providers, on all workers; running requests are not touched."""
        try:
            return await workforce.reload()
        except SettingsError as error:
            raise HTTPException(422, str(error)) from None
        except (PoolShutdown, RecorderUnavailable) as error:
            raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from None
        except Exception as error:
            # Of the app's own source; its text may quote secrets.
            logger.debug("not reloaded", exc_info=error)
            raise HTTPException(
                503, f"the settings cannot be read now: {type(error).__name__}", headers={"Retry-After": "5"}
            ) from None

    @route("GET", "/admin/workers", Need.READ, WorkerItems, {503: UNREADABLE[503]})
    async def workers() -> Response:
        """The workers that share the recorder's database, and what each has in force."""
        with reading():
            items = await workforce.workers()
        return json_answer({"items": [item.json() for item in items]})
