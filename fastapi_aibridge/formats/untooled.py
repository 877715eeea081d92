"""Wire formats without tools: their one round is relayed unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ..tools import Tool
from .large_text import BodyText, Steps, unchanged
from .request import ModelRequest
from .rounds import Memory, Rounds

Read = Callable[[BodyText, int], Steps[ModelRequest]]


class Single(Protocol):
    def __call__(self, body: BodyText, max_text: int, *, usage_asked: bool) -> Rounds: ...


class UntooledFormat:
    """A format made of two functions: one reads its requests, one makes their only round."""

    max_tools: int | None = None

    def __init__(self, name: str, read: Read, single: Single) -> None:
        self.name = name
        self.read = read
        self.single = single

    def definitions(self, tools: Iterable[Tool]) -> bytes:  # noqa: ARG002 - every format's signature
        return b""

    def restored(self, body: BodyText, memory: Memory) -> Steps[BodyText]:  # noqa: ARG002 - every format's signature
        return unchanged(body)

    def aliased(self, body: BodyText, memory: Memory) -> Steps[BodyText]:  # noqa: ARG002 - every format's signature
        return unchanged(body)

    def woven(
        self,
        body: BodyText,
        names: frozenset[str],  # noqa: ARG002 - every format's signature
        tools: bytes,  # noqa: ARG002
        memory: Memory,  # noqa: ARG002
        max_text: int,
        *,
        usage_asked: bool,
    ) -> Steps[Rounds]:
        return unchanged(self.single(body, max_text, usage_asked=usage_asked))
