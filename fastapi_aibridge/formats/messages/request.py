"""Requests of Messages: reads the members that the gateway needs."""

from __future__ import annotations

from ..large_text import BodyText, Steps
from ..members import is_object, is_true, read_members, says_something, string
from ..models_named import ALTERNATIVES, alternatives
from ..prompts import Conversation
from ..request import ModelRequest, model_of, offers_no_tools, read_body

_READ = frozenset(
    {
        "model",
        "stream",
        "messages",
        "system",
        "metadata",
        "tools",
        "tool_choice",
        "container",
        "max_tokens",
        "service_tier",
        "speed",
        *ALTERNATIVES,
    }
)
_MAX_USER_ID = 16 * 1024


def read(body: BodyText, max_text: int) -> Steps[ModelRequest]:
    members = yield from read_body(body, _READ)
    request = ModelRequest(model=model_of(members), streaming=is_true(members.get("stream")), body=body)
    request.output_bounds = (members.get("max_tokens"),)
    request.tiers = (members.get("service_tier"), members.get("speed"))
    if not ALTERNATIVES.isdisjoint(members):
        request.alternatives = yield from alternatives(members)
    request.offers_no_tools = offers_no_tools(members, instructed=says_something(members.get("system")))
    metadata = members.get("metadata")
    if is_object(metadata):
        user = (yield from read_members(metadata, {"user_id"})).get("user_id")
        found = string(user, _MAX_USER_ID)
        request.user_id = found[0] if found and found[0] and not found[1] else None
    conversation = Conversation(max_text)
    yield from conversation.read(members.get("messages"))
    request.prompts = conversation.prompts
    request.correlating_tool_call_id = conversation.answered
    return request
