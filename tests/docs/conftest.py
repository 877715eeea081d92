from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_app import offline

from .running import Reader


@pytest.fixture(scope="session")
def offline_provider() -> Iterator[str]:
    with offline.provider().serve_in_thread() as base_url:
        yield base_url


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline_provider: str) -> Iterator[Reader]:
    """A reader in an empty folder, with the offline provider in place of both vendors."""
    for name in os.environ:
        if name.upper().startswith(("AIBRIDGE_", "OPENAI_", "ANTHROPIC_", "OTEL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name, value in {
        "PROVIDERS__OPENAI__BASE_URL": f"{offline_provider}/v1",
        "PROVIDERS__OPENAI__API_KEY": offline.KEY,
        "PROVIDERS__ANTHROPIC__BASE_URL": offline_provider,
        "PROVIDERS__ANTHROPIC__API_KEY": offline.KEY,
        "CLIENT_KEYS__ALICE": "key-of-alice",
        "ADMIN_TOKEN": "admin-secret",
    }.items():
        monkeypatch.setenv(f"AIBRIDGE_{name}", value)
    reader = Reader(tmp_path, offline_provider, monkeypatch)
    yield reader
    reader.close()
    sys.modules.pop("app", None)
