"""Claude Code and Codex, each through one turn with a tool call: `python examples/agents.py`.

Both come from npm, into a folder of their own, and talk to the example app, whose provider is offline: nothing is paid,
and after the installation nothing leaves the machine. Needs Node.js 20, npm and `pip install -e '.[example]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("AIBRIDGE_AGENTS_DIR") or Path.home() / ".cache" / "fastapi-aibridge" / "agents")
PACKAGES = {"claude": "@anthropic-ai/claude-code@2.1.197", "codex": "@openai/codex@0.169.0"}

TURN_SECONDS = 120
USER = "demo-alice"
ADMIN = "demo-admin"

QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}
"""Variables that keep Claude Code from contacting anything but its model. Codex has the same in its configuration."""

CODEX_CONFIGURATION = """
model = "gpt-5"
model_provider = "aibridge"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.aibridge]
name = "AI bridge"
base_url = "{base}/ai/openai/v1"
wire_api = "responses"
env_key = "AIBRIDGE_KEY"
"""


@dataclass(frozen=True, slots=True)
class Agent:
    """A coding agent: its command and environment, its name in the records, and the tool that it is to call."""

    client: str
    command: list[str]
    environment: dict[str, str]
    tool: str


def main() -> int:
    options = _options()
    programs = install(options.latest)
    with tempfile.TemporaryDirectory(prefix="aibridge-agents-", dir=CACHE) as name:
        home, work = Path(name) / "home", Path(name) / "work"
        work.mkdir()
        (work / "note.txt").write_text("The gateway works.\n", encoding="utf-8")
        with example_app(Path(name)) as base:
            agents = [claude_code(programs, base, home, work), codex(programs, base, home)]
            failed = [agent.client for agent in agents if not take_turn(agent, work)]
            records = recorded(base)
        failed += [agent.client for agent in agents if not show(agent, records)]
    if failed:
        print(f"\nfailed: {', '.join(sorted(set(failed)))}", file=sys.stderr)
    return 1 if failed else 0


def install(latest: bool) -> Path:
    """Install the two programs and return their folder. Runs npm only if they are missing or `latest` is set."""
    CACHE.mkdir(parents=True, exist_ok=True)
    packages = [one.rpartition("@")[0] if latest else one for one in PACKAGES.values()]
    done = CACHE / ("latest" if latest else "-".join(one.rpartition("@")[2] for one in packages))
    programs = CACHE / "node_modules" / ".bin"
    if latest or not done.exists():
        print(f"npm install {' '.join(packages)}", flush=True)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(CACHE)]
        subprocess.run([*npm, *packages], check=True, stdout=subprocess.DEVNULL)
        done.touch()
    return programs


@contextmanager
def example_app(directory: Path) -> Iterator[str]:
    """Serve the example app with its offline provider while the block runs, and yield its base URL."""
    own = ("AIBRIDGE_", "OPENAI_", "ANTHROPIC_", "OTEL_")
    environment = {key: value for key, value in os.environ.items() if not key.upper().startswith(own)}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "example_app", "--port", "0"]
    log = directory / "app.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout is not None
        welcome = ""
        for line in process.stdout:
            welcome += line
            if "/admin/interceptions" in line:
                break
        found = re.search(r"http://127\.0\.0\.1:\d+", welcome)
        if found is None:
            raise RuntimeError(f"the example app did not start:\n{log.read_text(encoding='utf-8')}")
        yield found.group()
    finally:
        process.terminate()
        process.communicate(timeout=30)


def claude_code(programs: Path, base: str, home: Path, work: Path) -> Agent:
    """Claude Code with a prompt that makes its model read a file."""
    prompt = f"call Read {json.dumps({'file_path': str(work / 'note.txt')})}"
    environment = {
        **QUIET,
        "ANTHROPIC_BASE_URL": f"{base}/ai/anthropic",
        "ANTHROPIC_AUTH_TOKEN": USER,
        "CLAUDE_CONFIG_DIR": str(home / "claude"),
    }
    command = [str(programs / "claude"), "--print", prompt, "--model", "claude-sonnet-5"]
    return Agent("Claude Code", command, environment, "Read")


def codex(programs: Path, base: str, home: Path) -> Agent:
    """Codex with a prompt that makes its model run a command."""
    own = home / "codex"
    own.mkdir(parents=True)
    (own / "config.toml").write_text(CODEX_CONFIGURATION.format(base=base), encoding="utf-8")
    prompt = f"call exec_command {json.dumps({'cmd': 'cat note.txt'})}"
    command = [str(programs / "codex"), "exec", "--skip-git-repo-check", "--sandbox", "read-only", prompt]
    return Agent("Codex", command, {"CODEX_HOME": str(own), "AIBRIDGE_KEY": USER}, "exec_command")


def take_turn(agent: Agent, work: Path) -> bool:
    """Run the agent to the end of its turn, and return whether it succeeded."""
    print(f"\n== {agent.client}: {' '.join(agent.command[1:])}", flush=True)
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
    try:
        done = subprocess.run(
            agent.command,
            cwd=work,
            env={**kept, "HOME": str(work), **agent.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TURN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        print(f"no answer within {TURN_SECONDS} s")
        return False
    print(done.stdout.strip())
    if done.returncode:
        print(f"status {done.returncode}\n{done.stderr.strip()}")
    return done.returncode == 0


def recorded(base: str) -> list[dict[str, Any]]:
    """The gateway's interceptions, oldest first, waiting up to five seconds for all of them to end."""
    request = urllib.request.Request(f"{base}/ai/admin/interceptions", headers={"Authorization": f"Bearer {ADMIN}"})
    for _ in range(50):
        with urllib.request.urlopen(request, timeout=10) as response:
            items: list[dict[str, Any]] = json.load(response)["items"]
        if all(one["ended_at"] for one in items):
            break
        time.sleep(0.1)
    return items[::-1]


def show(agent: Agent, records: list[dict[str, Any]]) -> bool:
    """Print the agent's interceptions.

    Returns whether they share one session, include the tool call, and all completed.
    """
    own = [one for one in records if one["client"] == agent.client]
    print(f"\n== recorded of {agent.client}")
    for one in own:
        calls = [f"{call['tool']}({json.dumps(call['arguments'])})" for call in one["tool_usages"]]
        tokens = sum(usage["output_tokens"] for usage in one["token_usages"])
        print(f"session {one['session_id']}  {one['route']}  {one['status']}  {tokens} tokens  {' '.join(calls)}")
    tools = [call["tool"] for one in own for call in one["tool_usages"]]
    return (
        agent.tool in tools
        and all(one["status"] == "completed" for one in own)
        and len({one["session_id"] for one in own} - {None}) == 1
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latest", action="store_true", help="the newest releases, not those that were tested")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
