"""What a wire format has to offer the exchange engine. It does no I/O and knows no framework."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..tools import Tool
from .large_text import BodyText, Steps
from .request import ModelRequest
from .rounds import Memory, Rounds


class Format(Protocol):
    """A module: requests read, and the rounds of their responses."""

    name: str

    @property
    def max_tools(self) -> int | None:
        """How many tools a provider takes in one request, the client's own among them."""

    def read(self, body: BodyText, max_text: int) -> Steps[ModelRequest]:
        """Read a request, keeping at most `max_text` bytes of what was said. Raises `GatewayError` with status 400."""

    def parse(self, body: BodyText) -> ModelRequest:
        """`read`, all at once."""

    def definitions(self, tools: Iterable[Tool]) -> bytes:
        """The tools as the format lists them, without the brackets."""

    def restored(self, body: BodyText, memory: Memory) -> Steps[BodyText]:
        """The request with what the client does not know of earlier responses put back."""

    def aliased(self, body: BodyText, memory: Memory) -> Steps[BodyText]:
        """The request with ids that the upstream knows, in place of those that the client has seen."""

    def single(self, body: BodyText, max_text: int, *, usage_asked: bool) -> Rounds:
        """One round, to be relayed as it comes. `max_text` are the characters of each text that are recorded."""

    def woven(
        self, body: BodyText, names: frozenset[str], tools: bytes, memory: Memory, max_text: int, *, usage_asked: bool
    ) -> Steps[Rounds]:
        """As many rounds as tools are called. `names` are the injected ones, `tools` their definitions."""
