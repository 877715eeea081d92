"""Edits of a JSON object's text that leave every other byte as it was.

Parsing and writing a body anew would lose what no parser keeps: numbers beyond 64 bits, the order and spelling of
members, white space that a signature may cover.
"""

from __future__ import annotations

import re

import orjson

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]', re.DOTALL)


def find_member(text: bytes, name: str) -> tuple[int, int] | None:
    """Where the value of a member of this object begins and ends, the last one of that name; None if there is none.

    `text` must be a valid JSON object.
    """
    found: tuple[int, int] | None = None
    depth = 0
    key: bytes | None = None
    begin = -1
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token[0] == 0x22:
            if depth == 1 and begin < 0:
                key = token
        elif token in b"{[":
            depth += 1
        elif token == b":":
            if depth == 1 and begin < 0:
                begin = match.end()
        else:
            if depth == 1 and begin >= 0 and key is not None:
                if _names(key, name):
                    value = text[begin : match.start()]
                    begin += len(value) - len(value.lstrip())
                    found = (begin, begin + len(value.strip()))
                begin, key = -1, None
            if token != b",":
                depth -= 1
    return found


def set_member(text: bytes, name: str, value: bytes) -> bytes:
    """The object with this member set: its value replaced, or the member added at the end."""
    span = find_member(text, name)
    if span is not None:
        return text[: span[0]] + value + text[span[1] :]
    return add_member(text, name, value)


def add_member(text: bytes, name: str, value: bytes) -> bytes:
    """The object with this member added at its end; it must not have one of that name."""
    end = text.rindex(b"}")
    comma = b"" if text[:end].rstrip().endswith(b"{") else b","
    return b"".join((text[:end], comma, orjson.dumps(name), b":", value, text[end:]))


def elements(text: bytes) -> list[bytes]:
    """The elements of a JSON list, each as it is written. `text` must be a valid JSON list."""
    found: list[bytes] = []
    depth = begin = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in b"{[":
            depth += 1
            if depth == 1:
                begin = match.end()
        elif token in b"}],":
            if depth == 1:
                if element := text[begin : match.start()].strip():
                    found.append(element)
                begin = match.end()
            if token != b",":
                depth -= 1
    return found


def list_member(text: bytes, name: str) -> list[bytes]:
    """The elements of the list that is this member, each as it is written; empty where it is no list."""
    span = find_member(text, name)
    return elements(text[span[0] : span[1]]) if span and text[span[0] : span[1]].startswith(b"[") else []


def _names(key: bytes, name: str) -> bool:
    return bool(key[1:-1] == name.encode() if b"\\" not in key else orjson.loads(key) == name)
