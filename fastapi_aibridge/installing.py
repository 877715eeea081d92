"""The install command of an extra, for error messages."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlsplit

_NAME = "fastapi-aibridge"


def install_command(extra: str) -> str:
    """Return the command that installs an extra. It names the checkout if the package was installed from one."""
    return f"pip install '{_checkout() or _NAME}[{extra}]'"


def _checkout() -> str | None:
    """Return the folder that the package was installed from, None if it came from an index or an archive."""
    try:
        origin = json.loads(distribution(_NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    parts = urlsplit(origin.get("url", ""))
    return unquote(parts.path) if parts.scheme == "file" and "dir_info" in origin else None
