"""Requests of Responses: reads the members that the gateway needs."""

from __future__ import annotations

from ..large_text import BodyText, Steps
from ..members import is_object, is_string, is_true, says_something
from ..models_named import ALTERNATIVES, alternatives
from ..prompts import Conversation
from ..references import read_references
from ..request import ModelRequest, model_of, offers_no_tools, read_body

_READ = frozenset(
    {
        "model",
        "stream",
        "input",
        "instructions",
        "background",
        "prompt",
        "tools",
        "tool_choice",
        "previous_response_id",
        "conversation",
        "store",
        "max_output_tokens",
        "service_tier",
        *ALTERNATIVES,
    }
)


def read(body: BodyText, max_text: int) -> Steps[ModelRequest]:
    members = yield from read_body(body, _READ)
    # A prompt that is stored at the provider has its own model.
    optional = "model" not in members and is_object(members.get("prompt"))
    request = ModelRequest(
        model="" if optional else model_of(members), streaming=is_true(members.get("stream")), body=body
    )
    request.output_bounds = (members.get("max_output_tokens"),)
    request.tiers = (members.get("service_tier"),)
    if not ALTERNATIVES.isdisjoint(members):
        request.alternatives = yield from alternatives(members)
    # A background request returns before its response exists, so no round can follow.
    request.background = is_true(members.get("background"))
    request.takes_tools = not request.background
    conversation = Conversation(max_text)
    given = members.get("input")
    if is_string(given):
        yield from conversation.say(given)
    else:
        yield from conversation.read(given)
    request.prompts = conversation.prompts
    instructed = conversation.instructed or says_something(members.get("instructions"))
    request.offers_no_tools = offers_no_tools(members, instructed=instructed)
    request.references = yield from read_references(members)
    request.correlating_tool_call_id = conversation.answered
    return request
