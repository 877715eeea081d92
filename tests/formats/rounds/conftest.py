"""Fixtures that run each test of the rounds in every format, streamed and blocking."""

from __future__ import annotations

import pytest

from .driving import KINDS, Kind


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(params=[True, False], ids=["streamed", "blocking"])
def streamed(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found
