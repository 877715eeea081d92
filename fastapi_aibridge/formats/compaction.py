"""Compaction of a Responses conversation (`/v1/responses/compact`), which is billed like a response."""

from __future__ import annotations

from . import responses
from .large_text import BodyText, Steps
from .request import ModelRequest
from .rounds import Memory
from .untooled import UntooledFormat


def read(body: BodyText, max_text: int) -> Steps[ModelRequest]:
    request = yield from responses.read(body, max_text)
    request.takes_tools = False
    request.prompts = []  # recorded with the earlier requests
    return request


class Compaction(UntooledFormat):
    def aliased(self, body: BodyText, memory: Memory) -> Steps[BodyText]:
        return responses.aliased(body, memory)

    def restored(self, body: BodyText, memory: Memory) -> Steps[BodyText]:
        return responses.restored(body, memory)


compaction = Compaction("compaction", read, responses.single)
