from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from fastapi_aibridge.__main__ import main
from fastapi_aibridge.errors import ConfigurationError
from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.sql import SQLRecorder

from .making import ending, full_facts, interception


class Command:
    """The command line, run in this process: faster, and the same but for the interpreter's start."""

    def __init__(self, capture: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capture = capture
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, url: str | None = None, code: int = 0) -> str:
        with self._monkeypatch.context() as patch:
            patch.delenv("AIBRIDGE_RECORDER__URL", raising=False)
            if url is not None:
                patch.setenv("AIBRIDGE_RECORDER__URL", url)
            try:
                status: object = main(arguments)
            except SystemExit as left:
                status = left.code
        captured = self._capture.readouterr()
        assert status == code, captured.err
        return (captured.err if code else captured.out).decode()


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsysbinary, monkeypatch)


def fill(url: str) -> None:
    async def record() -> None:
        async with SQLRecorder(url, retention=0) as recorder:
            for days in (1, 100):
                begun = interception(id=f"i{days}", started_at=datetime.now(UTC) - timedelta(days=days))
                await recorder.start(begun)
                await recorder.end(begun.id, ending(), full_facts())

    asyncio.run(record())


def test_the_command_migrates_exports_and_prunes(url: str, tmp_path: Path, run: Command) -> None:
    """The whole life of a database from the command line, the URL given or from the environment."""
    assert "have been migrated" in run("migrate", "--url", url)
    assert "nothing to migrate" in run("migrate", url=url)
    fill(url)
    lines = [orjson.loads(line) for line in run("export", url=url).splitlines()]
    assert [line["id"] for line in lines] == ["i1", "i100"]
    target = tmp_path / "out.csv"
    before = (datetime.now(UTC) - timedelta(days=50)).isoformat()
    run("export", "--format", "csv", "--output", str(target), "--started-before", before, url=url)
    assert len(target.read_text().splitlines()) == 2
    assert run("export", "--initiator-id", "nobody", url=url) == ""
    assert run("prune", url=url) == "1 interceptions deleted\n"
    assert run("prune", "--older-than", "12h", url=url) == "1 interceptions deleted\n"
    assert run("export", url=url) == ""


def test_mistakes_are_told_in_a_sentence(tmp_path: Path, run: Command) -> None:
    """No traceback for a file that is not there, a database that is not migrated, a URL of another kind."""
    missing = tmp_path / "missing.db"
    assert "there is no database" in run("export", "--url", f"sqlite+aiosqlite:///{missing}", code=1)
    assert not missing.exists()
    missing.touch()
    assert "has it been migrated?" in run("export", "--url", f"sqlite+aiosqlite:///{missing}", code=1)
    assert "SQLite or PostgreSQL" in run("prune", "--url", "mysql://root:hunter2@localhost/x", code=1)
    assert "is not a duration" in run("prune", "--older-than", "soon", code=2)


def test_the_module_can_be_run(tmp_path: Path) -> None:
    """`python -m fastapi_aibridge` is the command."""
    command = [sys.executable, "-m", "fastapi_aibridge", "migrate", "--url", f"sqlite:///{tmp_path / 'records.db'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "the tables have been migrated\n"


@pytest.mark.parametrize("url", ["nonsense", "mysql://root:hunter2@host/x", "sqlite:///x.db?synchronous=off"])
def test_a_wrong_url_is_refused_without_being_quoted(url: str) -> None:
    """The error names what is possible and keeps the password to itself."""
    with pytest.raises(ConfigurationError) as caught:
        Database(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_new_sqlite_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Records hold prompts; neither the file nor its log may be read by others."""
    path = tmp_path / "below" / "records.db"

    async def look() -> list[int]:
        async with SQLRecorder(f"sqlite+aiosqlite:///{path}?synchronous=normal") as recorder:
            await recorder.start(interception())
            return [file.stat().st_mode & 0o077 for file in path.parent.iterdir()]

    assert asyncio.run(look()) == [0, 0, 0]


def test_a_database_in_memory_is_one_for_all_its_connections() -> None:
    """`sqlite+aiosqlite://` records and reads back like any other, and is gone afterwards."""

    async def record() -> None:
        async with SQLRecorder("sqlite+aiosqlite://") as recorder:
            await recorder.start(begun := interception())
            assert await recorder.get(begun.id)

    asyncio.run(record())
    asyncio.run(record())
