"""Credentials on their way to an upstream: masked everywhere but on the wire."""

from __future__ import annotations

from typing import Any


class Secret:
    """A header's value that is written upstream and shown nowhere else.

    `bytes()` and the `%b` of a bytes format give the value. `repr`, `str`, copies and pickles give its mask, so that
    error reports with local variables show no credential.
    """

    __slots__ = ("_mask", "_value")

    def __init__(self, value: bytes, mask: str = "...") -> None:
        self._value = value
        self._mask = mask

    def __bytes__(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self._mask!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self._mask.encode(), self._mask)
