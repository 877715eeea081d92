"""Requests of Chat Completions: what is read of them, and the one member that the gateway adds."""

from __future__ import annotations

from ..lenient import count
from ..members import Value, read_members, small
from ..prompts import Conversation
from ..request import MAX_TEXT, ModelRequest, is_list_of_some, is_true, model_of, read_body
from ..scanner import Steps, finish
from ..splice import add_member, set_member

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
    tools = members.get("tools")
    request.offers_no_tools = not is_list_of_some(tools) and (tools is not None or conversation.instructed)
    request.correlating_tool_call_id = conversation.answered
    if streaming:
        yield from ask_for_usage(request, members.get("stream_options"))
    return request


def ask_for_usage(request: ModelRequest, options: Value | None) -> Steps[None]:
    """Have a stream tell its usage, whether its client asks for that or not."""
    written = options is not None and options.begins_with(b"{")
    asked = (yield from read_members(options, {"include_usage"})) if options and written else {}
    if not is_true(asked.get("include_usage")):
        request.usage_asked = False
        request.body = _asking_for_usage(request.body, options)


def _asking_for_usage(body: bytes, options: Value | None) -> bytes:
    if options is None:
        return add_member(body, "stream_options", b'{"include_usage":true}')
    new = b'{"include_usage":true}'
    if options.begins_with(b"{"):
        new = set_member(options.raw, "include_usage", b"true")
    if options.text is body:
        return body[: options.begin] + new + body[options.end :]
    return set_member(body, "stream_options", new)
