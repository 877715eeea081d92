"""What a wire format has to offer the exchange engine: requests read, answers observed, errors written.

Formats do no I/O and know no framework: bytes in, bytes to relay and facts to record out.
"""

from __future__ import annotations

from typing import Protocol

from ..errors import GatewayError
from ..recorder.records import Facts
from .request import ModelRequest
from .rounds import RoundsFormat
from .scanner import Steps


class Observer(Protocol):
    """Watches one upstream message go by and keeps what is to be recorded; nothing it is fed makes it fail."""

    @property
    def finished(self) -> bool:
        """Whether the message has come to its end: a stream that stops earlier has broken off."""

    @property
    def over(self) -> bool:
        """Whether the stream's last event has been seen."""

    @property
    def error(self) -> str | None:
        """The error that the upstream itself reported, within the message or instead of it."""

    def stream(self, block: bytes) -> bytes:
        """One or more whole events; returns those that the client gets."""

    def blocking(self, body: bytes) -> bool:
        """The whole body of an answer that is no stream, decoded; also of an error. Whether it is a JSON object."""

    def facts(self) -> Facts:
        """What was seen, prompts aside; usages are marked partial while the message is not finished."""

    @property
    def message_id(self) -> str: ...

    def error_event(self, error: GatewayError) -> bytes:
        """The event that ends a broken stream, in the provider's shape."""


class Format(Protocol):
    name: str

    def read(self, body: bytes, max_text: int) -> Steps[ModelRequest]:
        """Read a request, keeping at most `max_text` bytes of what was said. Raises `GatewayError` with status 400."""

    def parse(self, body: bytes) -> ModelRequest:
        """`read`, all at once."""

    def observer(self, request: ModelRequest) -> Observer: ...

    @property
    def rounds(self) -> RoundsFormat:
        """How the format goes round with injected tools."""
