"""OpenAI Completions, the predecessor of Chat Completions: prompts in, text out
(https://platform.openai.com/docs/api-reference/completions).
"""

from __future__ import annotations

from typing import Any

from .chat_completions.request import ask_for_usage
from .chat_completions.streams import single
from .large_text import STEP, BodyText, Steps
from .members import is_list, is_string, is_true, read_elements
from .models_named import ALTERNATIVES, alternatives
from .prompts import Conversation
from .request import ModelRequest, model_of, read_body
from .untooled import UntooledFormat

_READ = frozenset({"model", "stream", "stream_options", "prompt", "max_tokens", "n", "best_of", *ALTERNATIVES})


def read(body: BodyText, max_text: int) -> Steps[ModelRequest]:
    members = yield from read_body(body, _READ)
    streaming = is_true(members.get("stream"))
    request = ModelRequest(model=model_of(members), streaming=streaming, body=body, takes_tools=False)
    request.output_bounds = (members.get("max_tokens"),)
    request.choice_counts = (members.get("n"), members.get("best_of"))
    if not ALTERNATIVES.isdisjoint(members):
        request.alternatives = yield from alternatives(members)
    conversation = Conversation(max_text)
    prompt = members.get("prompt")
    if is_string(prompt):
        yield from conversation.say(prompt)
    elif is_list(prompt) and _is_of_texts(prompt):
        texts = yield from read_elements(prompt)
        request.questions = len(texts)
        for one in texts:
            yield from conversation.say(one)
            yield
    elif is_list(prompt):
        request.questions = yield from _lists_in(prompt)
    request.prompts = conversation.prompts
    if streaming:
        yield from ask_for_usage(request, members)
    return request


def _is_of_texts(value: Any) -> bool:
    """Whether a list of prompts holds texts rather than tokens, judged by its first element."""
    if type(value) is list:
        return bool(value) and isinstance(value[0], str)
    return bool(value.text[value.begin + 1 : value.begin + 65].lstrip().startswith(b'"'))


def _lists_in(value: Any) -> Steps[int]:
    """Count the prompts in a list of tokens: one, or one for each nested list."""
    if type(value) is list:
        return max(1, sum(type(one) is list for one in value))
    found = 0
    for place in range(value.begin + 1, value.end, STEP):
        found += value.text[place : min(place + STEP, value.end)].count(b"[")
        yield
    return max(1, found)


completions = UntooledFormat("completions", read, single)
