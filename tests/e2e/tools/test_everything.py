"""The npm package `@modelcontextprotocol/server-everything`, a server of other authors, through all three APIs.

The tests need node, and fail without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fastapi_aibridge.testing import Reply

from ...formats.rounds.driving import CHAT, RESPONSES, Kind
from ...mcp.everything import everything
from .harness import harness, tool
from .test_loop import results_of, text_of

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with everything() as running:
        yield running


def called(name: str, id_: str, **arguments: Any) -> Any:
    return tool(name, id_, server="everything", **arguments)


async def test_its_tools_work(kind: Kind, streamed: bool, url: str) -> None:
    """Echo, sum, image, structured content and resources reach the model, and the vendor's SDK reads one response."""
    script = [
        Reply(
            text="First.",
            tool_calls=[called("echo", "echo", message="hi"), called("get-sum", "sum", a=2, b=3)],
        ),
        Reply(
            thinking="hm",
            tool_calls=[
                called("get-tiny-image", "image"),
                called("get-structured-content", "weather", location="New York"),
                called("get-resource-reference", "resource", resourceType="Text", resourceId=1),
                called("get-resource-links", "links", count=3),
                called("get-sum", "wrong", a="x"),
            ],
        ),
        Reply(text="Last."),
    ]
    async with harness(script, {"everything": url}) as home:
        seen = await home.ask(kind, streamed=streamed, tools=[kind.own_tool])
        assert seen.text.split() in (["First.", "Last."], ["First.Last."])
        assert seen.calls == []
        results = results_of(kind, home.upstream[2])
        said = {id_: text_of(result) for id_, result in results.items()}
        assert said["echo"] == "Echo: hi"
        assert "5" in said["sum"]
        assert json.loads(said["weather"]).keys() == {"temperature", "conditions", "humidity"}
        assert "demo://resource" in said["resource"]
        assert said["links"].count("demo://") == 3
        image = json.dumps(results["image"])
        assert ("[image, image/png]" if kind is CHAT else "iVBORw0KGgo") in image
        assert ("data:image/png;base64," in image) == (kind is RESPONSES)
        record = await home.record()
        failed = [one.call_id for one in record.facts.tool_usages if one.error]
        assert failed == ["wrong"]
        assert {one.server for one in record.facts.tool_usages} == {"everything"}
