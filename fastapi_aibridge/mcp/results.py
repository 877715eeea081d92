"""Conversion of an MCP tool's result into content for a model.

The tool has been run by then, so any result reaches the model in some form.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import orjson

from ..masking import Masker
from ..tools import Audio, Content, Image, Text
from .media import media_type

_INLINE = ("image/", "audio/")


def content_of(result: Mapping[str, Any]) -> tuple[Content, ...]:
    """Return the content in its order; structured content comes last, as JSON, unless a text says the same."""
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
    if structured is not None and not _repeats(structured, [part.text for part in parts if isinstance(part, Text)]):
        parts.append(Text(_json(structured)))
    return tuple(parts)


def masked(content: tuple[Content, ...], masker: Masker) -> tuple[Content, ...]:
    """Return the content without the credentials that the server repeats."""
    return tuple(Text(masker.text(part.text)) if isinstance(part, Text) else part for part in content)


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
    """An image or a sound, with the type that its bytes show."""
    if data.startswith("data:"):
        data = data.partition(",")[2]
    standard = _standard(data)
    if standard is None:
        return Text(f"[{declared}, which is not shown: it is not base64]")
    kind = _kind(standard) or declared
    if kind.startswith("image/"):
        return Image(standard, kind)
    if kind.startswith("audio/"):
        return Audio(standard, kind)
    return Text(f"[{kind}, {len(standard) * 3 // 4} bytes, is not shown]")


def _blob(blob: str, uri: str, declared: str) -> Content:
    declared = declared or "application/octet-stream"
    standard = _standard(blob)
    kind = _kind(standard) if standard is not None else None
    if (kind and kind.startswith(_INLINE)) or declared.startswith(_INLINE):
        return _media(blob, declared)
    if standard is not None and (declared.startswith("text/") or declared.endswith(("json", "xml", "yaml"))):
        try:
            return Text(base64.b64decode(standard).decode())
        except UnicodeDecodeError:
            pass
    size = len(standard or blob) * 3 // 4 - (standard or "").count("=")
    return Text(f"[Resource {uri}, {declared}, {size} bytes, is not shown.]")


def _standard(data: str) -> str | None:
    """Return base64 in the form that vendors accept: standard alphabet, padded, no line breaks; else None.

    It is checked without being decoded, because there may be megabytes of it.
    """
    odd = data.encode(errors="replace").translate(None, _ALPHABET)
    if odd not in _PADDINGS or len(data) % 4 or not data.endswith(odd.decode()):
        if len(odd) > len(data) // 8:
            return None
        data = "".join(data.split()).translate(_TO_STANDARD).rstrip("=")
        if data.encode(errors="replace").translate(None, _ALPHABET) or len(data) % 4 == 1:
            return None
        data += "=" * (-len(data) % 4)
    return data


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_PADDINGS = (b"", b"=", b"==")
_TO_STANDARD = str.maketrans("-_", "+/")


def _kind(standard: str) -> str | None:
    return media_type(base64.b64decode(standard[:64]))


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


def _repeats(structured: Any, texts: list[str]) -> bool:
    """Whether a text equals the structured content, or all texts the value that SDKs wrap as `{"result": value}`."""
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
