"""The package's stepwise edits, each run to its end in one call."""

from __future__ import annotations

from fastapi_aibridge.formats import edits
from fastapi_aibridge.formats.scanner import finish


def add_member(text: bytes, name: str, value: bytes) -> bytes:
    return finish(edits.with_new_member(text, name, value))[:]


def set_list(text: bytes, name: str, elements_: list[bytes]) -> bytes:
    return finish(edits.with_list(text, name, elements_))[:]


def elements(text: bytes) -> list[bytes]:
    return finish(edits.elements(text))


def list_member(text: bytes, name: str) -> list[bytes]:
    return finish(edits.list_member(text, name))
