"""The log of a gateway as an operator sees it, under plain uvicorn in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fastapi_aibridge.testing import Reply, ScriptedProvider, ToolCall, Usage
from tests.loopback import free_port

from .process import UvicornProcess

pytestmark = pytest.mark.anyio
ALICE = {"Authorization": "Bearer k-alice", "User-Agent": "codex_cli_rs/0.40"}
ASK = {"model": "gpt-5", "input": "the prompt"}


@pytest.fixture(scope="module", name="model")
def _model() -> Iterator[str]:
    reply = Reply(
        "the answer", tool_calls=[ToolCall("f", {"secret": "argument"})], usage=Usage(input_tokens=8, output_tokens=10)
    )
    with ScriptedProvider(reply).serve_in_thread() as url:
        yield url


async def told(model: str, directory: Path, log_format: str | None) -> tuple[list[str], str]:
    """Run a gateway for one good and one failing request; return its log lines, and the good one's interception id."""
    given = {
        "PROVIDERS__OPENAI__BASE_URL": f"{model}/v1",
        "PROVIDERS__OPENAI__API_KEY": "sk-central-key-0001",
        "PROVIDERS__GONE__TYPE": "openai",
        "PROVIDERS__GONE__BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
        "PROVIDERS__GONE__API_KEY": "sk-central-key-0002",
        "PROVIDERS__GONE__MAX_RETRIES": "0",
        "CLIENT_KEYS__ALICE": "k-alice",
        "RECORDER__URL": f"sqlite+aiosqlite:///{directory / 'records.db'}",
        **({"LOG_FORMAT": log_format} if log_format else {}),
    }
    server = UvicornProcess(directory, {f"AIBRIDGE_{name}": value for name, value in given.items()})
    async with server, httpx.AsyncClient(base_url=f"{server.url}/ai", headers=ALICE, trust_env=False) as client:
        good = await client.post("/openai/v1/responses", json=ASK)
        bad = await client.post("/gone/v1/responses", json=ASK)
        assert (good.status_code, bad.status_code) == (200, 502)
    return server.log.read_text().splitlines(), good.headers["x-aibridge-interception-id"]


async def test_one_line_for_each_interception(model: str, tmp_path: Path) -> None:
    """Each interception is one line with caller, route, status, time and usage, but without prompt, answer or key."""
    lines, good = await told(model, tmp_path, None)
    mine = [line for line in lines if "interception id=" in line]
    assert len(mine) == 2
    assert f"INFO:     interception id={good} initiator=alice client=Codex provider=openai" in mine[0]
    for member in ("route=/v1/responses", "model=gpt-5", "status=completed", "input_tokens=8", "output_tokens=10"):
        assert member in mine[0].split()
    assert "seconds=" in mine[0]
    assert "status=failed" in mine[1]
    for private in ("the prompt", "the answer", "argument", "sk-central", "k-alice"):
        assert private not in "\n".join(lines)


async def test_as_json(model: str, tmp_path: Path) -> None:
    """In the JSON format all lines of the gateway are objects; uvicorn's lines keep their own format."""
    lines, good = await told(model, tmp_path, "json")
    objects = [json.loads(line) for line in lines if line.startswith("{")]
    first, second = (one for one in objects if one["logger"] == "fastapi_aibridge.interceptions")
    assert (first["id"], first["initiator"], first["client"], first["output_tokens"]) == (good, "alice", "Codex", 10)
    assert (second["status"], second["provider"]) == ("failed", "gone")
    assert not [line for line in lines if not line.startswith(("{", "INFO:  "))]
