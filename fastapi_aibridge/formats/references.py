"""Finds the objects stored at the provider that a request names: an earlier response, a conversation, items of either.

Requests of Responses, and the bodies of relayed routes (new conversations, their items), name them in the same members.
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
"""Item types that hold their whole content: their ids, which SDKs send back, refer to nothing stored."""
_MAX_ID = 512
"""Characters of an id; no provider gives out a longer one."""
_MAX_REFERENCES = 1000
"""References in one request. Each is looked up; a conversation of so many turns is stored as one."""
_AT_ONCE = 32
"""Items that are read in one step."""


class Reference(NamedTuple):
    """A named object. `kind` is `response`, `conversation` or `item`; the id is empty where it cannot be a real one."""

    kind: str
    id: str


def references_in(body: BodyText) -> Steps[list[Reference]]:
    """Return the references in the body of a relayed route; the body may be empty.

    Raises `GatewayError`, 400, also where it is not a JSON object: the provider might read what the gateway cannot.
    """
    if len(body) <= SMALL and not body[:].strip():
        return []
    said = members_of(body)
    if type(said) is Value:
        yield from check(body)
    members = yield from read_members(said, MEMBERS)
    return (yield from read_references(members))


def read_references(members: Members) -> Steps[list[Reference]]:
    """Return all references in a body whose `MEMBERS` have been read. Raises `GatewayError`, 400."""
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
    """Return the objects that a provider's response says were created: one, or a list of them.

    A list is read up to `_MAX_REFERENCES` objects, since each of them is stored.
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
    """Whether a value may hold a member `id`; a name written with escapes may be any."""
    if type(value) is not Value:
        return True
    return (yield from contains(value.text, (b'"id"', b"\\u"), value.begin, value.end))
