"""The names that the package exports, some of which are loaded at first use."""

from __future__ import annotations

import pytest

import fastapi_aibridge


@pytest.mark.parametrize("name", fastapi_aibridge.__all__)
def test_every_name_is_there(name: str) -> None:
    """Every exported name exists and is listed, whether it is loaded at once or at first use."""
    assert getattr(fastapi_aibridge, name) is not None
    assert name in dir(fastapi_aibridge)


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Bridge'"):
        fastapi_aibridge.Bridge  # noqa: B018
