"""What a request names that is stored at the provider: an earlier response, a conversation, items of either.

Requests of Responses, and bodies that are read for nothing else (new conversations, their items), name such things in
the same members.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import GatewayError
from .large_text import BodyText, Steps, contains
from .lenient import load, objects, text
from .members import (
    SMALL,
    Members,
    Value,
    check,
    is_list,
    is_null,
    is_object,
    is_string,
    members_of,
    read_elements,
    read_members,
    says_something,
    word,
)

MEMBERS = frozenset({"previous_response_id", "conversation", "input", "items"})
"""Members of a body that may hold references."""
_ID = frozenset({"id"})
_ITEM = frozenset({"id", "type", "role", "encrypted_content"})
_WHOLE = frozenset(
    {
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "computer_call",
        "computer_call_output",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "mcp_approval_response",
    }
)
"""Types of items that hold all that they stand for: their ids, which SDKs send back, lead to nothing."""
_MAX_ID = 512
"""Characters of an id; a longer one is none that a provider gave out."""
_MAX_REFERENCES = 1000
"""In one request. Each is looked up; a conversation of so many turns is stored as one."""
_AT_ONCE = 32
"""Items that are looked at in one step."""


class Reference(NamedTuple):
    """`kind` is `response`, `conversation` or `item`. The id is empty where it is none that could exist."""

    kind: str
    id: str


def references_in(body: BodyText) -> Steps[list[Reference]]:
    """What a body refers to that is read for nothing else; it may be empty.

    Raises `GatewayError`, 400, also where it is no JSON object: the provider might read what cannot be read here.
    """
    if len(body) <= SMALL and not body[:].strip():
        return []
    said = members_of(body)
    if type(said) is Value:
        yield from check(body)
    members = yield from read_members(said, MEMBERS)
    return (yield from read_references(members))


def read_references(members: Members) -> Steps[list[Reference]]:
    """All references in a body of which `MEMBERS` have been read. Raises `GatewayError`, 400."""
    found: list[Reference] = []
    if not is_null(previous := members.get("previous_response_id")):
        found.append(Reference("response", word(previous, _MAX_ID)))
    if not is_null(conversation := members.get("conversation")):
        named = (yield from read_members(conversation, _ID)).get("id") if is_object(conversation) else conversation
        found.append(Reference("conversation", word(named, _MAX_ID)))
    for name in ("input", "items"):
        given = members.get(name)
        if is_list(given) and (yield from _may_have_ids(given)):
            yield from _read_items(given, found)
    return found


def made_in(answer: bytes, kind: str) -> list[Reference]:
    """What a provider's answer says that was made: one object, or a list of them, of which only so many are believed:
    each is written down.
    """
    value = load(answer)
    objects_ = objects(value.get("data"))[:_MAX_REFERENCES] if value.get("object") == "list" else [value]
    ids = (text(one.get("id")) for one in objects_)
    return [Reference(kind, id_) for id_ in ids if 0 < len(id_) <= _MAX_ID]


def _read_items(given: object, found: list[Reference]) -> Steps[None]:
    for index, item in enumerate((yield from read_elements(given))):
        if index % _AT_ONCE == _AT_ONCE - 1:
            yield
        if not is_object(item) or not (yield from _may_have_ids(item)):
            continue
        members = yield from read_members(item, _ITEM)
        if not is_null(named := members.get("id")) and not _is_whole(members):
            found.append(Reference("item", word(named, _MAX_ID)))
        if len(found) > _MAX_REFERENCES:
            message = f"the request refers to more than {_MAX_REFERENCES} stored items"
            raise GatewayError(400, "invalid_request", message)


def _is_whole(members: Members) -> bool:
    kind = word(members.get("type"))
    if not kind:
        return "role" in members
    if kind == "reasoning":
        sealed = members.get("encrypted_content")
        return is_string(sealed) and says_something(sealed)
    return kind in _WHOLE


def _may_have_ids(value: object) -> Steps[bool]:
    """Names may be written with escapes, which do not say what they stand for."""
    if type(value) is not Value:
        return True
    return (yield from contains(value.text, (b'"id"', b"\\u"), value.begin, value.end))
