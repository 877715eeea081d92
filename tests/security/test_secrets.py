"""Secrets and prompts, and all the places where they must not turn up."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.gateway.bodies import CHAT, WIRES, Wire
from tests.gateway.client import KEY
from tests.gateway.gateway import ADMIN, ANTHROPIC_KEY, OPENAI_KEY, gateway

pytestmark = pytest.mark.anyio

PROMPT = "the-private-prompt"
OWN_KEY = "sk-of-the-callers-own-account"
WRONG_KEY = "k-of-nobody"
SECRETS = (KEY, ADMIN, OPENAI_KEY, ANTHROPIC_KEY, OWN_KEY, WRONG_KEY)


class Everything(logging.Handler):
    """Keeps all that is logged, as text, with tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {logging.Formatter().format(record)}")

    def check(self, *private: str) -> None:
        for line in self.lines:
            for one in private:
                assert one not in line, line


@pytest.fixture(name="log")
def _log() -> Iterator[Everything]:
    """Every logger that there is, at its most talkative."""
    handler, root = Everything(), logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in list(root.manager.loggerDict))]
    levels = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(1)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    for logger, level in levels:
        logger.setLevel(level)


@pytest.fixture(name="spans")
def _spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def private(wire: Wire, *, stream: bool = False) -> bytes:
    return wire.ask(stream=stream).replace(b"say it", PROMPT.encode())


async def test_nothing_private_is_told(log: Everything, spans: InMemorySpanExporter, tmp_path: Path) -> None:
    """Good and bad requests and a provider that repeats what it was sent: no log line at any level of any library, no
    span, metric, record or answer of the gateway's own contains a key, nor, content not being captured, the prompt.
    """
    asyncio.get_running_loop().set_debug(True)
    recorder = SQLRecorder(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}", capture_content=False)
    ours: list[bytes] = []
    async with gateway(recorder=recorder, providers={"byok": True, "read_timeout": 0.2}) as gate:
        for wire in WIRES:
            for stream in (False, True):
                asked = asyncio.create_task(gate.request("POST", wire.target, private(wire, stream=stream)))
                call = await gate.upstream.call()
                if stream:
                    await call.stream(*wire.events)
                    await call.end()
                else:
                    await call.answer(wire.blocking)
                assert (await asked).status == 200
            # The provider repeats what it was sent, in its error and in the middle of a stream.
            echo = json.dumps(
                {"error": {"message": f"{OPENAI_KEY} {ANTHROPIC_KEY} {PROMPT}", "type": "x", "code": None}}
            )
            asked = asyncio.create_task(gate.request("POST", wire.target, private(wire)))
            await (await gate.upstream.call()).answer(echo.encode(), status=401)
            assert (await asked).status == 401
            asked = asyncio.create_task(gate.request("POST", wire.target, private(wire, stream=True)))
            call = await gate.upstream.call()
            await call.stream(wire.events[0], wire.events[1][:20] + PROMPT.encode())
            call.reset()
            await asked
            # What the gateway itself refuses or cannot do.
            for how in ("reset", "garbage", "silence"):
                asked = asyncio.create_task(gate.request("POST", wire.target, private(wire)))
                call = await gate.upstream.call()
                if how == "garbage":
                    await call.write(f"{OPENAI_KEY} {PROMPT}\r\n\r\n".encode())
                elif how == "reset":
                    call.reset()
                ours.append((await asked).body)
            own = {"X-AIBridge-Token": KEY, "Authorization": f"Bearer {OWN_KEY}"}
            asked = asyncio.create_task(gate.request("POST", wire.target, private(wire), own, key=None))
            (await gate.upstream.call()).reset()
            ours.append((await asked).body)
            for body, headers, key in (
                (private(wire)[:-1], {}, KEY),
                (json.dumps({"prompt": PROMPT}).encode(), {}, KEY),
                (PROMPT.encode(), {"Content-Encoding": "gzip"}, KEY),
                (gzip.compress(private(wire))[:-5], {"Content-Encoding": "gzip"}, KEY),
                (private(wire), {"Content-Encoding": "x"}, KEY),
                (private(wire), {}, WRONG_KEY),
            ):
                ours.append((await gate.request("POST", wire.target, body, headers, key)).body)
        for key in (ADMIN, WRONG_KEY):
            for path in ("metrics", "pool", "providers", "interceptions", "usage", "interceptions/export"):
                ours.append((await gate.request("GET", f"/ai/admin/{path}", key=key)).body)
            ours.append((await gate.request("POST", "/ai/admin/reload", key=key)).body)
    log.check(*SECRETS, PROMPT)
    assert len(log.lines) > 100
    for name, told in (
        ("answers", b"".join(ours).decode()),
        ("spans", "".join(span.to_json() for span in spans.get_finished_spans())),
        ("records", b"".join(file.read_bytes() for file in tmp_path.iterdir()).decode("latin-1")),  # noqa: ASYNC240
    ):
        for one in (*SECRETS, PROMPT):
            assert one not in told, f"{one} in {name}"


async def test_captured_records_hold_no_key(tmp_path: Path) -> None:
    """Where content is captured, what a provider says is; but not the key that was sent to it."""
    recorder = SQLRecorder(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}")
    echo = json.dumps({"error": {"message": f"no such key: {OPENAI_KEY}", "type": "x", "code": None}}).encode()
    async with gateway(recorder=recorder) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, private(CHAT)))
        await (await gate.upstream.call()).answer(echo, status=401)
        assert (await asked).body == echo
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir()).decode("latin-1")  # noqa: ASYNC240
    assert "no such key" in written
    assert OPENAI_KEY not in written


async def test_database_errors_hide_what_was_written(tmp_path: Path) -> None:
    """SQLAlchemy puts the values of a statement into its errors, unless it is told not to."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}")
    database.open(create=True)
    try:
        with pytest.raises(OperationalError) as caught:
            async with database.writing() as connection:
                await connection.execute(text("INSERT INTO nowhere VALUES (:prompt)"), {"prompt": PROMPT})
        assert PROMPT not in str(caught.value)
    finally:
        await database.close()
