"""`python -m fastapi_aibridge keys`."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest

from fastapi_aibridge.__main__ import main
from fastapi_aibridge.cluster import audit, client_keys
from fastapi_aibridge.cluster.client_key import ClientKey
from fastapi_aibridge.recorder.jsonform import members
from fastapi_aibridge.recorder.store import SQLStore


def run(url: str, *arguments: str) -> int:
    try:
        return main(["keys", *arguments, "--url", url] if arguments else ["keys"])
    except SystemExit as left:
        return int(left.code or 0)


async def stored(url: str) -> tuple[list[ClientKey], list[audit.AuditEntry]]:
    async with SQLStore(url) as store, store.database.reading() as connection:
        return (await client_keys.read_page(connection)).items, (await audit.read_page(connection)).items


def test_a_key_is_made_listed_and_revoked(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A key is created, listed and revoked, even before the app has run; standard output has the key alone."""
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    options = ("--label", "laptop", "--expires", later, "--groups", "staff, ops", "--models", "gpt-5*,claude-*")
    assert run(url, "create", "alice", *options) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"aib_[0-9A-Za-z]{49}\n", out)
    (key,), (entry,) = asyncio.run(stored(url))
    assert (key.initiator_id, key.label, key.groups, key.models) == (
        "alice",
        "laptop",
        ("staff", "ops"),
        ("gpt-5*", "claude-*"),
    )
    assert key.expires_at == datetime.fromisoformat(later)
    assert key.id in err
    assert (entry.action, entry.actor.startswith("command line")) == ("client_key.create", True)

    assert run(url, "create", "bob") == 0
    bobs = capsys.readouterr().out
    assert run(url, "list") == 0
    out = capsys.readouterr().out
    assert bobs.strip() not in out
    head, bob, alice = (line.split("\t") for line in out.splitlines())
    assert dict(zip(head, alice, strict=True)) | {"id": ""} == {
        "id": "",
        "hint": key.hint,
        "initiator_id": "alice",
        "label": "laptop",
        "groups": "staff,ops",
        "models": "gpt-5*,claude-*",
        "expires_at": members(key)["expires_at"],
        "revoked_at": "-",
        "last_used_at": "-",
    }
    assert bob[2:6] == ["bob", "", "-", "-"]
    assert run(url, "list", "--initiator", "bob") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2

    assert run(url, "revoke", key.id) == 0
    assert capsys.readouterr().out.split("\t")[0] == key.id
    keys, entries = asyncio.run(stored(url))
    assert [one.revoked_at is None for one in keys] == [True, False]
    assert entries[0].action == "client_key.revoke"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", ""), "initiator_id"),
        (("create", "a" * 513), "initiator_id"),
        (("create", "a", "--expires", "tomorrow"), "is not a time"),
        (("create", "a", "--expires", "2099-01-01T00:00:00"), "time zone"),
        (("create", "a", "--expires", "2020-01-01T00:00:00Z"), "future"),
        (("create", "a", "--label", "two\nlines"), "label"),
        (("create",), "INITIATOR"),
        (("revoke", "no-such"), "there is no client key"),
        ((), "command"),
    ],
)
def test_what_is_refused(
    tmp_path_factory: pytest.TempPathFactory, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invalid arguments are refused with a message, and no key is created."""
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('keys') / 'records.db'}"
    assert run(url, "create", "somebody") == 0
    capsys.readouterr()
    assert run(url, *arguments) != 0
    assert said in capsys.readouterr().err
    assert len(asyncio.run(stored(url))[0]) == 1


def test_names_that_would_steer_a_terminal(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Names with control characters are shown in one column of one line."""
    assert run(url, "create", "\x1b[31mred\ttab\nline") == 0
    capsys.readouterr()
    assert run(url, "list") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert [len(line.split("\t")) for line in out.splitlines()] == [9, 9]
