"""Text that a server chose, made fit for models and for logs."""

from __future__ import annotations

import re

_CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
_INVISIBLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    r"\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff"
)
_NOT_SEEN = re.compile(f"[{_CONTROL}{_INVISIBLE}]")
"""What a reader does not see and a model may well obey: tags, zero width and bidirectional marks, lone surrogates."""

_SHOWN = 64


def clean(text: object, limit: int) -> str:
    """At most `limit` characters of it, without those that cannot be seen; empty where it is no text."""
    return _NOT_SEEN.sub("", text[: 2 * limit].replace("\r\n", "\n"))[:limit] if isinstance(text, str) else ""


def shown(name: object) -> str:
    """A name, quoted, short and in ASCII, for a log line."""
    text = name if isinstance(name, str) else type(name).__name__
    return ascii(clean(text, _SHOWN)) + ("..." if len(text) > _SHOWN else "")
