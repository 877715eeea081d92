"""What a tool answered, in terms that every wire format can be made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    data: str = field(repr=False)
    """Base64."""
    mime_type: str


@dataclass(frozen=True, slots=True)
class Audio:
    data: str = field(repr=False)
    """Base64."""
    mime_type: str


Content: TypeAlias = Text | Image | Audio


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """`is_error`: the tool said so, or it could not be called and the text says why. `duration` is in seconds."""

    content: tuple[Content, ...]
    is_error: bool
    duration: float

    @property
    def text(self) -> str:
        """All text, for records and for formats that know nothing else."""
        return "\n".join(part.text for part in self.content if isinstance(part, Text))


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
