"""Cleans text that a server chose, for models and for logs."""

from __future__ import annotations

import re

_CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
_INVISIBLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    r"\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff"
)
_NOT_SEEN = re.compile(f"[{_CONTROL}{_INVISIBLE}]")
"""Matches characters that a reader does not see and a model may obey: tags, zero width and bidirectional marks, lone
surrogates.
"""

_SHOWN = 64


def clean(text: object, limit: int) -> str:
    """Return at most `limit` characters of a text, without invisible ones; empty where it is no string."""
    return _NOT_SEEN.sub("", text[: 2 * limit].replace("\r\n", "\n"))[:limit] if isinstance(text, str) else ""


def shown(name: object) -> str:
    """Return a name for a log line: quoted, short and in ASCII."""
    text = name if isinstance(name, str) else type(name).__name__
    return ascii(clean(text, _SHOWN)) + ("..." if len(text) > _SHOWN else "")
