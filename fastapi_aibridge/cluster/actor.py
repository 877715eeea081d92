"""The actor that the audit names for changes from the command line."""

from __future__ import annotations

from getpass import getuser


def command_line_actor() -> str:
    """Return the actor of a command run here, with the name of the operating system's user where there is one."""
    try:
        return f"command line: {getuser()}"
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "command line"
