"""Exports over HTTP and by command, of many rows from a real server process."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from fastapi_aibridge.recorder.sql import SQLRecorder
from tests.e2e.gateway import client
from tests.recorder.builders import ending, full_facts, interception

from .process import ADMIN, GatewayProcess, Spawner
from .serving import CHAT, MESSAGES, gateway

pytestmark = pytest.mark.anyio

ROWS = 50_000


async def fill(url: str, count: int, **given: Any) -> None:
    async with SQLRecorder(url, retention=0, max_pending=4000) as recorder:

        async def record(numbers: range) -> None:
            for number in numbers:
                begun = interception(id=f"{number:06}-{uuid4()}", **given)
                await recorder.start(begun)
                await recorder.end(begun.id, ending(), full_facts())

        await asyncio.gather(*(record(range(first, count, 1000)) for first in range(min(count, 1000))))


async def test_fifty_thousand_rows(url: str, spawner: Spawner) -> None:
    """An export begins long before it ends and has each row once, and the server's memory stays flat."""
    await fill(url, ROWS)
    gateway = GatewayProcess(spawner, "http://127.0.0.1:1/v1", url)
    await gateway.start()
    for kind in ("jsonl", "csv"):
        await export_all(gateway, kind)
    await gateway.stop()


async def export_all(gateway: GatewayProcess, kind: str) -> None:
    server = psutil.Process(gateway.pid)
    begins: set[bytes] = set()
    early = peak = 0
    async with client.connected(gateway.port) as connection:
        await connection.send("GET", f"/ai/admin/interceptions/export?format={kind}", key=ADMIN)
        status, _ = await connection.head()
        assert status == 200
        first = await connection.piece()
        assert len(first) < 500_000
        # Other requests are served while nobody reads the export.
        assert (await gateway.request("GET", "/ai/healthz")).status == 200
        rest = first
        while piece := await connection.piece():
            *lines, rest = (rest + piece).split(b"\n")
            begins.update(line[:15] for line in lines)
            memory = server.memory_info().rss
            if len(begins) < ROWS // 10:
                early = memory
            peak = max(peak, memory)
    assert rest == b""
    assert len(begins) == ROWS + (kind == "csv")
    assert peak - early < 12_000_000, (early, peak)


async def test_an_export_is_the_listing(url: str) -> None:
    """An export has the listing's records, as JSON lines and CSV, filtered or not, whatever their text."""
    async with gateway(url) as gate:
        for number, prompt in enumerate(("plain", 'a,"b"\r\nc', "=1+1", "\N{SNOWMAN}")):
            assert (await gate.ask(CHAT if number % 2 else MESSAGES, prompt=prompt, model=prompt)).status_code == 200
        records = await gate.listing()
        lines = await gate.read("/interceptions/export")
        assert lines.headers["content-type"].startswith("application/jsonl")
        assert [json.loads(line) for line in lines.text.split("\n")[:-1]] == records
        some = await gate.read("/interceptions/export", provider="anthropic", format="jsonl")
        assert [json.loads(line) for line in some.text.split("\n")[:-1]] == await gate.listing(provider="anthropic")
        assert (await gate.read("/interceptions/export", model="none")).content == b""
        table = await gate.read("/interceptions/export", format="csv")
        assert table.headers["content-type"] == "text/csv; charset=utf-8"
        rows = list(csv.DictReader(io.StringIO(table.text, newline="")))
        assert [row["id"] for row in rows] == [one["id"] for one in records]
        assert [row["model"].removeprefix("'") for row in rows] == [one["model"] for one in records]
        assert [json.loads(row["prompts"]) for row in rows] == [one["prompts"] for one in records]
        assert {row["input_tokens"] for row in rows} == {"12"}


async def test_a_client_that_leaves_an_export(url: str) -> None:
    """Clients that leave exports do not keep connections to the database."""
    await fill(url, 3000)
    async with gateway(url) as gate:
        port = int(gate.url.rpartition(":")[2])
        for _ in range(20):
            async with client.connected(port) as connection:
                await connection.send("GET", "/ai/admin/interceptions/export", key="t-admin")
                assert (await connection.head())[0] == 200
        async with asyncio.timeout(60):
            assert len(await gate.listing(limit=500)) == 3000


async def run(url: str, *arguments: str) -> str:
    """Run the command; return its output. It must succeed, and log nothing but the database that it works on."""
    environment = {**os.environ, "AIBRIDGE_RECORDER__URL": url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "fastapi_aibridge", *arguments, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors
    (line,) = errors.decode().splitlines()
    assert line.startswith("database: ")
    assert line.endswith(" (AIBRIDGE_RECORDER__URL)")
    return output.decode()


async def test_the_command_beside_a_gateway(empty_url: str, tmp_path: Path) -> None:
    """The commands migrate before the first start, export as the HTTP route does, and prune while the gateway runs."""
    url = empty_url
    assert await run(url, "migrate") == "the tables have been migrated\n"
    assert await run(url, "migrate") == "there was nothing to migrate\n"
    await fill(url, 5, started_at=datetime.now(UTC) - timedelta(days=70))
    async with gateway(url) as gate:
        assert (await gate.ask()).status_code == 200
        assert len(await gate.listing()) == 6
        for kind in ("jsonl", "csv"):
            over_http = (await gate.read("/interceptions/export", format=kind)).content
            file = tmp_path / f"out.{kind}"
            assert await run(url, "export", "--format", kind, "--output", str(file)) == ""
            assert await asyncio.to_thread(file.read_bytes) == over_http
        assert len((await run(url, "export", "--model", "gpt-5")).splitlines()) == 6
        assert await run(url, "prune", "--older-than", "90d") == "0 interceptions deleted\n"
        assert await run(url, "prune") == "5 interceptions deleted\n"
        assert len(await gate.listing()) == 1
        assert (await gate.ask()).status_code == 200
        assert (await gate.json("/usage"))["items"][0]["calls"] == 2
