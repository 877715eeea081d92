"""Many principals with tools of their own, and a tool server that dies under load."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_aibridge import Principal
from fastapi_aibridge.mcp import session
from fastapi_aibridge.testing import Received, Reply
from tests.waiting import until

from ...formats.rounds.driving import CHAT, KINDS
from ...mcp.servers import ToolServer
from ..gateway import client
from .harness import harness, tool
from .test_loop import results_of, text_of

pytestmark = pytest.mark.anyio


def script(received: Received) -> Reply:
    """Call a tool once, then say its result."""
    kind = next(kind for kind in KINDS if received.path == kind.path)
    results = results_of(kind, received.json())
    if not results:
        return Reply(tool_calls=[tool("echo", "c1", text="x")])
    return Reply(text="".join(text_of(one) for one in results.values()))


async def test_a_thousand_principals_leave_no_session_open() -> None:
    """The tool server is told of the end of each session, by eviction or the end of the app."""
    with ToolServer(handshake=True) as server:
        pool = {"max_items": 100, "ttl": 600}
        async with harness(Reply(text="x"), {"box": server.url}, pool=pool) as home:
            gate = asyncio.Semaphore(20)

            async def use(number: int) -> None:
                async with gate, home.aibridge.bridge(Principal(f"user-{number}")) as bridge:
                    assert len(bridge.tools) == 10

            await asyncio.gather(*(use(number) for number in range(1000)))
            assert server.opened == 1000
            await until(lambda: len(server.open_sessions) <= 100, 60)
            assert home.aibridge.pool.metrics().keys_evicted == 900
        assert not server.open_sessions
        assert server.opened == 1000


async def test_expired_bridges_leave_no_session_open() -> None:
    """Expired bridges end their sessions without another request."""
    with ToolServer(handshake=True) as server:
        async with harness(Reply(text="x"), {"box": server.url}, pool={"ttl": 1}) as home:
            for number in range(20):
                async with home.aibridge.bridge(Principal(f"user-{number}")):
                    pass
            assert server.opened == 20
            await until(lambda: not server.open_sessions)


@pytest.mark.parametrize("handshake", [True, False])
async def test_no_chat_fails_for_a_tool_server_that_dies(handshake: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No chat fails if the tool server is killed and started again under load.

    Each one ends with the tool's result or the model's word for its failure, and the tools come back by themselves.
    """
    monkeypatch.setattr(session, "PAUSES", (0.01, 0.02))  # the server is down for longer than calls wait for it
    with ToolServer(handshake=handshake) as server:
        async with harness(script, {"box": server.url}) as home:
            said: list[str] = []
            over = False

            async def chat(number: int) -> None:
                kind, streamed = KINDS[number % 3], number % 2 == 0
                while not over:
                    answer = await home.request(kind, streamed=streamed)
                    assert (answer.status, answer.whole) == (200, True), answer.body
                    assert b"bmcp_" not in answer.body
                    said.append(answer.body.decode())

            chats = [asyncio.create_task(chat(number)) for number in range(12)]
            for restart in (1, 2, 3):
                await until(lambda wanted=restart * 40: len(said) > wanted, 60)  # type: ignore[misc]
                await asyncio.to_thread(server.down)
                before = len(said)
                await until(lambda wanted=before + 20: len(said) > wanted, 60)  # type: ignore[misc]
                await asyncio.to_thread(server.up)
            before = len(said)
            await until(lambda: len(said) > before + 40, 60)
            over = True
            assert any("could not be called" in one for one in said)
            await asyncio.gather(*chats)
            seen = await home.ask(CHAT, streamed=False)
            assert seen.text == "echo: x"
            statuses = {record.ending and record.ending.status.value for record in home.recorder.records}
            assert statuses == {"completed"}
            answer = await client.request(home.server.port, "GET", "/ai/admin/pool", key="t-admin")
            assert b'"leases":0' in answer.body.replace(b" ", b"")
