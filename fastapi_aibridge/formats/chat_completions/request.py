"""Requests of Chat Completions: reads them, and adds the one member that the gateway needs."""

from __future__ import annotations

from ..edits import find, part, replaced, with_member, with_new_member
from ..large_text import BodyText, Steps
from ..lenient import count
from ..members import Members, Value, is_object, is_true, read_members, small
from ..models_named import ALTERNATIVES, alternatives
from ..prompts import Conversation
from ..request import ModelRequest, model_of, offers_no_tools, read_body

_EXCLUDING = ("functions", "prediction", "web_search_options")
"""Members that exclude `tools`."""
_BOUNDS = ("max_completion_tokens", "max_tokens")
_READ = frozenset(
    {
        "model",
        "stream",
        "stream_options",
        "messages",
        "tools",
        "tool_choice",
        "n",
        "service_tier",
        *_BOUNDS,
        *_EXCLUDING,
        *ALTERNATIVES,
    }
)


def read(body: BodyText, max_text: int) -> Steps[ModelRequest]:
    members = yield from read_body(body, _READ)
    streaming = is_true(members.get("stream"))
    request = ModelRequest(model=model_of(members), streaming=streaming, body=body)
    request.output_bounds = (members.get("max_completion_tokens"), members.get("max_tokens"))
    request.choice_counts = (members.get("n"),)
    request.tiers = (members.get("service_tier"),)
    if not ALTERNATIVES.isdisjoint(members):
        request.alternatives = yield from alternatives(members)
    # The rounds of injected tools serve one choice only.
    request.takes_tools = count(small(members.get("n"))) <= 1 and not any(
        small(members[name]) for name in _EXCLUDING if name in members
    )
    conversation = Conversation(max_text)
    yield from conversation.read(members.get("messages"))
    request.prompts = conversation.prompts
    request.offers_no_tools = offers_no_tools(members, instructed=conversation.instructed)
    request.correlating_tool_call_id = conversation.answered
    if streaming:
        yield from ask_for_usage(request, members)
    return request


def ask_for_usage(request: ModelRequest, members: Members) -> Steps[None]:
    """Make a stream report its usage, whether its client asks for that or not."""
    options = members.get("stream_options")
    asked = (yield from read_members(options, {"include_usage"})) if is_object(options) else {}
    if is_true(asked.get("include_usage")):
        return
    request.usage_asked = False
    new: BodyText = b'{"include_usage":true}'
    body = request.body
    if "stream_options" not in members:
        request.body = yield from with_new_member(body, "stream_options", new)
        return
    place = yield from _place(body, options)
    if place is None:
        return  # its name is written in another case
    if is_object(options):
        new = yield from with_member((yield from part(body, *place)), "include_usage", b"true")
    request.body = yield from replaced(body, *place, new)


def _place(body: BodyText, options: object) -> Steps[tuple[int, int] | None]:
    if type(options) is Value and options.text is body:
        return options.begin, options.end
    return (yield from find(body, "stream_options"))
