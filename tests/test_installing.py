"""The install command that an error gives for a missing extra."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

import pytest

from fastapi_aibridge import installing


class Distribution:
    def __init__(self, origin: dict[str, Any] | None) -> None:
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._origin is None else json.dumps(self._origin)


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'fastapi-aibridge[mcp]'"),
        (
            {"url": "file:///home/ann/my%20code/bridge", "dir_info": {"editable": True}},
            "pip install '/home/ann/my code/bridge[mcp]'",
        ),
        ({"url": "file:///tmp/fastapi_aibridge-0.1.0.whl", "archive_info": {}}, "pip install 'fastapi-aibridge[mcp]'"),
        ({"url": "https://example.com/x.git", "vcs_info": {}}, "pip install 'fastapi-aibridge[mcp]'"),
    ],
)
def test_it_works_for_who_has_only_a_checkout(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None, command: str
) -> None:
    """A package from a folder is installed from there again; every other origin gets the name of the release."""
    monkeypatch.setattr(installing, "distribution", lambda _: Distribution(origin))
    assert installing.install_command("mcp") == command


def test_a_package_that_was_never_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is only on the module path gets the name of the release."""

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installing, "distribution", missing)
    assert installing.install_command("mcp") == "pip install 'fastapi-aibridge[mcp]'"
