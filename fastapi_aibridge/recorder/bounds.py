"""Size limits of a record. Clients and upstreams choose most of its texts, so each one is limited."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from .columns import BEGUN_TYPES, FACT_TYPES
from .records import Ending, Facts, Interception, Prompt, Thought, TokenUsage, ToolUsage
from .text import cut, cut_key, dump, dump_bytes, storable

MAX_TEXT = 1024 * 1024
"""Bytes of facts that are stored of one interception."""

KEY_LIMITS = dict.fromkeys(("id", "initiator_id", "api_key_id", "provider", "model", "client", "session_id"), 512)
"""Bytes of each indexed value. PostgreSQL indexes rows up to 2,704 bytes, and the daily sums' key holds four of these
values. A longer value is cut and ends with its digest, so that different values stay different.
"""

LIMITS = {name: 512 for name, kind in BEGUN_TYPES.items() if kind.startswith("str")} | {"user_agent": 8192} | KEY_LIMITS
"""Bytes of each text member of `Interception`."""

OBJECT_ID_LIMIT = 512
OWNER_LIMIT = 2048
"""Bytes of an owner's id: the most that an index takes, because it is compared with ids that are not cut."""
KIND_LIMIT = 64
METADATA_LIMIT = 16 * 1024
ERROR_LIMIT = 16 * 1024

_MOST_GROUPS, _GROUP_LIMIT = 64, 256
"""The number of groups of one interception, and the bytes of each name."""
_MOST_ITEMS = 1000
"""Entries in all facts of one interception, all lists together."""
_ITEM_ID_LIMIT = 256
_MOST_EXTRA = 32
_EXTRA_NAME_LIMIT = 64
_MAX_COUNT = 2**63 - 1

_ALWAYS = tuple(name for name, kind in BEGUN_TYPES.items() if kind == "str")
_SOMETIMES = tuple(name for name, kind in BEGUN_TYPES.items() if kind == "str | None")
_required = attrgetter(*_ALWAYS)
_optional = attrgetter(*_SOMETIMES)
_SMALLEST_LIMIT = min(LIMITS.values())


def bounded(begun: Interception) -> Interception:
    """Return the interception with its texts made storable and cut to their limits.

    Raises `TypeError` for members of a wrong type: such a start could not be filed later.
    """
    try:
        texts = "".join(_required(begun)) + "".join([text for text in _optional(begun) if text is not None])
    except TypeError:
        raise _type_error(begun) from None
    if begun.streaming not in (True, False) or not isinstance(begun.metadata, Mapping):
        raise _type_error(begun)
    if len(texts) <= _SMALLEST_LIMIT and texts.isascii() and "\0" not in texts:
        return begun
    kept: dict[str, Any] = {}
    truncated = begun.truncated
    for name, limit in LIMITS.items():
        text = getattr(begun, name)
        if text is None:
            continue
        whole = storable(text)
        kept[name] = cut_key(whole, limit) if name in KEY_LIMITS else cut(whole, limit)
        truncated = truncated or kept[name] != whole
    return replace(begun, **kept, truncated=truncated)


def _type_error(begun: Interception) -> TypeError:
    for name, expected in BEGUN_TYPES.items():
        value = getattr(begun, name)
        if name in _ALWAYS and not isinstance(value, str):
            return TypeError(f"an interception's {name} is a str, not {type(value).__name__}")
        if name in _SOMETIMES and not isinstance(value, str | None):
            return TypeError(f"an interception's {name} is a str or None, not {type(value).__name__}")
        if expected == "bool" and value not in (True, False):
            return TypeError(f"an interception's {name} is a bool, not {type(value).__name__}")
    return TypeError(f"an interception's metadata is a mapping, not {type(begun.metadata).__name__}")


def bounded_ending(ending: Ending) -> tuple[Ending, bool]:
    """Return the end with its texts made storable and cut, and whether the error was cut."""
    error, hint = ending.error, ending.credential_hint
    if error is None and hint is None:
        return ending, False
    whole = storable(error)
    error = whole and cut(whole, ERROR_LIMIT)
    return replace(ending, error=error, credential_hint=hint and cut(storable(hint), LIMITS["credential_hint"])), (
        error != whole
    )


def metadata_text(metadata: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the metadata as JSON text, and whether members were left out to keep within `METADATA_LIMIT`."""
    if not metadata:
        return "{}", False
    body = dump_bytes(metadata)
    if len(body) <= METADATA_LIMIT and body != b"null":
        return body.decode(), False
    kept: dict[str, Any] = {}
    room = METADATA_LIMIT
    for name, value in metadata.items():
        size = len(dump_bytes({str(name): value}))
        if size > room:
            break
        kept[str(name)] = value
        room -= size
    return dump(kept), True


def groups_text(groups: Sequence[str]) -> tuple[str | None, bool]:
    """Return the groups as JSON text (None if there are none), and whether some were left out."""
    if not groups:
        return None, False
    return dump(list(dict.fromkeys(map(group_key, groups[:_MOST_GROUPS])))), len(groups) > _MOST_GROUPS


def group_key(group: str) -> str:
    """Return the group's name as it is stored, for use in a search."""
    return cut_key(group, _GROUP_LIMIT)


def key_of(name: str, value: str) -> str:
    """Return the value of a member named in `KEY_LIMITS` as it is stored, for use in a search."""
    return cut_key(value, KEY_LIMITS[name])


@dataclass(slots=True)
class Room:
    """The remaining capacity of an interception's facts: bytes of text, and number of entries."""

    text: int = MAX_TEXT
    items: int = _MOST_ITEMS

    def take(self, text: str) -> str:
        """Cut the text to the room that is left, and subtract it."""
        kept = cut(storable(text), self.text)
        self.text -= len(kept.encode())
        return kept


def facts_body(facts: Facts, room: Room) -> tuple[str | None, bool]:
    """Return the facts as JSON text (None if there are none), and whether entries were left out."""
    count = len(facts.token_usages) + len(facts.prompts) + len(facts.tool_usages) + len(facts.thoughts)
    if not count:
        return None, False
    known = sum([len(prompt.text) for prompt in facts.prompts]) + sum([len(thought.text) for thought in facts.thoughts])
    if count <= room.items and known <= room.text:
        body = dump_bytes(_members(facts))
        if len(body) <= room.text and body != b"null":
            room.text -= len(body)
            room.items -= count
            return body.decode(), False
    kept, left_out = bounded_facts(facts, room)
    return dump(_members(kept)), left_out


def _members(facts: Facts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in FACT_TYPES}


def bounded_facts(facts: Facts, room: Room) -> tuple[Facts, bool]:
    """Return the facts cut to the room that is left, and whether entries were left out."""
    kept, left_out = Facts(objects=facts.objects), False
    for name, bounded_one in _BOUNDED.items():
        given = getattr(facts, name)
        taken = [bounded_one(item, room) for item in given[: room.items]]
        setattr(kept, name, taken)
        room.items -= len(taken)
        left_out = left_out or len(taken) < len(given)
    return kept, left_out


def _token_usage(usage: TokenUsage, _: Room) -> TokenUsage:
    extra = {cut(str(name), _EXTRA_NAME_LIMIT): value for name, value in list(usage.extra.items())[:_MOST_EXTRA]}
    extra = {
        name: value for name, value in extra.items() if isinstance(value, (int, float)) and abs(value) <= _MAX_COUNT
    }
    return replace(usage, message_id=cut(usage.message_id, _ITEM_ID_LIMIT), extra=extra)


def _prompt(prompt: Prompt, room: Room) -> Prompt:
    text = room.take(prompt.text)
    return Prompt(
        message_id=cut(prompt.message_id, _ITEM_ID_LIMIT),
        text=text,
        source=cut(prompt.source, KIND_LIMIT),
        truncated=prompt.truncated or len(text) < len(prompt.text),
    )


def _tool_usage(usage: ToolUsage, room: Room) -> ToolUsage:
    kept = replace(
        usage,
        message_id=cut(usage.message_id, _ITEM_ID_LIMIT),
        call_id=cut(usage.call_id, _ITEM_ID_LIMIT),
        tool=cut(usage.tool, _ITEM_ID_LIMIT),
        server=usage.server and cut(usage.server, _ITEM_ID_LIMIT),
    )
    if usage.arguments is not None:
        arguments = usage.arguments if isinstance(usage.arguments, str) else dump(usage.arguments)
        text = room.take(arguments)
        if len(text) < len(arguments) or (arguments == "null" and not isinstance(usage.arguments, str)):
            # The arguments are too long, or nested too deeply for any encoder.
            kept.arguments, kept.truncated = text, True
    if usage.error is not None:
        kept.error = room.take(usage.error)
        kept.truncated = kept.truncated or len(kept.error) < len(usage.error)
    return kept


def _thought(thought: Thought, room: Room) -> Thought:
    text = room.take(thought.text)
    return Thought(
        source=cut(thought.source, KIND_LIMIT), text=text, truncated=thought.truncated or len(text) < len(thought.text)
    )


_BOUNDED: dict[str, Callable[[Any, Room], Any]] = {
    "token_usages": _token_usage,
    "prompts": _prompt,
    "tool_usages": _tool_usage,
    "thoughts": _thought,
}


def weight_of(facts: Facts) -> int:
    """Return the approximate bytes of the facts' texts."""
    texts = [prompt.text for prompt in facts.prompts] + [thought.text for thought in facts.thoughts]
    calls = sum([len(dump_bytes(call.arguments)) + len(call.error or "") for call in facts.tool_usages])
    return sum(map(len, texts)) + calls
