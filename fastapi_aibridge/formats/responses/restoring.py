"""Puts the hidden parts of earlier responses back into the client's input."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import orjson

from ..edits import AT_ONCE, list_member, value_of, with_list, with_member
from ..large_text import BodyText, Steps
from ..lenient import load, text
from ..rounds import Held, Memory
from .items import REASONING, is_call, is_output, is_same, mark_of, reasoning_keys

Added: TypeAlias = defaultdict[int, list[bytes]]
"""Items to insert, by the index of the item before them; -1 for the very beginning."""


def restored(body: BodyText, memory: Memory) -> Steps[BodyText]:
    """Return the request with the hidden parts of earlier responses put back.

    Where the provider remembers the turn (`previous_response_id`, a conversation) it has the calls, and lacks only the
    results of the last round.
    """
    if memory.empty:
        return body
    previous = text((yield from value_of(body, "previous_response_id")))
    body = yield from aliased(body, memory)
    written = yield from list_member(body, "input")
    items: list[dict[str, Any]] = []
    for index, one in enumerate(written):
        if index % AT_ONCE == AT_ONCE - 1:
            yield
        items.append(load(one))
    in_conversation = bool((yield from value_of(body, "conversation")))
    missing = _missing_outputs if previous or in_conversation else _missing_items
    added = missing(items, memory)
    if not added:
        return body
    woven: list[bytes] = []
    for index, one in enumerate(written):
        woven += [one, *added.get(index, ())]
    woven[:0] = added.get(-1, ())
    return (yield from with_list(body, "input", woven))


def aliased(body: BodyText, memory: Memory) -> Steps[BodyText]:
    """Return the request with the id of the last upstream response in place of the one that the client has seen."""
    previous = text((yield from value_of(body, "previous_response_id")))
    named = memory.named(previous) if previous else previous
    if named == previous:
        return body
    return (yield from with_member(body, "previous_response_id", orjson.dumps(named)))


def _missing_outputs(items: Sequence[Mapping[str, Any]], memory: Memory) -> Added:
    """Return the outputs of hidden calls for which the provider waits."""
    added: Added = defaultdict(list)
    done: list[Held] = []
    for index, item in enumerate(items):
        kept = memory.held(text(item.get("call_id"))) if is_output(item) else None
        if kept is not None and kept.hidden and not any(kept is one for one in done):
            done.append(kept)
            added[index] += [one.output for one in kept.hidden]
    return added


def _missing_items(items: Sequence[Mapping[str, Any]], memory: Memory) -> Added:
    """Return the hidden calls and their outputs, each where the model wrote it."""
    added: Added = defaultdict(list)
    done: list[Held] = []
    marks = [mark_of(item) for item in items]
    for index, item in enumerate(items):
        kept = memory.held(text(item.get("call_id"))) if is_call(item) else None
        if kept is not None and not any(kept is one for one in done):
            done.append(kept)
            _put_back_before_calls(items, marks, index, kept, added)
    before = ""
    for index, item in enumerate(items):
        if item.get("type") == REASONING:
            kept = next((one for key in reasoning_keys(item, before) if (one := memory.held(key))), None)
            if kept is not None and not any(kept is one for one in done) and _put_back(marks, index, kept, added):
                done.append(kept)
        elif not (item.get("role") == "assistant" or is_call(item)):
            before = marks[index]
    return Added(list, {place: new for place, new in added.items() if new})


def _put_back(marks: Sequence[str], index: int, kept: Held, added: Added) -> bool:
    """Put back the calls that reasoning led to; return whether the client's items still fit.

    OpenAI does not accept reasoning without them. `index` is the place of the first reasoning item.
    """
    said = [mark for turn in kept.earlier for mark in turn.said]
    anchor = next((n for n, mark in enumerate(said) if is_same(mark, marks[index])), len(said))
    found = _aligned(marks, index, said, anchor)
    if found is not None:
        _put_back_earlier(kept, *found, added)
    return found is not None


def _put_back_earlier(kept: Held, behind: Callable[[int], int], with_ids: bool, added: Added) -> None:
    start = 0
    for turn in kept.earlier:
        for one in turn.hidden:
            added[behind(start + one.place)].append(one.call if with_ids else _without_id(one.call))
        start += len(turn.said)
        added[behind(start)] += [one.output for one in turn.hidden]


def _put_back_before_calls(
    items: Sequence[Mapping[str, Any]], marks: Sequence[str], index: int, kept: Held, added: Added
) -> None:
    """Put back the hidden parts of a response that ended in client calls; `index` is the place of the first."""
    last = index
    while last + 1 < len(items) and is_call(items[last + 1]) and text(items[last + 1].get("call_id")) in kept.order:
        last += 1
    said = [mark for turn in kept.earlier for mark in turn.said]
    whole = [*said, *kept.ending]
    found = _aligned(marks, index, whole, len(whole))
    if found is None:
        # The client has changed its items: earlier rounds are left out, and each call keeps its result.
        for one in kept.hidden:
            added[last] += [_without_id(one.call), one.output]
        return
    behind, with_ids = found
    _put_back_earlier(kept, behind, with_ids, added)
    for one in kept.hidden:
        place = behind(len(said) + one.place) if one.place <= len(kept.ending) else last
        added[place].append(one.call if with_ids else _without_id(one.call))
    added[last] += [one.output for one in kept.hidden]


def _aligned(
    marks: Sequence[str], index: int, whole: Sequence[str], anchor: int
) -> tuple[Callable[[int], int], bool] | None:
    """Align the client's items with those of the whole response, whose item `anchor` is at `index`.

    Return a function from a place in the response to the index of the client's item before it, and whether the client
    kept reasoning with its ids; None where the items are not those that the client was given. A client may leave out
    empty messages, or all reasoning; without reasoning, the items that it led to must lose their ids.
    """
    for left_out in ((), ("message ",), ("message ", REASONING)):
        kept = [n for n, mark in enumerate(whole) if not (mark in left_out or mark.split(" ")[0] in left_out)]
        if anchor < len(whole) and anchor not in kept:
            return None
        start = index - bisect_left(kept, anchor)
        there = marks[start : start + len(kept)] if start >= 0 else ()
        if len(there) == len(kept) and all(is_same(whole[n], mark) for n, mark in zip(kept, there, strict=True)):
            reasoned = [mark for mark in there if mark.startswith(f"{REASONING} ")]
            with_ids = bool(reasoned) and all(mark.split(" ")[1] for mark in reasoned)
            return partial(_behind, start, kept), with_ids
    return None


def _behind(start: int, kept: Sequence[int], place: int) -> int:
    return start - 1 + bisect_left(kept, place)


def _without_id(call: bytes) -> bytes:
    """Return a call without the id under which OpenAI would miss its reasoning."""
    return orjson.dumps({key: value for key, value in load(call).items() if key not in ("id", "status")})
