"""Log lines: one for each interception, visible even if nobody has configured logging."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fastapi_aibridge.observability.console import LOGGER, Console, console
from fastapi_aibridge.observability.lines import InterceptionLines
from fastapi_aibridge.recorder import Ending, Interception, Status, TokenUsage
from tests.waiting import until

ENDING = Ending(status=Status.COMPLETED, ended_at=datetime(2026, 1, 1, tzinfo=UTC), upstream_status=200)
USAGES = [
    TokenUsage(message_id="m", input_tokens=8, output_tokens=10, cache_read_tokens=3),
    TokenUsage(message_id="n", input_tokens=1, output_tokens=2, cache_write_tokens=4),
]
TOLD = (
    "id=i-1 initiator=alice client=Codex provider=openai route=/v1/responses model=gpt-5 status=completed "
    "upstream_status=200 seconds=1.234 input_tokens=9 output_tokens=12 cache_read_tokens=3 cache_write_tokens=4"
)


def interception(**members: Any) -> Interception:
    given = {
        "id": "i-1", "initiator_id": "alice", "api_key_id": "", "provider": "openai", "provider_type": "openai",
        "route": "/v1/responses", "model": "gpt-5", "streaming": True, "client": "Codex", "user_agent": None,
        "session_id": None, "correlating_tool_call_id": None, "credential_kind": "centralized",
        "credential_hint": None, "metadata": {}, "started_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return Interception(**{**given, **members})


@contextmanager
def unconfigured() -> Iterator[io.StringIO]:
    """The standard error of a process without configured logging."""
    with pytest.MonkeyPatch.context() as patch:
        written = io.StringIO()
        patch.setattr("sys.stderr", written)
        patch.setattr(logging.root, "handlers", [])
        yield written


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    assert (LOGGER.handlers, LOGGER.level) == ([], logging.NOTSET)


@pytest.mark.parametrize(
    ("cost", "estimated", "told"),
    [(1_234_567, False, " cost_usd=1.234567"), (1, True, " cost_usd=0.000001 cost_estimated=true"), (None, False, "")],
)
def test_a_line_tells_the_cost(caplog: pytest.LogCaptureFixture, cost: int | None, estimated: bool, told: str) -> None:
    """A line has the cost if it is known."""
    caplog.set_level(logging.INFO)
    InterceptionLines().ended(interception(), replace(ENDING, cost=cost, cost_estimated=estimated), 1.2341, USAGES)
    assert caplog.messages == [f"interception {TOLD}{told}"]


def test_a_line_in_text(caplog: pytest.LogCaptureFixture) -> None:
    """A line has all members that the page on logs lists, and the app's formatters can read them separately."""
    caplog.set_level(logging.INFO)
    InterceptionLines().ended(interception(), ENDING, 1.2341, USAGES)
    (record,) = caplog.records
    assert record.getMessage() == f"interception {TOLD}"
    assert (record.name, record.levelno) == ("fastapi_aibridge.interceptions", logging.INFO)
    assert vars(record)["aibridge"]["output_tokens"] == 12


def test_a_line_in_json(caplog: pytest.LogCaptureFixture) -> None:
    """The message is the JSON object, whatever the app's handler."""
    caplog.set_level(logging.INFO)
    InterceptionLines("json").ended(interception(), ENDING, 1.2341, USAGES)
    told = json.loads(caplog.messages[0])
    assert (told["id"], told["initiator"], told["model"], told["status"]) == ("i-1", "alice", "gpt-5", "completed")
    assert (told["seconds"], told["input_tokens"], told["level"]) == (1.234, 9, "INFO")
    datetime.fromisoformat(told["time"])


@pytest.mark.parametrize("format_", ["text", "json"])
@pytest.mark.parametrize(
    "hostile", ["a\nINFO:     interception forged", "\x1b[2J", "a b", "x" * 10_000, "\ud800", "ä\x9b1m"]
)
def test_callers_cannot_write_lines_of_their_own(caplog: pytest.LogCaptureFixture, format_: Any, hostile: str) -> None:
    """Values that callers choose are quoted, cut, and free of control characters."""
    caplog.set_level(logging.INFO)
    InterceptionLines(format_).ended(interception(initiator_id=hostile, model=hostile), ENDING, 1, [])
    (line,) = caplog.messages
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 1500


async def _later(written: io.StringIO) -> str:
    await until(written.getvalue)
    return written.getvalue()


@pytest.mark.anyio
async def test_lines_are_seen_without_configured_logging() -> None:
    """Without configured logging the lines appear beside uvicorn's and in its style; warnings are unchanged."""
    with unconfigured() as stderr:
        with console("text") as shown:
            InterceptionLines("text", shown).ended(interception(), ENDING, 1.2341, USAGES)
            assert await _later(stderr) == f"INFO:     interception {TOLD}\n"
            logging.getLogger("fastapi_aibridge.pool").warning("something %s", "\x1b[31mred")
            logging.getLogger("fastapi_aibridge.pool").debug("unseen")
        assert stderr.getvalue().splitlines()[1:] == ["WARNING:  something \\x1b[31mred"]


@pytest.mark.anyio
async def test_all_lines_are_json_if_wished() -> None:
    """Every line is one JSON object, including a traceback."""
    with unconfigured() as stderr:
        with console("json") as shown:
            InterceptionLines("json", shown).ended(interception(), ENDING, 1, [])
            try:
                raise ValueError("no")
            except ValueError:
                logging.getLogger("fastapi_aibridge.pool").exception("failed")
        first, second = (json.loads(line) for line in stderr.getvalue().splitlines())
        assert (first["logger"], first["status"]) == ("fastapi_aibridge.interceptions", "completed")
        assert (second["level"], second["message"]) == ("ERROR", "failed")
        assert "ValueError: no" in second["exception"]


@pytest.mark.parametrize("place", [logging.root, LOGGER])
def test_an_apps_own_logging_is_left_alone(place: logging.Logger) -> None:
    """If the app has a handler, no handler is added and no level is changed."""
    with unconfigured() as stderr:
        own = logging.StreamHandler(io.StringIO())
        place.addHandler(own)
        try:
            with console("text") as shown:
                assert shown is None
                assert LOGGER.handlers == ([own] if place is LOGGER else [])
                assert LOGGER.level == logging.NOTSET
                InterceptionLines("text", shown).ended(interception(), ENDING, 1, [])
        finally:
            place.removeHandler(own)
        assert stderr.getvalue() == ""


def test_logging_that_is_configured_later_is_not_doubled() -> None:
    """An app that configures logging in its own lifespan gets each line once."""
    with unconfigured() as stderr:
        theirs = io.StringIO()
        with console("text") as shown:
            logging.root.addHandler(logging.StreamHandler(theirs))
            InterceptionLines("text", shown).ended(interception(), ENDING, 1, [])
            logging.getLogger("fastapi_aibridge.pool").warning("once")
        assert stderr.getvalue() == ""
        assert theirs.getvalue() == "once\n"


def test_two_apps_share_one_console() -> None:
    """With two apps each line is written once, and the last app that stops removes the handler."""
    with unconfigured() as stderr:
        with console("text"):
            with console("text") as second:
                assert isinstance(second, Console)
                LOGGER.warning("both")
            LOGGER.warning("one")
        assert stderr.getvalue() == "WARNING:  both\nWARNING:  one\n"


def test_a_closed_standard_error_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing standard error, as in a daemon, is not an error."""
    closed = io.StringIO()
    closed.close()
    with unconfigured(), console("text"):
        monkeypatch.setattr("sys.stderr", closed)
        LOGGER.warning("nobody reads this")


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["fastapi_aibridge.interceptions", "fastapi_aibridge"])
async def test_the_lines_can_be_silenced(name: str) -> None:
    """The level of the logger silences the lines."""
    with unconfigured() as stderr, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(name), "level", logging.WARNING)
        with console("text") as shown:
            InterceptionLines("text", shown).ended(interception(), ENDING, 1, [])
        assert stderr.getvalue() == ""
