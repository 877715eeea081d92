"""Which client sent a request, and in which session."""

from __future__ import annotations

import pytest

from fastapi_aibridge.exchange.client import CLIENTS, guess_client, guess_session

SESSION = "0f8b1c0e-8d4a-4f6e-9f57-3f4b6f0f6c11"


def client(**headers: str) -> str:
    return guess_client(lambda name: headers.get(name.replace("-", "_"), ""))


def session(of: str, user_id: str | None = None, **headers: str) -> str | None:
    return guess_session(of, lambda name: headers.get(name.replace("-", "_"), ""), user_id)


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("claude-cli/2.0.14 (external, cli)", "Claude Code"),
        ("claude-code/1.0", "Claude Code"),
        ("Claude-VSCode/1.0", "Claude Code"),
        ("codex_cli_rs/0.46.0 (Mac OS 15.0; arm64) Terminal", "Codex"),
        ("codex_exec/0.46.0", "Codex"),
        ("Zed/0.200.1 (linux; x86_64)", "Zed"),
        ("GitHubCopilotChat/0.31.5", "GitHub Copilot (VS Code)"),
        ("copilot/0.0.339 (linux v22)", "GitHub Copilot (CLI)"),
        ("Kilo-Code/4.99", "Kilo Code"),
        ("roo-code/3.28", "Roo Code"),
        ("Charm Crush/0.10", "Charm Crush"),
        ("charm-crush/0.10", "Charm Crush"),
        ("mux/0.1", "Mux"),
        ("Cursor/1.7", "Cursor"),
        ("opencode/0.14.1", "OpenCode"),
        ("OpenAI/Python 3.0.1", "Unknown"),
        ("x claude-cli/2", "Unknown"),
        ("zed", "Unknown"),
        ("", "Unknown"),
    ],
)
def test_clients_by_user_agent(agent: str, name: str) -> None:
    """The User-Agent's beginning tells, in any case of its letters."""
    assert client(user_agent=agent) == name
    assert client(user_agent=agent.upper()) == name
    assert name in CLIENTS


def test_clients_by_other_headers() -> None:
    """Some send the User-Agent of the SDK that they are built on."""
    assert client(x_cursor_client_version="1.7") == "Cursor"
    assert client(user_agent="OpenAI/JS 5", originator="kilo-code") == "Kilo Code"
    assert client(user_agent="OpenAI/JS 5", originator="roo-code") == "Roo Code"
    assert client(originator="somebody") == "Unknown"
    assert client(user_agent="codex_cli_rs/1", originator="roo-code") == "Codex"


@pytest.mark.parametrize(
    ("of", "header"),
    [
        ("Claude Code", "x_claude_code_session_id"),
        ("Codex", "session_id"),
        ("GitHub Copilot (VS Code)", "x_interaction_id"),
        ("GitHub Copilot (CLI)", "x_client_session_id"),
        ("Kilo Code", "x_kilocode_taskid"),
        ("Mux", "x_mux_workspace_id"),
        ("OpenCode", "x_opencode_session"),
    ],
)
def test_sessions_by_header(of: str, header: str) -> None:
    """Each client has a header of its own; another client's is not believed."""

    def sent(name: str) -> str:
        return f" {SESSION} " if name.replace("-", "_") == header else ""

    assert guess_session(of, sent, None) == SESSION
    assert guess_session("Unknown", sent, None) is None
    assert guess_session("Zed", sent, None) is None


def test_codex_writes_its_header_in_two_ways() -> None:
    """With an underscore or, where proxies drop those, with a hyphen."""
    assert guess_session("Codex", {"session_id": "a"}.get, None) == "a"  # type: ignore[arg-type]
    assert guess_session("Codex", lambda name: "b" if name == "session-id" else "", None) == "b"


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
        (f"session_{SESSION}_more", None),
        ("", None),
        (None, None),
    ],
)
def test_the_session_in_claude_codes_user_id(user_id: str | None, found: str | None) -> None:
    """As JSON, and in the older form with underscores; only Claude Code's is read so."""
    assert session("Claude Code", user_id) == found
    assert session("Unknown", user_id) is None


def test_the_header_is_nearer_than_the_body() -> None:
    """Where both tell, the header does."""
    assert session("Claude Code", f"x_session_{SESSION}", x_claude_code_session_id="h") == "h"
    assert session("Claude Code", f"x_session_{SESSION}", x_claude_code_session_id=" ") == SESSION
