"""OpenAI Completions, the older sibling of Chat Completions: a prompt in, text out
(https://platform.openai.com/docs/api-reference/completions).
"""

from __future__ import annotations

from .chat_completions.request import ask_for_usage
from .chat_completions.streams import single
from .members import Value, read_elements
from .prompts import Conversation
from .request import MAX_TEXT, ModelRequest, is_true, model_of, read_body
from .scanner import Steps
from .untooled import UntooledFormat

_READ = frozenset({"model", "stream", "stream_options", "prompt"})


def read(body: bytes, max_text: int = MAX_TEXT) -> Steps[ModelRequest]:
    members = yield from read_body(body, _READ)
    streaming = is_true(members.get("stream"))
    request = ModelRequest(model=model_of(members), streaming=streaming, body=body, takes_tools=False)
    conversation = Conversation(max_text)
    prompt = members.get("prompt")
    if prompt is not None and prompt.begins_with(b'"'):
        yield from conversation.say(prompt)
    elif prompt is not None and _is_list_of_texts(prompt):
        for one in (yield from read_elements(prompt)):
            yield from conversation.say(one)
            yield
    request.prompts = conversation.prompts
    if streaming:
        yield from ask_for_usage(request, members.get("stream_options"))
    return request


def _is_list_of_texts(value: Value) -> bool:
    """Not of tokens, of which there may be very many."""
    return value.begins_with(b"[") and value.text[value.begin + 1 : value.begin + 65].lstrip().startswith(b'"')


completions = UntooledFormat("completions", read, single)
