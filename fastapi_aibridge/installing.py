"""How to install what an extra needs, said in errors."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlsplit

_NAME = "fastapi-aibridge"


def install_command(extra: str) -> str:
    """The command that works here: for a package that came from a checkout, it names the checkout."""
    return f"pip install '{_checkout() or _NAME}[{extra}]'"


def _checkout() -> str | None:
    """The folder that the package was installed from, where it was one."""
    try:
        origin = json.loads(distribution(_NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    parts = urlsplit(origin.get("url", ""))
    return unquote(parts.path) if parts.scheme == "file" and "dir_info" in origin else None
