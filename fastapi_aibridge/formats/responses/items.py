"""Items of Responses: recognizes calls and repeated items, and writes the outputs of tools."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ...tools import Text
from ..lenient import objects, text
from ..rounds import AnsweredCall, ToolCall

REASONING = "reasoning"
FUNCTION_CALL = "function_call"


def is_call(item: Mapping[str, Any]) -> bool:
    """Whether the item is a call that somebody other than the provider has to answer."""
    kind = text(item.get("type"))
    return kind == FUNCTION_CALL or (bool(item.get("call_id")) and kind.endswith("_call"))


def is_output(item: Mapping[str, Any]) -> bool:
    """Whether the item answers such a call. That of `tool_search_call` is named `tool_search_output`."""
    return bool(item.get("call_id")) and text(item.get("type")).endswith("_output")


def digest(written: str) -> str:
    return hashlib.blake2b(written.encode(errors="replace"), digest_size=16).hexdigest()


def mark_of(item: Mapping[str, Any]) -> str:
    """Return the mark by which an item is recognized in a later request.

    Clients leave out ids, and write messages in their own way.
    """
    match item.get("type", "message"):
        case "message":
            content = item.get("content")
            said = content if isinstance(content, str) else "".join(text(one.get("text")) for one in objects(content))
            return f"message {said}"
        case "reasoning":
            content = text(item.get("encrypted_content"))
            return f"{REASONING} {text(item.get('id'))} {digest(content) if content else ''}"
        case kind:
            return f"{kind} {item.get('call_id') or item.get('id') or ''}"


def is_same(kept: str, mark: str) -> bool:
    """Whether two marks are of one item. Clients leave out the id of a reasoning item, or its encrypted content."""
    if kept == mark:
        return True
    if not (kept.startswith(f"{REASONING} ") and mark.startswith(f"{REASONING} ")):
        return False
    pairs = zip(kept.split(" ")[1:], mark.split(" ")[1:], strict=False)
    return any(ours and ours == theirs for ours, theirs in pairs)


def reasoning_keys(item: Mapping[str, Any], before: str) -> list[str]:
    """Return the keys under which the hidden calls are held that followed a reasoning item.

    `before` is the mark of the last item that was not the model's: some providers restart their ids in each
    conversation.
    """
    place = digest(before)
    names = [text(item.get("id")), digest(said) if (said := text(item.get("encrypted_content"))) else ""]
    return [f"{REASONING} {name} {place}" for name in names if name]


def arguments_are_object(written: object) -> bool:
    if isinstance(written, dict):
        return True
    return ToolCall(id="", name="", arguments=text(written) or "?").parsed() is not None


def call_output(answered: AnsweredCall) -> dict[str, Any]:
    output: Any = answered.result.text
    if not all(isinstance(part, Text) for part in answered.result.content):
        output = [
            {"type": "input_text", "text": part.text}
            if isinstance(part, Text)
            else {"type": "input_image", "image_url": f"data:{part.mime_type};base64,{part.data}"}
            for part in answered.result.content
            if not isinstance(part, Text) or part.text
        ]
    return {"type": "function_call_output", "call_id": answered.call.id, "output": output}
