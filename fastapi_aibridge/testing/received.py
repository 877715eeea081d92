"""A request as it reached the scripted provider."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import orjson
import zstandard


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """One request. Header names are in lower case; the values of a repeated header are joined with commas."""

    method: str
    path: str
    """The path as sent, still percent-encoded."""
    query: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    """The body as sent, still compressed if it was."""
    hung_up: Event = field(default_factory=Event, repr=False)
    """Set when the client disconnects before it has the whole response.

    A thread can wait for it; a coroutine with `await anyio.to_thread.run_sync(received.hung_up.wait, 5)`.
    """

    def json(self) -> Any:
        """Return the body, decompressed (gzip, zstd) and parsed. Raises `ValueError` if it is not JSON."""
        return orjson.loads(self._plain())

    def _plain(self) -> bytes:
        match self.headers.get("content-encoding", "identity"):
            case "gzip":
                try:
                    return zlib.decompress(self.body, wbits=31)
                except zlib.error as error:
                    raise ValueError(f"the body is not gzip: {error}") from error
            case "zstd":
                try:
                    return zstandard.ZstdDecompressor().decompressobj().decompress(self.body)
                except zstandard.ZstdError as error:
                    raise ValueError(f"the body is not zstd: {error}") from error
            case _:
                return self.body
