"""Secrets and prompts, and all the places where they must not appear."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from fastapi_aibridge.recorder.database import Database
from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.e2e.gateway.bodies import CHAT, WIRES, Wire
from tests.e2e.gateway.client import KEY
from tests.e2e.gateway.gateway import ADMIN, ANTHROPIC_KEY, OPENAI_KEY, gateway

pytestmark = pytest.mark.anyio

PROMPT = "the-private-prompt"
OWN_KEY = "sk-of-the-callers-own-account"
WRONG_KEY = "k-of-nobody"
HEADER = "secret-of-a-header"
SECRETS = (KEY, ADMIN, OPENAI_KEY, ANTHROPIC_KEY, OWN_KEY, WRONG_KEY)


class Everything(logging.Handler):
    """A handler that keeps all log records as text, with tracebacks."""

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
    """Capture all loggers at their lowest level."""
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


def private(wire: Wire, *, stream: bool = False) -> bytes:
    return wire.ask(stream=stream).replace(b"say it", PROMPT.encode())


async def test_nothing_private_is_told(log: Everything, spans: InMemorySpanExporter, tmp_path: Path) -> None:
    """No key, and without captured content no prompt, is in a log line, span, metric, record or response of our own.

    The requests are good and bad, and the provider repeats what it was sent.
    """
    asyncio.get_running_loop().set_debug(True)
    recorder = SQLRecorder(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}", capture_content=False)
    ours: list[bytes] = []
    async with gateway(recorder=recorder, providers={"byok": True, "read_timeout": 0.5}) as gate:
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
            # The provider repeats keys and prompt, in its error and in the middle of a stream.
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
            # The gateway itself refuses these requests, or cannot complete them.
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
    """Captured content has a provider's error, but not the key that the error repeats."""
    recorder = SQLRecorder(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}")
    echo = json.dumps({"error": {"message": f"no such key: {OPENAI_KEY}", "type": "x", "code": None}}).encode()
    async with gateway(recorder=recorder) as gate:
        asked = asyncio.create_task(gate.request("POST", CHAT.target, private(CHAT)))
        await (await gate.upstream.call()).answer(echo, status=401)
        assert (await asked).body == echo
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir()).decode("latin-1")  # noqa: ASYNC240
    assert "no such key" in written
    assert OPENAI_KEY not in written


@pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])
async def test_headers_of_the_settings_are_masked_like_keys(wire: Wire, tmp_path: Path) -> None:
    """A secret in `EXTRA_HEADERS` is masked in records, as keys are, in errors, error events and tool arguments."""
    recorder = SQLRecorder(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}")
    async with gateway(recorder=recorder, providers={"extra_headers": {"X-Gate": f"Bearer {HEADER}"}}) as gate:
        key = OPENAI_KEY if wire.provider == "openai" else ANTHROPIC_KEY
        said = f"refused {HEADER} {key}"
        error = {"type": "error", "error": {"message": said, "type": "api_error", "code": None}}
        asked = asyncio.create_task(gate.request("POST", wire.target, private(wire)))
        await (await gate.upstream.call()).answer(json.dumps(error).encode(), status=400)
        await asked
        asked = asyncio.create_task(gate.request("POST", wire.target, private(wire, stream=True)))
        call = await gate.upstream.call()
        await call.stream(wire.events[0], f"event: error\ndata: {json.dumps(error)}\n\n".encode())
        await call.end()
        await asked
        asked = asyncio.create_task(gate.request("POST", wire.target, private(wire)))
        await (await gate.upstream.call()).answer(json.dumps(calling(said)[wire.target]).encode())
        assert HEADER.encode() in (await asked).body
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir()).decode("latin-1")  # noqa: ASYNC240
    assert written.count("refused ") >= 3
    assert HEADER not in written
    assert key not in written


def calling(said: str) -> dict[str, dict[str, object]]:
    """Return, for each route, a response with a tool call that has this text among its arguments, names included."""
    arguments = {"said": [{said: said}]}
    text = json.dumps(arguments)
    return {
        "/ai/openai/v1/chat/completions": {
            "id": "c",
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "tool_calls",
                    "message": {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": text}}],
                    },
                }
            ],
        },
        "/ai/openai/v1/responses": {
            "id": "r",
            "object": "response",
            "status": "completed",
            "output": [{"type": "function_call", "id": "i", "call_id": "t", "name": "f", "arguments": text}],
        },
        "/ai/anthropic/v1/messages": {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "f", "input": arguments}],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 1, "output_tokens": 1},
        },
    }


async def test_database_errors_hide_what_was_written(tmp_path: Path) -> None:
    """A database error does not have the values of its statement, which SQLAlchemy would add by default."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}")
    database.open(create=True)
    try:
        with pytest.raises(OperationalError) as caught:
            async with database.writing() as connection:
                await connection.execute(text("INSERT INTO nowhere VALUES (:prompt)"), {"prompt": PROMPT})
        assert PROMPT not in str(caught.value)
    finally:
        await database.close()
