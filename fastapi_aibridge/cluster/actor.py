"""Who changes something, for the audit."""

from __future__ import annotations

from getpass import getuser


def command_line_actor() -> str:
    """Whoever runs a command here."""
    try:
        return f"command line: {getuser()}"
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "command line"
