"""The tools of npm's `@modelcontextprotocol/server-everything`. Needs node, and fails without it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator

import pytest

from fastapi_aibridge.mcp.server import MCPServer
from fastapi_aibridge.tools import Image, Text

from .conftest import Start
from .everything import everything

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with everything() as running:
        yield running


async def test_its_tools_work(url: str, start: Start) -> None:
    """Text, sums, images, structured content, resources and links arrive, and errors are errors."""
    tools = await start(MCPServer(name="everything", url=url))
    assert {"echo", "get-sum", "get-tiny-image", "get-structured-content"} <= {tool.tool for tool in tools.tools}

    echo = await tools.call("bmcp_everything_echo", {"message": "hi"})
    assert echo.content == (Text("Echo: hi"),)

    total = await tools.call("bmcp_everything_get-sum", {"a": 2, "b": 3})
    assert "5" in total.text

    picture = await tools.call("bmcp_everything_get-tiny-image", {})
    (image,) = [part for part in picture.content if isinstance(part, Image)]
    assert image.mime_type == "image/png"
    assert base64.b64decode(image.data).startswith(b"\x89PNG")

    weather = await tools.call("bmcp_everything_get-structured-content", {"location": "New York"})
    (told,) = weather.content
    assert isinstance(told, Text)
    assert json.loads(told.text).keys() == {"temperature", "conditions", "humidity"}

    links = await tools.call("bmcp_everything_get-resource-links", {"count": 3})
    assert links.text.count("demo://") == 3
    reference = await tools.call("bmcp_everything_get-resource-reference", {"resourceType": "Text", "resourceId": 1})
    assert not reference.is_error
    assert "demo://resource" in reference.text

    assert (await tools.call("bmcp_everything_get-sum", {"a": "x"})).is_error


async def test_a_long_operation_reports_and_answers(url: str, start: Start) -> None:
    """Progress notifications do not disturb the result."""
    tools = await start(MCPServer(name="everything", url=url))
    long = await tools.call("bmcp_everything_trigger-long-running-operation", {"duration": 0.4, "steps": 4})
    assert "completed" in long.text


async def test_its_environment_stays_its_own(url: str, start: Start) -> None:
    """A denied tool is neither offered nor called."""
    tools = await start(MCPServer(name="everything", url=url, tool_deny="env"))
    assert not any("env" in tool.tool for tool in tools.tools)
    assert os.environ["PATH"] not in (await tools.call("bmcp_everything_get-env", {})).text


async def test_a_forgotten_session_is_renewed(start: Start) -> None:
    """The server responds with 400 to an unknown session, which is then opened anew."""
    with everything() as url:
        tools = await start(MCPServer(name="everything", url=url))
        session = tools._sessions[0]
        connection = session._connection
        assert connection is not None
        await connection.end()
        assert (await tools.call("bmcp_everything_echo", {"message": "hi"})).text == "Echo: hi"
        assert session._connection is not connection
