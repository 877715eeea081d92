"""Escaping of texts that clients chose, so that spreadsheets and terminals only show them and run nothing."""

from __future__ import annotations

import re

_FORMULA = re.compile(
    "(^|[,;|\t\r\n\"'])"  # the beginning of a cell in any dialect
    "([ \u00a0\u00ad\u1680\u180e\u2000-\u200f\u202f\u205f\u2060\u3000\ufeff]*)"
    "([=+\\-@\uff1d\uff0b\uff0d\uff20])"
)
"""The beginning of a formula, for any spreadsheet program."""

_IN_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"')

_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that may steer a terminal: control characters except tabs and line breaks, and marks that change the
direction of text.
"""

_CONTROL_IN_JSON = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


def cell(text: str) -> str:
    """Return the text for a cell: an apostrophe before each possible formula, control characters replaced."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
    text = _FORMULA.sub(r"\1\2'\3", text)
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text


def json_cell(text: str) -> str:
    """Return equivalent JSON text for a cell, with characters that could start a formula written as escapes."""
    text = json_line(text.encode("utf-8", "replace")).decode()
    return _IN_STRING.sub(lambda match: _FORMULA.sub(_escaped, match[0][1:-1]).join('""'), text)


def json_line(line: bytes) -> bytes:
    """Return equivalent JSON text, with control characters written as escapes."""
    if line.isascii() and b"\x7f" not in line:
        return line
    return _CONTROL_IN_JSON.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), line)


def _escaped(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}\\u{ord(match[3]):04x}"
