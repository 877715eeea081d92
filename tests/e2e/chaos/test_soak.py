"""All faults at once, for half a minute in CI and a quarter elsewhere; `make chaos` runs longer."""

from __future__ import annotations

import os

import pytest

from .soak import soak

pytestmark = [pytest.mark.anyio, pytest.mark.soak]

LONG = os.environ.get("CI", "").lower() == "true"


async def test_soak() -> None:
    """Faults, reloads and evictions leave nothing behind, memory does not grow, and each request has its record."""
    report = await soak(30 if LONG else 15)
    # Caches are still filling in so short a time.
    assert report.findings(growth=0.2) == [], str(report)
    assert report.requests > 500
