"""Requests of Messages: what is read of them."""

from __future__ import annotations

from ..members import read_members, string
from ..prompts import Conversation
from ..request import MAX_TEXT, ModelRequest, is_list_of_some, is_true, model_of, read_body, says_something
from ..scanner import Steps, finish

_READ = frozenset({"model", "stream", "messages", "system", "metadata", "tools", "tool_choice", "container"})
_MAX_USER_ID = 16 * 1024


def parse(body: bytes) -> ModelRequest:
    """`read`, all at once."""
    return finish(read(body))


def read(body: bytes, max_text: int = MAX_TEXT) -> Steps[ModelRequest]:
    members = yield from read_body(body, _READ)
    request = ModelRequest(model=model_of(members), streaming=is_true(members.get("stream")), body=body)
    tools, system = members.get("tools"), members.get("system")
    request.offers_no_tools = not is_list_of_some(tools) and (tools is not None or says_something(system))
    metadata = members.get("metadata")
    if metadata is not None and metadata.begins_with(b"{"):
        user = (yield from read_members(metadata, {"user_id"})).get("user_id")
        found = string(user, _MAX_USER_ID)
        request.user_id = found[0] if found and found[0] and not found[1] else None
    conversation = Conversation(max_text)
    yield from conversation.read(members.get("messages"))
    request.prompts = conversation.prompts
    request.correlating_tool_call_id = conversation.answered
    return request
