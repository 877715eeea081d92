"""Half a minute of everything at once where CI has it, a quarter elsewhere; `make chaos` goes on for longer."""

from __future__ import annotations

import os

import pytest

from .soak import soak

pytestmark = [pytest.mark.anyio, pytest.mark.soak]

LONG = os.environ.get("CI", "").lower() == "true"


async def test_soak() -> None:
    """Faults, reloads and evictions leave nothing behind, memory does not grow, and each request has its record."""
    report = await soak(30 if LONG else 15)
    # In so short a time caches are still filling.
    assert report.findings(growth=0.2) == [], str(report)
    assert report.requests > 500
