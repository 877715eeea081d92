from __future__ import annotations

from collections.abc import Callable

import pytest

Setter = Callable[..., None]


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Setter:
    """A function that sets `AIBRIDGE_` variables."""

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"AIBRIDGE_{name}", value)

    return set_all
