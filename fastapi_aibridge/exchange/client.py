"""Which client program sent a request, and in which of its sessions, as far as its headers and body tell."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import orjson

UNKNOWN = "Unknown"

_BY_USER_AGENT = (
    ("claude", "Claude Code"),
    ("codex", "Codex"),
    ("zed/", "Zed"),
    ("githubcopilotchat/", "GitHub Copilot (VS Code)"),
    ("copilot/", "GitHub Copilot (CLI)"),
    ("kilo-code/", "Kilo Code"),
    ("roo-code/", "Roo Code"),
    ("charm crush/", "Charm Crush"),
    ("charm-crush/", "Charm Crush"),
    ("mux/", "Mux"),
    ("cursor/", "Cursor"),
    ("opencode/", "OpenCode"),
)
"""How a User-Agent begins, in lower case: the client. From the clients' own requests."""

_BY_ORIGINATOR = {"kilo-code": "Kilo Code", "roo-code": "Roo Code"}

_SESSION_HEADERS = {
    "Claude Code": ("x-claude-code-session-id",),
    "Codex": ("session_id", "session-id"),
    "GitHub Copilot (VS Code)": ("x-interaction-id",),
    "GitHub Copilot (CLI)": ("x-client-session-id",),
    "Kilo Code": ("x-kilocode-taskid",),
    "Mux": ("x-mux-workspace-id",),
    "OpenCode": ("x-opencode-session",),
}
_SESSION_IN_USER_ID = re.compile(r"_session_(\S{1,256})$")

CLIENTS = frozenset({UNKNOWN, *(name for _, name in _BY_USER_AGENT)})


def guess_client(header: Callable[[str], str]) -> str:
    """The client's name; `header` gives a header's value by its lower-case name, empty where it was not sent."""
    known = _by_user_agent(header("user-agent"))
    if known is not None:
        return known
    if header("x-cursor-client-version"):
        return "Cursor"
    return _BY_ORIGINATOR.get(header("originator"), UNKNOWN)


@lru_cache(maxsize=1024)
def _by_user_agent(agent: str) -> str | None:
    agent = agent.lower()
    return next((name for start, name in _BY_USER_AGENT if agent.startswith(start)), None)


def guess_session(client: str, header: Callable[[str], str], user_id: str | None) -> str | None:
    """The client's own session id. `user_id` is the body's `metadata.user_id`: Claude Code puts its session there,
    as JSON since version 2, as `user_…_session_<uuid>` before.
    """
    for name in _SESSION_HEADERS.get(client, ()):
        if session := header(name).strip():
            return session
    if client == "Claude Code" and user_id:
        try:
            value = orjson.loads(user_id)
        except orjson.JSONDecodeError:
            match = _SESSION_IN_USER_ID.search(user_id)
            return match[1] if match else None
        found = value.get("session_id") if isinstance(value, dict) else None
        return found if isinstance(found, str) and found else None
    return None
