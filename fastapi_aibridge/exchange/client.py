"""Identifies the client program that sent a request, and its session, from the request's headers and body."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import orjson

UNKNOWN = "Unknown"
MAX_ID = 256
"""Characters that are recorded of a session's or an agent's id."""
MAX_USER_AGENT = 512
"""Characters that are recorded of a User-Agent."""
_TELLING = 48
"""Characters at the start of a User-Agent that are looked at to identify the client."""

Header = Callable[[str], str]
"""A function that returns a header's value by its lower-case name, empty if it was not sent."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A known client: how to recognize it, and where it names its session. Taken from the clients' own requests."""

    name: str
    agents: tuple[str, ...] = ()
    """Prefixes of its User-Agent, in lower case."""
    sessions: tuple[str, ...] = ()
    """Headers that may have its session id, the best one first."""
    is_agent: bool = True
    """Whether it is an agent with tools of its own."""
    ignores_error_events: bool = False
    """Whether it ignores `error` events, so that only a final event of the response itself can report a failure."""


_KINDS = (
    # qwen-code uses Claude Code's name with Anthropic-type APIs, but its own version; Claude Code only had 0.2.
    _Kind(
        "Qwen Code",
        ("qwencode/", "qwen-code/", *(f"claude-cli/0.{minor}" for minor in range(10, 100))),
        ("x-session-id",),
    ),
    _Kind("Claude Code", ("claude",), ("x-claude-code-session-id",)),
    _Kind("Codex", ("codex",), ("session_id", "session-id"), ignores_error_events=True),
    _Kind("Zed", ("zed/",)),
    _Kind("GitHub Copilot (VS Code)", ("githubcopilotchat/",), ("x-interaction-id",)),
    _Kind("GitHub Copilot (CLI)", ("copilot/",), ("x-client-session-id", "x-interaction-id")),
    _Kind(
        "Kilo Code",
        ("kilo-code/", "kilo/", "kilocode/", "opencode-kilo-provider"),
        ("x-kilocode-taskid", "x-session-id"),
    ),
    _Kind("Roo Code", ("roo-code/", "roocode/")),
    _Kind("Charm Crush", ("charm crush/", "charm-crush/")),
    _Kind("Mux", ("mux/",), ("x-mux-workspace-id",)),
    _Kind("Cursor", ("cursor/",)),
    _Kind("OpenCode", ("opencode/",), ("x-opencode-session", "x-session-id")),
    _Kind("pi", ("pi/", "pi ("), ("session_id", "session-id")),
)
_BY_NAME = {kind.name: kind for kind in _KINDS}
_OTHER = _Kind(UNKNOWN, is_agent=False)

_BY_TITLE = {"kilo code": "Kilo Code", "roo code": "Roo Code"}
"""Clients by the header `x-title`, in lower case, with which programs name themselves to OpenRouter."""
_BY_ORIGINATOR = {"kilo-code": "Kilo Code", "roo-code": "Roo Code", "pi": "pi"}

_SDK = re.compile(
    r"(?:async)?(azureopenai|openai|anthropic[a-z]{0,16}+)[/ ](js|python|go|java|kotlin|ruby|php|c#|csharp)\b"
)
_SDK_LANGUAGES = {
    "js": "JS", "python": "Python", "go": "Go", "java": "Java", "kotlin": "Kotlin", "ruby": "Ruby", "php": "PHP",
    "c#": "C#", "csharp": "C#",
}  # fmt: skip
_SDK_NAMES = (
    ("openai-python/", "OpenAI/Python"), ("openai-node/", "OpenAI/JS"), ("openai-go/", "OpenAI/Go"),
    ("openai-java/", "OpenAI/Java"), ("openai-php", "OpenAI/PHP"), ("async-openai", "OpenAI/Rust"),
    ("anthropic-sdk-", "Anthropic"), ("ai-sdk/", "AI SDK"), ("ai/", "AI SDK"), ("litellm/", "LiteLLM"),
    ("langchain", "LangChain"), ("llm/", "llm"),
)  # fmt: skip
_DOTNET = re.compile(r"(openai|anthropic)/\d[0-9.a-z+-]{0,32}+ \(\.net")


@dataclass(slots=True)
class Client:
    """The client program of a request, as far as the request tells."""

    name: str
    is_agent: bool
    ignores_error_events: bool
    user_agent: str | None
    session_id: str | None
    agent_id: str | None
    parent_agent_id: str | None
    truncated: bool
    """Whether one of the texts was cut to its maximum."""


def header_of(headers: Mapping[bytes, bytes]) -> Header:
    """Make a look-up by name of ASGI headers."""

    def header(name: str) -> str:
        value = headers.get(name.encode())
        return value.decode("latin-1") if value else ""

    return header


def client_of(header: Header, user_id: str | None) -> Client:
    """Identify the client of a request. `user_id` is the body's `metadata.user_id`."""
    agent = header("user-agent")
    kind = _kind(agent, header)
    name = kind.name
    session = next((value for one in kind.sessions if (value := header(one).strip())), None)
    child = parent = None
    if name == "Claude Code":
        if session is None and user_id:
            session = _session_in(user_id)
        child, parent = header("x-claude-code-agent-id") or None, header("x-claude-code-parent-agent-id") or None
    truncated = len(agent) > MAX_USER_AGENT or any(len(one) > MAX_ID for one in (session, child, parent) if one)
    if truncated:
        agent = agent[:MAX_USER_AGENT]
        session, child, parent = (one[:MAX_ID] if one else one for one in (session, child, parent))
    return Client(name, kind.is_agent, kind.ignores_error_events, agent or None, session, child, parent, truncated)


def _kind(agent: str, header: Header) -> _Kind:
    kind = _by_user_agent(agent[:_TELLING])
    if kind.name == "OpenCode":
        # Kilo Code's command-line program is built on OpenCode.
        return _BY_NAME[_BY_TITLE.get(header("x-title").lower()[:32], kind.name)]
    if kind.is_agent:
        return kind
    # Other clients send the User-Agent of the SDK that they are built on, or an unknown one.
    if header("x-cursor-client-version"):
        return _BY_NAME["Cursor"]
    if header("x-kilocode-taskid"):
        return _BY_NAME["Kilo Code"]
    known = _BY_ORIGINATOR.get(header("originator")) or _BY_TITLE.get(header("x-title").lower()[:32])
    if known is not None:
        return _BY_NAME[known]
    if kind.name.endswith("/JS"):
        if header("x-initiator"):
            return _BY_NAME["GitHub Copilot (CLI)"]
        if header("session_id"):
            return _BY_NAME["pi"]
    return kind


@lru_cache(maxsize=1024)
def _by_user_agent(beginning: str) -> _Kind:
    agent = beginning.lower()
    for kind in _KINDS:
        if agent.startswith(kind.agents):
            return kind
    if (sdk := _SDK.match(agent)) is not None:
        vendor = "OpenAI" if "openai" in sdk[1] else "Anthropic"
        return _Kind(f"{vendor}/{_SDK_LANGUAGES[sdk[2]]}", is_agent=False)
    if (dotnet := _DOTNET.match(agent)) is not None:
        return _Kind(f"{'OpenAI' if dotnet[1] == 'openai' else 'Anthropic'}/.NET", is_agent=False)
    name = next((name for start, name in _SDK_NAMES if agent.startswith(start)), None)
    return _Kind(name, is_agent=False) if name else _OTHER


def _session_in(user_id: str) -> str | None:
    """Find Claude Code's session in its user id: JSON since version 2, `user_…_session_<uuid>` before."""
    try:
        value = orjson.loads(user_id)
    except orjson.JSONDecodeError:
        _, mark, session = user_id.rpartition("_session_")
        return session if mark and session and not any(map(str.isspace, session[: MAX_ID + 1])) else None
    found = value.get("session_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else None
