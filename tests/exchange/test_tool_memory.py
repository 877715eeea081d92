"""The memory of tool calls between requests has bounds that no provider chooses."""

from __future__ import annotations

from fastapi_aibridge.exchange.tool_memory import MAX_ID, ToolMemory
from fastapi_aibridge.formats.rounds import Held

OWNER = ("alice", "", "openai")


def test_ids_of_any_length_are_not_remembered() -> None:
    """Ids of ordinary length are remembered, longer ones are not."""
    memory = ToolMemory().of(OWNER)
    usual, long = "call_" + "x" * 100, "x" * (MAX_ID + 1)
    memory.hold([usual, long], Held())
    assert memory.held(usual) is not None
    assert memory.held(long) is None
    memory.name("resp_a", "resp_b")
    memory.name("resp_c", long)
    memory.name(long, "resp_b")
    assert [memory.named(one) for one in ("resp_a", "resp_c", long)] == ["resp_b", "resp_c", long]
