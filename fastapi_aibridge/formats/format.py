"""The interface of a wire format to the exchange engine. A format does no I/O and knows no framework."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..tools import Tool
from .large_text import BodyText, Steps
from .request import ModelRequest
from .rounds import Memory, Rounds


class Format(Protocol):
    """A wire format, for example a module: it reads requests and makes the rounds of their responses."""

    name: str

    @property
    def max_tools(self) -> int | None:
        """The most tools that a provider accepts in one request, the client's own included; None for any number."""

    def read(self, body: BodyText, max_text: int) -> Steps[ModelRequest]:
        """Read a request, keeping at most `max_text` bytes of its prompts. Raises `GatewayError` with status 400."""

    def definitions(self, tools: Iterable[Tool]) -> bytes:
        """Serialize the tools as the format lists them, without the brackets."""

    def restored(self, body: BodyText, memory: Memory) -> Steps[BodyText]:
        """Return the request with the hidden parts of earlier responses put back."""

    def aliased(self, body: BodyText, memory: Memory) -> Steps[BodyText]:
        """Return the request with ids that the upstream knows in place of those that the client has seen."""

    def single(self, body: BodyText, max_text: int, *, usage_asked: bool) -> Rounds:
        """Make the only round of a relayed response; `max_text` characters of each text are recorded."""

    def woven(
        self, body: BodyText, names: frozenset[str], tools: bytes, memory: Memory, max_text: int, *, usage_asked: bool
    ) -> Steps[Rounds]:
        """Make the rounds of a response with injected tools. `names` are their names, `tools` their definitions."""
