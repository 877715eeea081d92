"""Puts the hidden parts of earlier turns back into the client's messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from ..edits import AT_ONCE, list_member, with_list
from ..large_text import BodyText, Steps, unchanged
from ..lenient import load, objects, text
from ..rounds import Held, Memory

SEPARATOR = "\n\n"
"""Separates the texts of two rounds, which are one string here; the other formats have blocks."""


def separator(before: Sequence[object]) -> str:
    """Return the separator between these contents and the next text, empty where none is needed."""
    last = before[-1] if before else None
    return SEPARATOR if isinstance(last, str) and not last.endswith("\n") else ""


def texts_joined(contents: Sequence[object]) -> object:
    """Join the contents of several rounds: to a string, or to a list where one is a list; None where all are empty."""
    given = [one for one in contents if one]
    if not given:
        return None
    if not all(isinstance(one, str) for one in given):
        return [part for one in given for part in _as_parts(one)]
    pieces: list[str] = []
    for index, one in enumerate(given):
        pieces += [separator(given[index - 1 : index]), str(one)]
    return "".join(pieces)


def _as_parts(content: object) -> list[object]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def parts_of(content: object) -> tuple[str, ...]:
    """Return the marks by which a content is recognized: a string itself, each part of a list as JSON."""
    if isinstance(content, list):
        return tuple(_mark(part) for part in content)
    return (content,) if isinstance(content, str) and content else ()


def _mark(part: object) -> str:
    return orjson.dumps(part, option=orjson.OPT_SORT_KEYS).decode()


def restored(body: BodyText, memory: Memory) -> Steps[BodyText]:
    """Return the request with the hidden parts of earlier responses put back."""
    if memory.empty:
        return body
    woven: list[bytes] = []
    done: list[Held] = []
    for index, written in enumerate((yield from list_member(body, "messages"))):
        if index % AT_ONCE == AT_ONCE - 1:
            yield
        message = load(written) if b'"tool_calls"' in written else {}
        calls = objects(message.get("tool_calls"))
        kept = next((found for call in calls if (found := memory.held(text(call.get("id"))))), None)
        if kept is None or any(kept is one for one in done):
            woven.append(written)
        else:
            woven += _unwoven(message, calls, kept)
            done.append(kept)
    return (yield from with_list(body, "messages", woven)) if done else body


def _unwoven(message: dict[str, Any], calls: list[dict[str, Any]], kept: Held) -> Iterator[bytes]:
    """Yield the messages that the model wrote, of which the client has one that combines them all."""
    known, left = _without_earlier(message.get("content"), kept)
    for turn in kept.earlier:
        first, *results = turn.written
        yield first if known else orjson.dumps({**load(first), "content": None})
        yield from results
    places = {call_id: place for place, call_id in enumerate(kept.order)}
    every = [(places.get(text(call.get("id")), len(places)), orjson.dumps(call)) for call in calls]
    every += [(places[one.id], one.call) for one in kept.hidden if one.id in places]
    every.sort(key=lambda one: one[0])
    listed = orjson.Fragment(b"[" + b",".join(call for _, call in every) + b"]")
    yield orjson.dumps({**message, "content": left, "tool_calls": listed})
    yield from (one.output for one in kept.hidden)


def _without_earlier(content: object, kept: Held) -> tuple[bool, object]:
    """Return whether the content begins with the earlier rounds' texts, and the rest of it after them."""
    earlier = [turn.said for turn in kept.earlier if turn.said]
    if not earlier:
        return True, content
    if isinstance(content, str):
        before = texts_joined(["".join(said) for said in earlier])
        if isinstance(before, str) and content.startswith(before):
            return True, content.removeprefix(before).removeprefix(separator([before])) or None
    if isinstance(content, list):
        marks = [mark for said in earlier for mark in said]
        pairs = zip(marks, content, strict=False)
        if len(marks) <= len(content) and all(mark in _marks_of(part) for mark, part in pairs):
            return True, content[len(marks) :] or None
    return False, content


def _marks_of(part: object) -> tuple[str, ...]:
    """Return the marks of a part; its text is one, too, since an earlier round's string may have become a part."""
    said = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    return (_mark(part), said) if isinstance(said, str) else (_mark(part),)


def aliased(body: BodyText, memory: Memory) -> Steps[BodyText]:  # noqa: ARG001 - every format's signature
    """Return the request unchanged: this API refers to nothing that the provider stores."""
    return unchanged(body)
