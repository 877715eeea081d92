"""How much of a tool's answer a model is given."""

from __future__ import annotations

from collections.abc import Iterable

from ..tools import Content, Text


def cut(content: Iterable[Content], limit: int) -> tuple[Content, ...]:
    """The content with at most `limit` bytes of text in all, and a note where some was left out."""
    kept: list[Content] = []
    left, lost = limit, 0
    for part in content:
        if not isinstance(part, Text):
            kept.append(part)
            continue
        size = len(part.text.encode())
        if size <= left:
            kept.append(part)
        else:
            lost += size - left
            if left:
                kept.append(Text(part.text.encode()[:left].decode(errors="ignore")))
        left = max(0, left - size)
    if lost:
        kept.append(Text(f"[The result was cut off here: {lost} bytes of text are left out.]"))
    return tuple(kept)
