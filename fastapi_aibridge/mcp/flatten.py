"""From what an MCP tool answers to what a model is told."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from mcp import types

from ..tools import Audio, Content, Image, Text


def flatten(result: types.CallToolResult) -> tuple[Content, ...]:
    """The content in its order; structured content goes last, as JSON, where no text says the same."""
    parts = [_part(block) for block in result.content]
    texts = [block.text for block in result.content if isinstance(block, types.TextContent)]
    structured = result.structured_content
    if structured is not None and not _told(structured, texts):
        parts.append(Text(orjson.dumps(structured).decode()))
    return tuple(parts)


def _part(block: types.ContentBlock) -> Content:
    match block:
        case types.TextContent():
            return Text(block.text)
        case types.ImageContent():
            return Image(block.data, block.mime_type)
        case types.AudioContent():
            return Audio(block.data, block.mime_type)
        case types.ResourceLink():
            described = f": {block.description}" if block.description else ""
            return Text(f"[Resource {block.title or block.name}, {block.uri}{described}]")
        case types.EmbeddedResource():
            return _resource(block.resource)


def _resource(resource: types.TextResourceContents | types.BlobResourceContents) -> Content:
    if isinstance(resource, types.TextResourceContents):
        return Text(resource.text)
    mime_type = resource.mime_type or "application/octet-stream"
    if mime_type.startswith("image/"):
        return Image(resource.blob, mime_type)
    if mime_type.startswith("audio/"):
        return Audio(resource.blob, mime_type)
    if mime_type.startswith("text/") or mime_type == "application/json":
        try:
            return Text(base64.b64decode(resource.blob, validate=True).decode())
        except ValueError:
            pass
    return Text(f"[Resource {resource.uri}, {mime_type}, {len(resource.blob) * 3 // 4} bytes, is not shown.]")


def _told(structured: Any, texts: list[str]) -> bool:
    """Whether some text is the structured content, or all texts are the value that SDKs wrap as `{"result": value}`."""
    values = [_value(text) for text in texts]
    if structured in values:
        return True
    if isinstance(structured, dict) and structured.keys() == {"result"}:
        wrapped = structured["result"]
        return wrapped in (*texts, *values) or wrapped in (texts, values)
    return False


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return text
