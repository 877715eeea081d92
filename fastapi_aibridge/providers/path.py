"""Checks paths as clients write them, before anything is decided by them."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

_WRITABLE = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})+")
_ENCODED_SLASH = re.compile(rb"%(?:2[Ff]|5[Cc])")
_UNRESERVED = re.compile(rb"%(?:2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])")


def raw_tail(tail: str, raw_path: bytes | None, *, slashes_below: tuple[str, ...] = ()) -> str | None:
    """Return `tail`, the end of a path, as the client wrote it; None where the two could mean different resources.

    Refused are empty and dot segments (also with a parameter: `..;x`), encoded slashes and backslashes, percent signs
    that were themselves encoded, control characters, and characters that a path must encode: some server behind the
    gateway reads each of them differently. Characters that need no encoding are decoded (RFC 3986, section 6.2.2.2).

    Below the paths of `slashes_below`, names may have slashes (`org/model`), which SDKs encode. They are checked like
    any other slash, so that the path means the same to a server that decodes them.
    """
    if not tail.isprintable() or "%" in tail or "\\" in tail:
        return None
    segments = tail.split("/")
    if any(segment.partition(";")[0] in ("", ".", "..") for segment in segments):
        return None
    if raw_path is None:
        return quote(tail, safe="/!$&'()*+,;=:@~")
    if _ENCODED_SLASH.search(raw_path):
        raw = _with_encoded_slashes(raw_path, len(segments), slashes_below)
    else:
        raw = b"/".join(raw_path.split(b"/")[-len(segments) :])
    if not _WRITABLE.fullmatch(raw) or unquote_to_bytes(raw) != tail.encode():
        return None
    if b"%" in raw:
        raw = _UNRESERVED.sub(lambda match: unquote_to_bytes(match[0]), raw)
    return raw.decode("ascii")


def _with_encoded_slashes(raw_path: bytes, segments: int, slashes_below: tuple[str, ...]) -> bytes:
    """Return the end of a path that has this many segments once decoded; empty where a slash may not be encoded."""
    if b"%5C" in raw_path.upper():
        return b""
    kept: list[bytes] = []
    pieces = raw_path.split(b"/")
    while pieces and segments > 0:
        kept.append(pieces.pop())
        segments -= 1 + kept[-1].upper().count(b"%2F")
    raw = b"/".join(reversed(kept))
    is_name = any(raw.startswith(below.encode()) for below in slashes_below)
    return raw if segments == 0 and is_name and not any(b"%2F" in piece.upper() for piece in pieces) else b""
