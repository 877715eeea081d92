"""Coding agents used with the example app."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_coding_agents_complete_a_turn_with_a_tool_call() -> None:
    """Claude Code and Codex read a file and answer through the gateway, which records their names and sessions."""
    command = [sys.executable, str(ROOT / "examples" / "agents.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("The gateway works.") == 2
    claude_code, codex = done.stdout.split("== recorded of ")[1:]
    for client, tool, text in (("Claude Code", "Read", claude_code), ("Codex", "exec_command", codex)):
        assert text.startswith(client)
        assert len(set(re.findall(r"session ([0-9a-f-]{36})", text))) == 1
        assert f"{tool}(" in text
