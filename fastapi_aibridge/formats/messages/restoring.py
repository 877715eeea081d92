"""Puts the hidden parts of earlier turns back into the client's messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ..edits import AT_ONCE, list_member, with_list
from ..large_text import BodyText, Steps, unchanged
from ..lenient import load, objects, text
from ..rounds import Held, Memory


def mark_of(block: Mapping[str, Any]) -> str:
    """Return the mark by which a block is recognized in a later request."""
    own = next((name for name in ("signature", "data", "id", "tool_use_id", "text") if block.get(name)), "")
    return f"{block.get('type')} {block.get(own, '')}"


def is_blank(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "text" and not text(block.get("text")).strip()


def restored(body: BodyText, memory: Memory) -> Steps[BodyText]:
    """Return the request with the hidden parts of earlier responses put back."""
    if memory.empty:
        return body
    woven = yield from list_member(body, "messages")
    done: list[Held] = []
    for index in range(len(woven) - 1):
        if index % AT_ONCE == AT_ONCE - 1:
            yield
        message = load(woven[index]) if b'"tool_use"' in woven[index] else {}
        blocks = message.get("content")
        if message.get("role") != "assistant" or not isinstance(blocks, list):
            continue
        uses = [block for block in objects(blocks) if block.get("type") == "tool_use"]
        kept = next((found for block in uses if (found := memory.held(text(block.get("id"))))), None)
        following = load(woven[index + 1])
        answers = following.get("content")
        if kept is None or any(kept is one for one in done):
            continue
        if following.get("role") != "user" or not isinstance(answers, list):
            continue
        turns, last = _unwoven([block for block in objects(blocks) if not is_blank(block)], kept)
        now = {**message, "content": _with_hidden(last, kept)}
        woven[index] = b",".join([*turns, orjson.dumps(now)])
        if kept.hidden:
            results = [orjson.Fragment(one.output) for one in kept.hidden]
            woven[index + 1] = orjson.dumps({**following, "content": [*results, *answers]})
        done.append(kept)
    return (yield from with_list(body, "messages", woven)) if done else body


def _with_hidden(blocks: list[dict[str, Any]], kept: Held) -> list[object]:
    """Return the blocks of the last round with the hidden calls inserted.

    Each is put where the model wrote it, or after all blocks where the client has changed these.
    """
    exact = tuple(map(mark_of, blocks)) == kept.ending
    whole: list[object] = list(blocks)
    for number, one in enumerate(kept.hidden):
        whole.insert(one.place + number if exact else len(whole), orjson.Fragment(one.call))
    return whole


def _unwoven(blocks: list[dict[str, Any]], kept: Held) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Return the messages of the earlier rounds, as the model wrote them, and the rest of the client's blocks.

    Where the client has changed its blocks, the earlier rounds are left out: thinking must not be moved.
    """
    marks = [mark for turn in kept.earlier for mark in turn.said]
    if marks != [mark_of(block) for block in blocks[: len(marks)]]:
        return [], blocks
    return [one for turn in kept.earlier for one in turn.written], blocks[len(marks) :]


def aliased(body: BodyText, memory: Memory) -> Steps[BodyText]:  # noqa: ARG001 - every format's signature
    """Return the request unchanged: this API refers to nothing that the provider stores."""
    return unchanged(body)
