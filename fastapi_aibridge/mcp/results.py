"""From what an MCP tool answers to what a model is told.

The tool has been run by then: whatever it answered reaches the model in some form.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from ..tools import Audio, Content, Image, Text
from .media import media_type

_INLINE = ("image/", "audio/")


def content_of(result: Mapping[str, Any]) -> tuple[Content, ...]:
    """The content in its order; structured content goes last, as JSON, where no text says the same."""
    content = result.get("content")
    if content is None:
        content = []
    blocks = content if isinstance(content, list) else [content]
    parts = [_part(block) for block in blocks]
    structured = result.get("structuredContent")
    if structured is None and not blocks:
        # An early form of results, and servers that answer with the value itself.
        rest = {key: value for key, value in result.items() if key not in _ENVELOPE}
        structured = rest.get("toolResult") if rest.keys() == {"toolResult"} else rest or None
    if structured is not None and not _told(structured, [part.text for part in parts if isinstance(part, Text)]):
        parts.append(Text(_json(structured)))
    return tuple(parts)


_ENVELOPE = {"_meta", "content", "isError", "resultType", "structuredContent"}


def _part(block: object) -> Content:
    if isinstance(block, str):
        return Text(block)
    if isinstance(block, dict):
        match block:
            case {"type": "text", "text": str(text)}:
                return Text(text)
            case {"type": "image" | "audio" as kind, "data": str(data)}:
                return _media(data, _string(block, "mimeType") or f"{kind}/*")
            case {"type": "resource_link", "uri": str(uri)}:
                description = _string(block, "description")
                named = _string(block, "title") or _string(block, "name") or "link"
                return Text(f"[Resource {named}, {uri}{f': {description}' if description else ''}]")
            case {"type": "resource", "resource": {"text": str(text)}}:
                return Text(text)
            case {"type": "resource", "resource": {"blob": str(blob), **resource}}:
                return _blob(blob, _string(resource, "uri"), _string(resource, "mimeType"))
    return Text(_json(block))


def _media(data: str, declared: str) -> Content:
    """An image or a sound, named by its bytes."""
    if data.startswith("data:"):
        data = data.partition(",")[2]
    raw = _decoded(data)
    if raw is None:
        return Text(f"[{declared}, which is not shown: it is not base64]")
    kind = media_type(raw[:32]) or declared
    if not _STANDARD.fullmatch(data):  # vendors want the standard alphabet, padded and without line breaks
        data = base64.b64encode(raw).decode()
    if kind.startswith("image/"):
        return Image(data, kind)
    if kind.startswith("audio/"):
        return Audio(data, kind)
    return Text(f"[{kind}, {len(raw)} bytes, is not shown]")


def _blob(blob: str, uri: str, declared: str) -> Content:
    declared = declared or "application/octet-stream"
    raw = _decoded(blob)
    kind = raw is not None and media_type(raw[:32])
    if (kind and kind.startswith(_INLINE)) or declared.startswith(_INLINE):
        return _media(blob, declared)
    if raw is not None and (declared.startswith("text/") or declared.endswith(("json", "xml", "yaml"))):
        try:
            return Text(raw.decode())
        except UnicodeDecodeError:
            pass
    size = len(blob) * 3 // 4 if raw is None else len(raw)
    return Text(f"[Resource {uri}, {declared}, {size} bytes, is not shown.]")


def _decoded(data: str) -> bytes | None:
    """Base64 of either alphabet, with line breaks or without its padding; None where it is none."""
    try:
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        pass
    compact = "".join(data.split()).translate(_TO_STANDARD).rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None


_STANDARD = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_TO_STANDARD = str.maketrans("-_", "+/")


def _string(block: Mapping[Any, Any], key: str) -> str:
    value = block.get(key)
    return value if isinstance(value, str) else ""


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # such as a lone surrogate in a text
        try:
            return json.dumps(value)
        except (ValueError, RecursionError):
            return "[a value that is nested too deeply to be shown]"


def _told(structured: Any, texts: list[str]) -> bool:
    """Whether some text is the structured content, or all texts are the value that SDKs wrap as `{"result": value}`."""
    values = [_value(text) for text in texts]
    if structured in values or structured in texts:
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
