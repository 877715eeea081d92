"""Reads a whole request at once, which the gateway does in steps."""

from __future__ import annotations

from fastapi_aibridge.formats.format import Format
from fastapi_aibridge.formats.large_text import BodyText
from fastapi_aibridge.formats.request import MAX_TEXT, ModelRequest
from fastapi_aibridge.formats.scanner import finish


def parse(format_: Format, body: BodyText) -> ModelRequest:
    return finish(format_.read(body, MAX_TEXT))
