"""The client program that sent a request, and its session."""

from __future__ import annotations

import pytest

from fastapi_aibridge.exchange.client import MAX_ID, MAX_USER_AGENT, UNKNOWN, Client, client_of

SESSION = "0f8b1c0e-8d4a-4f6e-9f57-3f4b6f0f6c11"
CLAUDE = "claude-cli/2.1.197 (external, cli)"


def client(user_id: str | None = None, **headers: str) -> Client:
    """Return the client for these headers; `_` stands for a hyphen and `__` for an underscore."""
    sent = {name.replace("__", " ").replace("_", "-").replace(" ", "_"): value for name, value in headers.items()}
    return client_of(lambda name: sent.get(name, ""), user_id)


SENT: list[tuple[str, str | None, dict[str, str]]] = [
    ("Claude Code", SESSION, {"user_agent": CLAUDE, "x_app": "cli", "x_claude_code_session_id": SESSION}),
    ("Claude Code", None, {"user_agent": "claude-cli/0.2.29 (external, cli)"}),
    ("Claude Code", None, {"user_agent": "Claude-VSCode/1.0"}),
    ("Qwen Code", None, {"user_agent": "claude-cli/0.24.4 (external, cli)", "x_app": "cli"}),
    ("Qwen Code", None, {"user_agent": "QwenCode/0.15.10 (linux; x64)"}),
    (
        "Codex",
        SESSION,
        {"user_agent": "codex_exec/0.169.0 (Debian; x86_64)", "originator": "codex_exec", "session__id": SESSION},
    ),
    ("Codex", SESSION, {"user_agent": "codex_cli_rs/0.46.0 (Mac OS 15.0; arm64) Terminal", "session_id": SESSION}),
    ("Zed", None, {"user_agent": "Zed/0.200.1 (linux; x86_64)"}),
    (
        "GitHub Copilot (VS Code)",
        SESSION,
        {"user_agent": "GitHubCopilotChat/0.31.5", "x_initiator": "user", "x_interaction_id": SESSION},
    ),
    ("GitHub Copilot (CLI)", SESSION, {"user_agent": "copilot/0.0.339 (linux v22)", "x_client_session_id": SESSION}),
    (
        "GitHub Copilot (CLI)",
        SESSION,
        {"user_agent": "OpenAI/JS 5.20.1", "x_initiator": "user", "x_client_session_id": SESSION},
    ),
    ("GitHub Copilot (CLI)", None, {"user_agent": "Anthropic/JS 0.60.0", "x_initiator": "agent"}),
    ("Kilo Code", SESSION, {"user_agent": "Kilo-Code/4.99.0", "x_title": "Kilo Code", "x_kilocode_taskid": SESSION}),
    ("Kilo Code", SESSION, {"user_agent": "kilo/7.0.1", "x_session_id": SESSION}),
    (
        "Kilo Code",
        SESSION,
        {"user_agent": "opencode/1.1.4 ai-sdk/provider-utils/3.0.20", "x_title": "Kilo Code", "x_session_id": SESSION},
    ),
    ("Kilo Code", None, {"user_agent": "OpenAI/JS 5", "originator": "kilo-code"}),
    ("OpenCode", SESSION, {"user_agent": "opencode/1.1.4 ai-sdk/provider-utils/3.0.20", "x_session_id": SESSION}),
    ("OpenCode", SESSION, {"user_agent": "opencode/0.14.1", "x_opencode_session": SESSION}),
    ("Roo Code", None, {"user_agent": "RooCode/3.28", "x_title": "Roo Code"}),
    ("Roo Code", None, {"user_agent": "OpenAI/JS 5", "originator": "roo-code"}),
    ("Charm Crush", None, {"user_agent": "Charm Crush/0.10"}),
    ("Charm Crush", None, {"user_agent": "charm-crush/0.10"}),
    ("Mux", SESSION, {"user_agent": "mux/0.1", "x_mux_workspace_id": SESSION}),
    ("Cursor", None, {"user_agent": "Cursor/1.7"}),
    ("Cursor", None, {"user_agent": "connect-es/1.6.1", "x_cursor_client_version": "1.7"}),
    (
        "pi",
        SESSION,
        {"user_agent": "OpenAI/JS 6.10.0", "session__id": SESSION, "x_client_request_id": SESSION},
    ),
    ("pi", SESSION, {"user_agent": "pi (linux 6.1; x64)", "originator": "pi", "session__id": SESSION}),
    ("OpenAI/Python", None, {"user_agent": "OpenAI/Python 3.0.1", "x_stainless_lang": "python"}),
    ("OpenAI/Python", None, {"user_agent": "AsyncOpenAI/Python 3.0.1"}),
    ("OpenAI/Python", None, {"user_agent": "AsyncAzureOpenAI/Python 1.99.1"}),
    ("OpenAI/JS", None, {"user_agent": "OpenAI/JS 6.10.0"}),
    ("OpenAI/Go", None, {"user_agent": "OpenAI/Go 2.7.1"}),
    ("OpenAI/Java", None, {"user_agent": "OpenAI/Java 4.6.1"}),
    ("OpenAI/Ruby", None, {"user_agent": "OpenAI/Ruby 0.30.0"}),
    ("OpenAI/.NET", None, {"user_agent": "OpenAI/2.2.0 (.NET 9.0.1; Linux)"}),
    ("Anthropic/Python", None, {"user_agent": "Anthropic/Python 2.0.0"}),
    ("Anthropic/Python", None, {"user_agent": "AsyncAnthropic/Python 2.0.0"}),
    ("Anthropic/JS", None, {"user_agent": "Anthropic/JS 0.60.0"}),
    ("AI SDK", None, {"user_agent": "ai/5.0.1 ai-sdk/provider-utils/3.0.1 runtime/node.js/22"}),
    ("LiteLLM", None, {"user_agent": "litellm/1.77.0"}),
    (UNKNOWN, None, {"user_agent": "x claude-cli/2"}),
    (UNKNOWN, None, {"user_agent": "zed"}),
    (UNKNOWN, None, {"user_agent": "python-httpx/0.28"}),
    (UNKNOWN, None, {"originator": "somebody", "session__id": SESSION, "x_session_id": SESSION}),
    (UNKNOWN, None, {}),
]
"""The name under which each client is recorded, its session, and the headers that it was seen to send."""


@pytest.mark.parametrize(("name", "session", "headers"), SENT, ids=lambda one: one if isinstance(one, str) else "")
def test_each_client_by_what_it_sends(name: str, session: str | None, headers: dict[str, str]) -> None:
    """A client is recognised by the beginning of its User-Agent, in any case, or by a header of its own."""
    assert (client(**headers).name, client(**headers).session_id) == (name, session)
    if "user_agent" in headers:
        assert client(**{**headers, "user_agent": headers["user_agent"].upper()}).name == name
        assert client(**headers).user_agent == headers["user_agent"]


def test_another_clients_session_is_not_believed() -> None:
    """Only a client's own session headers are read, in their order of precedence."""
    assert client(user_agent="zed/1", x_session_id=SESSION, session__id=SESSION).session_id is None
    assert client(user_agent="opencode/1", x_opencode_session="a", x_session_id="b").session_id == "a"
    assert client(user_agent="opencode/1", x_opencode_session=" ", x_session_id=" b ").session_id == "b"


def test_agents_are_told_from_libraries() -> None:
    """Agents are told from libraries, because agents bring tools of their own."""
    assert client(user_agent=CLAUDE).is_agent
    assert client(user_agent="OpenAI/JS 6", x_initiator="user").is_agent
    assert not client(user_agent="OpenAI/JS 6").is_agent
    assert not client().is_agent


def test_the_agents_within_claude_code() -> None:
    """A subagent of Claude Code is recorded with its own id and that of its parent."""
    found = client(user_agent=CLAUDE, x_claude_code_agent_id="a1", x_claude_code_parent_agent_id="a0")
    assert (found.agent_id, found.parent_agent_id) == ("a1", "a0")
    found = client(user_agent=CLAUDE)
    assert (found.agent_id, found.parent_agent_id) == (None, None)
    assert client(user_agent="zed/1", x_claude_code_agent_id="a1").agent_id is None


@pytest.mark.parametrize(
    ("user_id", "found"),
    [
        (f'{{"device_id":"d","account_uuid":"","session_id":"{SESSION}"}}', SESSION),
        (f"user_{'0a' * 32}_account__session_{SESSION}", SESSION),
        (f"user_x_account_y_session_{SESSION.upper()}", SESSION.upper()),
        ("user_x_account_y_session_no-uuid", "no-uuid"),
        ('{"session_id":""}', None),
        ('{"session_id":5}', None),
        ('{"device_id":"d"}', None),
        ("[1]", None),
        ("5", None),
        ("user_x_session_no hex", None),
        ("user_x_session_", None),
        (f"session_{SESSION}_more", None),
        ("", None),
        (None, None),
    ],
)
def test_the_session_in_claude_codes_user_id(user_id: str | None, found: str | None) -> None:
    """Claude Code's session is read from its user id, as JSON or in the older form; other clients' ids are not read."""
    assert client(user_id, user_agent=CLAUDE).session_id == found
    assert client(user_id).session_id is None


def test_the_header_is_nearer_than_the_body() -> None:
    """A session in the header takes precedence over one in the body."""
    assert client(f"x_session_{SESSION}", user_agent=CLAUDE, x_claude_code_session_id="h").session_id == "h"
    assert client(f"x_session_{SESSION}", user_agent=CLAUDE, x_claude_code_session_id=" ").session_id == SESSION


def test_what_clients_choose_is_cut() -> None:
    """Values that clients choose are cut to a length that every database can index, and marked as truncated."""
    long = "x" * 50_000
    for found in (
        client(user_agent=CLAUDE, x_claude_code_session_id=long, x_claude_code_agent_id=long),
        client(f"a_session_{long}", user_agent=CLAUDE, x_claude_code_agent_id=long),
        client(f'{{"session_id":"{long}"}}', user_agent=CLAUDE, x_claude_code_agent_id=long),
    ):
        assert (found.session_id, found.agent_id, found.truncated) == ("x" * MAX_ID, "x" * MAX_ID, True)
    found = client(user_agent=f"claude-cli/2 {long}")
    assert (len(found.user_agent or ""), found.truncated) == (MAX_USER_AGENT, True)
    assert not client(user_agent=CLAUDE, x_claude_code_session_id="x" * MAX_ID).truncated
