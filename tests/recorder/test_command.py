from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from sqlalchemy import make_url

from fastapi_aibridge.__main__ import main
from fastapi_aibridge.errors import ConfigurationError, RecorderUnavailable
from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.loopback import free_port

from .builders import ending, full_facts, interception
from .postgres import PostgresServer


class Command:
    """The command line, run in this process, which is faster than an interpreter for each command."""

    def __init__(self, capture: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capture = capture
        self._monkeypatch = monkeypatch
        self.said = ""

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
        self.said = captured.err.decode()
        return self.said if code else captured.out.decode()

    def told(self, *arguments: str, url: str | None = None) -> str:
        """The standard error of a command, which must succeed."""
        self(*arguments, url=url)
        return self.said


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


def test_the_command_migrates_exports_and_prunes(empty_url: str, tmp_path: Path, run: Command) -> None:
    """The commands cover the whole life of a database, with the URL given as an option or by the environment."""
    assert "have been migrated" in run("migrate", "--url", empty_url)
    assert "nothing to migrate" in run("migrate", url=empty_url)
    fill(empty_url)
    lines = [orjson.loads(line) for line in run("export", url=empty_url).splitlines()]
    assert [line["id"] for line in lines] == ["i1", "i100"]
    target = tmp_path / "out.csv"
    before = (datetime.now(UTC) - timedelta(days=50)).isoformat()
    run("export", "--format", "csv", "--output", str(target), "--started-before", before, url=empty_url)
    assert len(target.read_text().splitlines()) == 2
    assert run("export", "--initiator-id", "nobody", url=empty_url) == ""
    assert run("prune", url=empty_url) == "1 interceptions deleted\n"
    assert run("prune", "--older-than", "12h", url=empty_url) == "1 interceptions deleted\n"
    assert run("export", url=empty_url) == ""


def test_mistakes_are_told_in_a_sentence(tmp_path: Path, run: Command) -> None:
    """A missing file, a database that is not migrated, and an unknown kind of URL give a message, not a traceback."""
    missing = tmp_path / "missing.db"
    assert "there is no database" in run("export", "--url", f"sqlite+aiosqlite:///{missing}", code=1)
    assert not missing.exists()
    missing.touch()
    assert "has it been migrated?" in run("export", "--url", f"sqlite+aiosqlite:///{missing}", code=1)
    assert "SQLite or PostgreSQL" in run("prune", "--url", "mysql://root:hunter2@localhost/x", code=1)
    assert "is not a duration" in run("prune", "--older-than", "soon", code=2)


def test_the_database_is_the_apps(tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds the URL where the app does, even if other settings are invalid, and names its source."""
    one, two, three = (tmp_path / f"{name}.db" for name in ("one", "two", "three"))
    file = tmp_path / "aibridge.toml"
    file.write_text(f'[recorder]\nurl = "sqlite:///{one}"\n[providers.openai]\nmax_retries = 99')
    monkeypatch.setenv("AIBRIDGE_CONFIG_FILE", str(file))
    assert run.told("migrate") == f"database: SQLite in {one} ({file})\n"
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "aibridge_recorder__url").write_text(f"sqlite:///{two}\n")
    monkeypatch.setenv("AIBRIDGE_SECRETS_DIR", str(secrets))
    assert run.told("migrate") == f"database: SQLite in {two} ({secrets})\n"
    assert run.told("migrate", url=f"sqlite:///{three}") == f"database: SQLite in {three} (AIBRIDGE_RECORDER__URL)\n"
    assert run.told("migrate", "--url", f"sqlite:///{one}") == f"database: SQLite in {one} (--url)\n"
    assert one.exists()
    assert two.exists()
    assert three.exists()


def test_the_default_is_named(tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configured database, the message names the default file."""
    monkeypatch.chdir(tmp_path)
    said = run("export", code=1)
    assert f"database: SQLite in {tmp_path / 'aibridge.db'} (the default; AIBRIDGE_RECORDER__URL is not set)" in said
    assert f"there is no database '{tmp_path / 'aibridge.db'}'" in said


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"postgresql://u:hunter2@127.0.0.1:{free_port()}/records", "Connection refused"),
        ("postgresql://u:hunter2@no.such.host.invalid/records", "the host's name cannot be resolved"),
    ],
    ids=["refused", "unknown host"],
)
def test_a_database_that_does_not_answer_is_named(run: Command, url: str, told: str) -> None:
    """The message has the setting, the host and the cause on one line, without the password."""
    for command in ("migrate", "export", "prune"):
        said = run(command, url=url, code=1)
        (line,) = (line for line in said.splitlines() if line.startswith("error: "))
        assert "AIBRIDGE_RECORDER__URL" in line
        assert url.partition("@")[2].partition("/")[0] in line
        assert told in line
        assert len(said.splitlines()) == 2
        assert "hunter2" not in said


def test_a_database_that_there_is_not(postgres: PostgresServer, run: Command) -> None:
    """For a database that does not exist, the message is PostgreSQL's own."""
    url = make_url(postgres.empty_database()).set(database="no_such_database").render_as_string(hide_password=False)
    assert 'database "no_such_database" does not exist' in run("export", url=url, code=1)


def test_a_file_that_is_no_database(tmp_path: Path, run: Command) -> None:
    """A file that is not a database is left unchanged, and the message names it."""
    file = tmp_path / "notes.txt"
    file.write_text("my notes " * 100)
    assert f"SQLite in {file}: file is not a database" in run("export", url=f"sqlite:///{file}", code=1)
    assert file.read_text() == "my notes " * 100


def test_a_directory_that_is_missing(tmp_path: Path, run: Command) -> None:
    """A path with a typing error does not create a database in another folder."""
    said = run("migrate", url=f"sqlite:///{tmp_path}/dta/records.db", code=1)
    assert f"there is no directory '{tmp_path}/dta'" in said
    assert not (tmp_path / "dta").exists()


def test_the_app_says_the_same_at_its_start() -> None:
    """The app's start reports a database error in one line, without the driver's traceback."""
    url = f"postgresql+asyncpg://u:hunter2@127.0.0.1:{free_port()}/records"

    async def start() -> None:
        async with SQLRecorder(url, open_timeout=0.1):
            pass

    with pytest.raises(RecorderUnavailable) as caught:
        asyncio.run(start())
    text = "".join(traceback.format_exception(caught.value))
    assert "AIBRIDGE_RECORDER__URL: PostgreSQL at 127.0.0.1:" in text
    assert "database 'records': Connection refused" in text
    assert len(text.splitlines()) < 30
    assert "hunter2" not in text


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_an_export_is_for_its_owner_alone(tmp_path: Path, run: Command) -> None:
    """An export is readable by its owner alone, even if it replaces a file that others could read."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    run("migrate", url=url)
    new, old = tmp_path / "new.csv", tmp_path / "old.csv"
    old.write_text("x" * 10_000)
    old.chmod(0o644)
    for file in (new, old):
        run("export", "--format", "csv", "--output", str(file), url=url)
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_text().startswith("id,")
        assert "x" * 100 not in file.read_text()
    assert "No such file or directory" in run("export", "--output", str(tmp_path / "no" / "f"), url=url, code=1)


def test_nothing_steers_the_terminal(run: Command, tmp_path: Path) -> None:
    """No control character reaches the terminal, not even from a file's name."""
    said = run("export", url=f"sqlite:///{tmp_path}/\x1b[2J.db", code=1)
    assert "\x1b" not in said
    assert "\\x1b" in said


def test_the_module_can_be_run(tmp_path: Path) -> None:
    """`python -m fastapi_aibridge` runs the command."""
    command = [sys.executable, "-m", "fastapi_aibridge", "migrate", "--url", f"sqlite:///{tmp_path / 'records.db'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "the tables have been migrated\n"


@pytest.mark.parametrize("url", ["nonsense", "mysql://root:hunter2@host/x", "sqlite:///x.db?synchronous=off"])
def test_a_wrong_url_is_refused_without_being_quoted(url: str) -> None:
    """The error lists the possible kinds of URL and does not show the password."""
    with pytest.raises(ConfigurationError) as caught:
        Database(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_new_sqlite_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """A new SQLite file and its write-ahead log, which hold prompts, are readable by their owner alone."""
    path = tmp_path / "records.db"

    async def look() -> list[int]:
        async with SQLRecorder(f"sqlite+aiosqlite:///{path}?synchronous=normal") as recorder:
            await recorder.start(interception())
            return [file.stat().st_mode & 0o077 for file in path.parent.glob("records.db*")]

    assert asyncio.run(look()) == [0, 0, 0]


def test_a_database_in_memory_is_one_for_all_its_connections() -> None:
    """`sqlite+aiosqlite://` records and reads like any other URL, and loses its records at the end."""

    async def record() -> None:
        async with SQLRecorder("sqlite+aiosqlite://") as recorder:
            await recorder.start(begun := interception())
            assert await recorder.get(begun.id)

    asyncio.run(record())
    asyncio.run(record())


def test_erase(url: str, run: Command) -> None:
    """`erase --content` removes an initiator's content, and `erase` all of their records."""
    fill(url)
    assert "erased" in run("erase", "alice", "--content", url=url)
    assert "secret" not in run("export", "--initiator-id", "alice", url=url)
    assert run("export", "--initiator-id", "alice", url=url)
    run("erase", "alice", url=url)
    assert run("export", "--initiator-id", "alice", url=url) == ""
