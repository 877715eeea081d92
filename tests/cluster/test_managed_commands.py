"""`python -m fastapi_aibridge import`, `export-settings` and `rotate-secrets`."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastapi_aibridge import Settings
from fastapi_aibridge.__main__ import main
from fastapi_aibridge.cluster import audit
from fastapi_aibridge.cluster.cipher import Cipher
from fastapi_aibridge.cluster.managed_form import ManagedEntry
from fastapi_aibridge.cluster.managed_settings import ManagedSettings
from fastapi_aibridge.recorder.store import SQLStore

OLD, NEW = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 2))
FILE = """
managed = true
admin_token = "hidden-admin-token"
redis_url = "redis://user:hidden-pass@127.0.0.1:9/0"
private_headers = ["X-User"]
shutdown_grace = "90s"
max_body_size = "1MiB"
budgets = [
  { scope = "initiator", id = "alice", usd = 0.1, period = "day" },
  { scope = "default", usd = 20, fallback_model = "small" },
]

[client_keys]
alice = ["hidden-key", "sha256:0000000000000000000000000000000000000000000000000000000000000000"]

[limits]
rules = [{ scope = "group", id = "staff*", requests = 5, window = "1m" }]

[prices.openai."gpt-5*"]
input = 1.5
output = 6

[providers.house]
type = "openai"
base_url = "https://models.internal/v1"
api_keys = ["sk-hidden-one", "sk-hidden-two"]
extra_headers = { X-Team = "hidden-team" }
proxy = "http://user:hidden-pass@127.0.0.1:9"
pass_through = ["/v1/files/*"]
enabled = false

[providers.house.circuit_breaker]
timeout = 5

[mcp_servers.files]
url = "https://files.example/mcp?key=hidden"
headers = { Authorization = "Bearer hidden-token" }
tool_allow = "^read_"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "aibridge.toml"
    file.write_text(FILE)
    monkeypatch.setenv("AIBRIDGE_CONFIG_FILE", str(file))
    monkeypatch.setenv("AIBRIDGE_SECRET_KEYS", f'["{OLD}"]')
    return file


async def stored(url: str, key: str) -> tuple[list[ManagedEntry], list[audit.AuditEntry]]:
    settings = Settings(secret_keys=[key])
    async with SQLStore(url) as store:
        entries = list(await ManagedSettings(store.database, Cipher(settings.secret_keys)).all())
        async with store.database.reading() as connection:
            return entries, (await audit.read_page(connection)).items


def test_import(url: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An import stores all secrets, even before the app has run, and keeps existing entries."""
    assert main(["import", "--url", url]) == 0
    assert "2 imported" in capsys.readouterr().out
    (files, house), entries = asyncio.run(stored(url, OLD))
    assert (files.body["url"], files.body["tool_allow"]) == ("https://files.example/mcp?key=hidden", "^read_")
    assert (house.body["api_keys"], house.body["enabled"]) == (["sk-hidden-one", "sk-hidden-two"], False)
    assert house.body["circuit_breaker"] == {"timeout": 5}
    assert {entry.action for entry in entries} == {"provider.import", "mcp_server.import"}
    file.write_text(FILE.replace("sk-hidden-one", "sk-other"))
    assert main(["import", "--url", url]) == 0
    told = capsys.readouterr()
    assert ("0 imported" in told.out, "is in the database already" in told.err) == (True, True)
    assert asyncio.run(stored(url, OLD))[0] == [files, house]


def test_a_name_that_the_database_does_not_take(url: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid name is reported, and the other entries are imported."""
    file.write_text(FILE.replace("mcp_servers.files", 'mcp_servers."My Files"'))
    assert main(["import", "--url", url]) == 1
    told = capsys.readouterr()
    assert ("1 imported" in told.out, "'My Files'" in told.err) == (True, True)


def test_what_is_exported_is_read_again(
    url: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export has no secrets, includes the database's entries, and can be loaded again."""
    assert main(["import", "--url", url]) == 0
    before = Settings.load()
    file.write_text(FILE.partition("[providers.house]")[0])
    capsys.readouterr()
    assert main(["export-settings", "--url", url]) == 0
    told = capsys.readouterr().out
    assert "hidden" not in told
    exported = tmp_path / "exported.toml"
    exported.write_text(told)
    monkeypatch.setenv("AIBRIDGE_CONFIG_FILE", str(exported))
    monkeypatch.setenv("AIBRIDGE_MCP_SERVERS__FILES__URL", "https://files.example/mcp")
    after = Settings.load()
    for name in ("budgets", "limits", "prices", "managed", "private_headers", "shutdown_grace", "max_body_size"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.providers["house"].circuit_breaker == before.providers["house"].circuit_breaker
    assert str(after.providers["house"].base_url) == "https://models.internal/v1"
    assert after.mcp_servers["files"].tool_allow == before.mcp_servers["files"].tool_allow


def test_two_exports_can_be_compared(url: str, file: Path) -> None:
    """An export lists members in the order of the settings, so that exports can be compared."""
    assert main(["import", "--url", url]) == 0
    command = [sys.executable, "-m", "fastapi_aibridge", "export-settings", "--url", url]
    told = {
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True, check=True).stdout
        for seed in range(3)
    }
    assert len(told) == 1


def test_rotation(url: str, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """After the rotation the new key alone is enough."""
    assert main(["import", "--url", url]) == 0
    before = asyncio.run(stored(url, OLD))[0]
    monkeypatch.setenv("AIBRIDGE_SECRET_KEYS", f'["{NEW}", "{OLD}"]')
    assert main(["rotate-secrets", "--url", url]) == 0
    entries, changes = asyncio.run(stored(url, NEW))
    assert entries == before
    assert (changes[0].action, changes[0].after) == ("secrets.rotate", {"entries": 2})
    monkeypatch.setenv("AIBRIDGE_SECRET_KEYS", f'["{OLD}"]')
    capsys.readouterr()
    assert main(["rotate-secrets", "--url", url]) == 1
    assert "no key fits" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["export-settings"], ["rotate-secrets"], ["keys", "list"], ["erase", "a"]])
def test_before_there_are_tables(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Without tables or a file, the command's only output is a message that they are missing; it creates none."""
    (tmp_path / "empty.db").touch()
    for name, missing in (("empty.db", "has it been migrated?"), ("none.db", "there is no database")):
        assert main([*command, "--url", f"sqlite+aiosqlite:///{tmp_path / name}"]) == 1
        told = capsys.readouterr()
        assert "error: " in told.err
        assert missing in told.err
        assert told.out == ""
    assert not (tmp_path / "none.db").exists()
