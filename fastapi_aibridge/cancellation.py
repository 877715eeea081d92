"""Tells a cancellation of the running task from a `CancelledError` that a library raised by itself."""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """Whether somebody has cancelled the running task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
