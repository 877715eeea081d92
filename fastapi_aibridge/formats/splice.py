"""The edits of `edits`, all at once: for responses of providers, and for texts that are known to be small."""

from __future__ import annotations

from . import edits
from .scanner import finish


def find_member(text: bytes, name: str) -> tuple[int, int] | None:
    return finish(edits.find(text, name))


def set_member(text: bytes, name: str, value: bytes) -> bytes:
    return finish(edits.with_member(text, name, value))[:]
