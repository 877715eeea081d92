"""Two minutes of everything at once where CI has them, a quarter of a minute elsewhere."""

from __future__ import annotations

import os

import pytest

from .soak import soak

pytestmark = [pytest.mark.anyio, pytest.mark.soak]

LONG = os.environ.get("CI", "").lower() == "true"


async def test_soak() -> None:
    """Faults, reloads and evictions leave nothing behind, memory does not grow, and each request has its record."""
    report = await soak(120 if LONG else 15)
    # In a quarter of a minute caches are still filling.
    assert report.findings(growth=0.05 if LONG else 0.2) == [], str(report)
    assert report.requests > 500
