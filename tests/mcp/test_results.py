"""Tool results as models see them."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import types

from fastapi_aibridge.mcp.limits import cut
from fastapi_aibridge.mcp.results import content_of
from fastapi_aibridge.tools import Image, Text


def result(*texts: str, structured: Any = None) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text) for text in texts], structured_content=structured)


def dumped(result: types.CallToolResult) -> dict[str, Any]:
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


@pytest.mark.parametrize(
    ("texts", "structured", "expected"),
    [
        ([], {"degrees": 22}, ['{"degrees":22}']),
        (['{ "degrees": 22 }'], {"degrees": 22}, ['{ "degrees": 22 }']),
        (["It is warm."], {"degrees": 22}, ["It is warm.", '{"degrees":22}']),
        (["22"], {"result": 22}, ["22"]),
        (["warm"], {"result": "warm"}, ["warm"]),
        (["a", '{"b":1}'], {"result": ["a", {"b": 1}]}, ["a", '{"b":1}']),
        (["22"], None, ["22"]),
    ],
)
def test_structured_content_is_told_once(texts: list[str], structured: Any, expected: list[str]) -> None:
    """Structured content becomes JSON text, unless a text of the server says the same."""
    assert content_of(dumped(result(*texts, structured=structured))) == tuple(map(Text, expected))


def test_text_blobs_are_decoded() -> None:
    """A base64 resource that is text is shown as text; any other is described."""
    for blob, text in (("aGk=", "hi"), ("/w==", "[Resource file:///x, text/plain, 1 bytes, is not shown.]")):
        resource = types.BlobResourceContents(uri="file:///x", blob=blob, mime_type="text/plain")
        content = types.CallToolResult(content=[types.EmbeddedResource(resource=resource)])
        assert content_of(dumped(content)) == (Text(text),)


def test_long_text_is_cut_with_a_note() -> None:
    """The limit applies to all texts together, never splits a character, and leaves images alone."""
    image = Image("aGk=", "image/png")
    kept = cut([Text("abc"), image, Text("ü" * 5), Text("rest")], 8)
    assert kept == (
        Text("abc"),
        image,
        Text("üü"),
        Text("[The result was cut off here: 9 bytes of text are left out.]"),
    )
    assert cut([Text("abc")], 3) == (Text("abc"),)
