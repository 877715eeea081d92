from __future__ import annotations

import os
from collections.abc import Callable

import pytest

Setter = Callable[..., None]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(("AIBRIDGE_", "OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Setter:
    """Sets `AIBRIDGE_` variables."""

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"AIBRIDGE_{name}", value)

    return set_all
