"""Content encodings (RFC 9110, section 8.4): bodies decoded, within a limit."""

from __future__ import annotations

import io
import zlib

import zstandard

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_MAX_WINDOW = 2**27
"""Bytes of memory that a zstd frame may ask for; what zstd itself allows by default."""


class UnsupportedEncoding(ValueError):
    pass


class DecodedTooLarge(ValueError):
    pass


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client that sent this header takes gzip."""
    for one in accept_encoding.split(","):
        name, _, weight = one.partition(";")
        if name.strip().lower() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


class Inflater:
    """Decodes a gzip or deflate body piece by piece, at most `limit` bytes of it. Raises `UnsupportedEncoding`."""

    __slots__ = ("_inflate", "_left")

    def __init__(self, encoding: str, limit: int) -> None:
        bits = _WINDOW_BITS.get(encoding.strip().lower())
        if bits is None:
            raise UnsupportedEncoding(f"the content encoding {encoding!r} is not supported here")
        self._inflate = zlib.decompressobj(bits)
        self._left = limit

    @property
    def complete(self) -> bool:
        """Whether the encoded data has come to its own end."""
        return self._inflate.eof

    def feed(self, data: bytes) -> bytes:
        """Raises `DecodedTooLarge`, and `ValueError` where the data is not so encoded."""
        try:
            decoded = self._inflate.decompress(data, self._left + 1)
        except zlib.error as error:
            raise ValueError(f"the body is not encoded as it says: {error}") from None
        self._left -= len(decoded)
        if self._left < 0:
            raise DecodedTooLarge("the decoded body is over the limit")
        return decoded


def decode(data: bytes, encoding: str, limit: int) -> bytes:
    """A whole body, gzip, deflate or zstd. Raises `UnsupportedEncoding`, `DecodedTooLarge` or `ValueError`."""
    if encoding.strip().lower() == "zstd":
        return _decode_zstd(data, limit)
    inflater = Inflater(encoding, limit)
    decoded = inflater.feed(data)
    if not inflater.complete:
        raise ValueError("the encoded body is cut off")
    return decoded


def _decode_zstd(data: bytes, limit: int) -> bytes:
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(
            io.BytesIO(data), read_across_frames=True
        )
        decoded = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise ValueError(f"the body is not encoded as it says: {error}") from None
    if len(decoded) > limit:
        raise DecodedTooLarge("the decoded body is over the limit")
    return decoded
