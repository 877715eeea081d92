"""HTTP/1.1 messages without I/O (RFC 9112): writes the head of a request, and checks the beginning of a response."""

from __future__ import annotations

import re
from collections.abc import Sequence
from mmap import mmap

from ..errors import GatewayError
from .secret import Secret

HEAD_LIMIT = 256 * 1024
"""Bytes of a response's head, interim responses included."""
LINE_LIMIT = 8 * 1024
"""Bytes of a status line."""
MAX_HEADERS = 4096
"""Headers of one head; each costs more to relay than its bytes suggest."""

HeaderValue = bytes | Secret
RequestBody = bytes | mmap
RequestHeaders = Sequence[tuple[bytes, HeaderValue]]
RawHeaders = Sequence[tuple[bytes, bytes]]
"""Headers as they are on the wire and in ASGI."""

STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_CONTROLS = bytes(byte for byte in range(32) if byte != 9) + b"\x7f"
_BEGINNINGS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_WITHOUT_LENGTH = {"GET", "HEAD", "OPTIONS", "DELETE", "TRACE"}
"""Methods of requests that state no length where they have no body (RFC 9110, section 8.6)."""


def request_head(method: str, target: bytes, authority: bytes, headers: RequestHeaders, length: int) -> bytes:
    """Return the head of a request, framing included: `headers` must have neither `host` nor `content-length`.

    Raises `GatewayError`, 400, for a control character: it might end the header and begin another. No frame in the
    error's traceback has a credential.
    """
    lines = [b"%b %b HTTP/1.1" % (method.encode(), target), b"Host: " + authority]
    if length or method not in _WITHOUT_LENGTH:
        lines.append(b"Content-Length: %d" % length)
    lines += [b"%b: %b" % pair for pair in headers]  # type: ignore[str-format] # a Secret, too: by its `__bytes__`
    head = b"\r\n".join(lines)
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls != 2 * (len(lines) - 1):
        del lines, head
        raise GatewayError(400, "invalid_header", "a header of the request has a control character")
    return head + b"\r\n\r\n"


def may_become_head(start: bytes | bytearray) -> bool:
    """Whether bytes that begin like this can be an HTTP response."""
    if start.find(b"\n", 0, LINE_LIMIT) >= 0:
        return STATUS_LINE.match(start, 0, LINE_LIMIT) is not None
    return len(start) < LINE_LIMIT and any(one.startswith(start[: len(one)]) for one in _BEGINNINGS)
