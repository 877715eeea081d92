"""Paths as clients write them, checked before anything is decided on them."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes


def raw_tail(tail: str, raw_path: bytes | None) -> str | None:
    """How the client wrote `tail`, the decoded end of its path; None where the two could mean different resources.

    Refused are empty and dot segments, encoded slashes and backslashes, percent signs that were themselves encoded,
    and control characters: each of them is read differently by some server behind us.
    """
    if not tail.isprintable() or "%" in tail or "\\" in tail:
        return None
    segments = tail.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        return None
    if raw_path is None:
        return quote(tail, safe="/!$&'()*+,;=:@~")
    if b"%" not in raw_path:
        return tail if raw_path.endswith(tail.encode()) else None
    raw = b"/".join(raw_path.split(b"/")[-len(segments) :])
    if unquote_to_bytes(raw) != tail.encode() or raw.lower().count(b"%2f"):
        return None
    return raw.decode("ascii")
