"""Requests of Chat Completions: what is read of them, and the one member that the gateway adds."""

from __future__ import annotations

from ..lenient import count
from ..members import Members, Value, is_object, is_true, read_members, small
from ..prompts import Conversation
from ..request import MAX_TEXT, ModelRequest, model_of, offers_no_tools, read_body
from ..scanner import Steps, finish
from ..splice import add_member, find_member, set_member

_EXCLUDING = ("functions", "prediction", "web_search_options")
"""Members that exclude `tools`."""
_READ = frozenset({"model", "stream", "stream_options", "messages", "tools", "tool_choice", "n", *_EXCLUDING})


def parse(body: bytes) -> ModelRequest:
    """`read`, all at once."""
    return finish(read(body))


def read(body: bytes, max_text: int = MAX_TEXT) -> Steps[ModelRequest]:
    members = yield from read_body(body, _READ)
    streaming = is_true(members.get("stream"))
    request = ModelRequest(model=model_of(members), streaming=streaming, body=body)
    # Several choices cannot go round together.
    request.takes_tools = count(small(members.get("n"))) <= 1 and not any(
        small(members.get(name)) for name in _EXCLUDING
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
    """Have a stream tell its usage, whether its client asks for that or not."""
    options = members.get("stream_options")
    asked = (yield from read_members(options, {"include_usage"})) if is_object(options) else {}
    if is_true(asked.get("include_usage")):
        return
    request.usage_asked = False
    new, body = b'{"include_usage":true}', request.body
    if "stream_options" not in members:
        request.body = add_member(body, "stream_options", new)
        return
    begin, end = _place(body, options)
    if is_object(options):
        new = set_member(body[begin:end], "include_usage", b"true")
    request.body = body[:begin] + new + body[end:]


def _place(body: bytes, options: object) -> tuple[int, int]:
    if type(options) is Value and options.text is body:
        return options.begin, options.end
    place = find_member(body, "stream_options")
    assert place is not None  # noqa: S101 - for the type checker: it has been read
    return place
