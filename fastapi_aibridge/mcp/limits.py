"""The limits of a tool's result that is given to a model."""

from __future__ import annotations

from collections.abc import Iterable

from ..tools import Content, Text

MAX_RESULT = 1024 * 1024
"""Bytes of text in one result."""
MAX_MEDIA = 8 * 1024 * 1024
"""Bytes of base64 of all images and sounds of one result. Vendors accept some megabytes in each request."""
MAX_PARTS = 256


def cut(content: Iterable[Content], limit: int = MAX_RESULT, media: int = MAX_MEDIA) -> tuple[Content, ...]:
    """Cut content to `limit` bytes of text and `media` bytes of base64; notes in it say what was left out."""
    kept: list[Content] = []
    left, lost = limit, 0
    parts = 0
    for part in content:
        if len(kept) == MAX_PARTS:
            parts += 1
        elif isinstance(part, Text):
            encoded = part.text.encode(errors="replace")  # a request cannot carry a lone surrogate
            if encoded and left:
                kept.append(Text(encoded[:left].decode(errors="ignore")))
            lost += max(0, len(encoded) - left)
            left = max(0, left - len(encoded))
        elif len(part.data) > media:
            size = len(part.data) * 3 // 4
            kept.append(Text(f"[{part.mime_type}, {size} bytes, is left out: the result is too large]"))
        else:
            media -= len(part.data)
            kept.append(part)
    if lost:
        kept.append(Text(f"[The result was cut off here: {lost} bytes of text are left out.]"))
    if parts:
        kept.append(Text(f"[The result was cut off here: {parts} more parts are left out.]"))
    return tuple(kept)
