"""Requests of Responses: what is read of them."""

from __future__ import annotations

from ..prompts import Conversation
from ..references import read_references
from ..request import MAX_TEXT, ModelRequest, is_list_of_some, is_true, model_of, read_body, says_something
from ..scanner import Steps, finish

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
    }
)


def parse(body: bytes) -> ModelRequest:
    """`read`, all at once."""
    return finish(read(body))


def read(body: bytes, max_text: int = MAX_TEXT) -> Steps[ModelRequest]:
    members = yield from read_body(body, _READ)
    stored = members.get("prompt")
    # A prompt that is stored at the provider names its model itself.
    optional = "model" not in members and stored is not None and stored.begins_with(b"{")
    request = ModelRequest(
        model="" if optional else model_of(members), streaming=is_true(members.get("stream")), body=body
    )
    # A response in the background is over here before it has begun.
    request.background = is_true(members.get("background"))
    request.takes_tools = not request.background
    conversation = Conversation(max_text)
    given = members.get("input")
    if given is not None and given.begins_with(b'"'):
        yield from conversation.say(given)
    else:
        yield from conversation.read(given)
    request.prompts = conversation.prompts
    tools = members.get("tools")
    instructed = conversation.instructed or says_something(members.get("instructions"))
    request.offers_no_tools = not is_list_of_some(tools) and (tools is not None or instructed)
    request.references = yield from read_references(members)
    request.correlating_tool_call_id = conversation.answered
    return request
