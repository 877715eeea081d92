"""OpenAI Embeddings (https://platform.openai.com/docs/api-reference/embeddings).

Inputs are not recorded: they are documents more often than a user's words. Responses are large, and only their usage
and errors are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from ..recorder.records import Facts
from .chat_completions.streams import error_events
from .decoder import Decoder
from .large_text import BodyText, Steps
from .lenient import load_answer, member, reported
from .request import ModelRequest, model_of, read_body
from .single import SingleRound
from .untooled import UntooledFormat
from .usage import chat_usage

_READ = frozenset({"model", "stream"})
_SMALL = 1024 * 1024
"""Bytes of a response whose members are split in a millisecond; in a larger one only the usage is searched for."""
_NEAR = 4096
"""Bytes at either end of a large response that are searched for its usage: it stands beside the vectors, not among
them.
"""
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class EmbeddingsMessage:
    """A response with vectors, which is never a stream."""

    def __init__(self) -> None:
        self.id = ""
        self.complete = False
        self.error: str | None = None
        self._usage: dict[str, Any] = {}

    @property
    def stream_complete(self) -> bool:
        return self.complete

    def apply(self, event: Mapping[str, Any]) -> None:
        self.read(event)

    def done(self) -> None:
        self.complete = True

    def read(self, answer: Mapping[str, Any]) -> None:
        self.complete = True
        self._usage = member(answer, "usage")
        if answer.get("error") or "data" not in answer:
            self.error = reported(answer)

    def facts(self) -> Facts:
        usage = [chat_usage("", self._usage, partial=False)] if self._usage else []
        return Facts(token_usages=usage)


class _UsageDecoder(Decoder):
    def read(self, body: bytes) -> Mapping[str, Any] | None:
        answer = _outline(body)
        if answer is not None:
            self.message.read(answer)
        return answer


def _outline(body: bytes) -> Mapping[str, Any] | None:
    """Return the members of a response beside its vectors; None where it is not a JSON object."""
    if len(body) > _SMALL:
        if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            return None
        return {"data": [], "usage": _usage_near(body[-_NEAR:], last=True) or _usage_near(body[:_NEAR], last=False)}
    try:
        members = _MEMBERS.decode(body)
    except (ValueError, RecursionError):
        return load_answer(body)
    if "data" not in members:
        return load_answer(body)
    told: dict[str, Any] = {name: load_answer(bytes(members[name])) for name in ("usage", "error") if name in members}
    return {"data": [], **told}


def _usage_near(piece: bytes, *, last: bool) -> object:
    place = piece.rfind(b'"usage"') if last else piece.find(b'"usage"')
    _, colon, value = piece[place:].partition(b":") if place >= 0 else (b"", b"", b"")
    try:
        return json.JSONDecoder().raw_decode(value.decode("ascii", "ignore").lstrip())[0] if colon else None
    except (ValueError, RecursionError):
        return None


def read(body: BodyText, max_text: int) -> Steps[ModelRequest]:  # noqa: ARG001 - every format's signature
    members = yield from read_body(body, _READ)
    return ModelRequest(model=model_of(members), streaming=False, body=body, takes_tools=False, has_output=False)


def single(body: BodyText, max_text: int, *, usage_asked: bool) -> SingleRound:  # noqa: ARG001 - every format's signature
    return SingleRound(body, _UsageDecoder(EmbeddingsMessage(), lambda _: True), error_events)


embeddings = UntooledFormat("embeddings", read, single)
