"""Content encodings (RFC 9110, section 8.4): bodies decoded, within a limit."""

from __future__ import annotations

import sys
import zlib

import zstandard

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_MAX_WINDOW = 2**23
"""Bytes of memory that a zstd frame may ask for (RFC 9659, section 3)."""
_ZSTD_STEP = 1024
"""Bytes given to zstd at a time. Each may hold 256 blocks of 128 KiB, so a bomb is noticed after 32 MiB."""
_MAX_MEMBERS = 64
"""gzip members or zstd frames one behind the other. Both formats allow it; thousands would only be there to cost."""


class UnsupportedEncoding(ValueError):
    pass


class DecodedTooLarge(ValueError):
    pass


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client that sent this header takes gzip."""
    return accepts(accept_encoding, "gzip")


def accepts(accept_encoding: str, encoding: str) -> bool:
    """Whether a client that sent this header named the encoding, and not to refuse it."""
    for one in accept_encoding.split(","):
        name, _, weight = one.partition(";")
        if name.strip().lower() == encoding:
            return weight.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


class Inflater:
    """Decodes a gzip or deflate body piece by piece, at most `limit` bytes of it. Raises `UnsupportedEncoding`."""

    __slots__ = ("_bits", "_inflate", "_left")

    def __init__(self, encoding: str, limit: int) -> None:
        bits = _WINDOW_BITS.get(encoding.strip().lower())
        if bits is None:
            raise UnsupportedEncoding(f"the content encoding {encoding!r} is not supported here")
        self._bits = bits
        self._inflate = zlib.decompressobj(bits)
        self._left = min(limit, sys.maxsize - 1)

    @property
    def complete(self) -> bool:
        """Whether the encoded data has come to its own end."""
        return self._inflate.eof

    def feed(self, data: bytes) -> bytes:
        """Raises `DecodedTooLarge`, and `ValueError` where the data is not so encoded."""
        decoded = b""
        for _ in range(_MAX_MEMBERS):
            if not data:
                return decoded
            if self._inflate.eof:
                if self._bits != _WINDOW_BITS["gzip"]:
                    break
                self._inflate = zlib.decompressobj(self._bits)
            try:
                piece = self._inflate.decompress(data, self._left + 1)
            except zlib.error as error:
                raise ValueError(f"the body is not encoded as it says: {error}") from None
            self._left -= len(piece)
            if self._left < 0:
                raise DecodedTooLarge("the decoded body is over the limit")
            decoded = decoded + piece if decoded else piece
            data = self._inflate.unused_data
        if data:
            raise ValueError("the body is not encoded as it says: it goes on behind its end")
        return decoded


def decode(data: bytes, encoding: str, limit: int) -> bytes:
    """A whole body, gzip, deflate or zstd. Raises `UnsupportedEncoding`, `DecodedTooLarge` or `ValueError`."""
    match encoding.strip().lower():
        case "identity":
            return data
        case "zstd":
            return _decode_zstd(data, limit)
    inflater = Inflater(encoding, limit)
    decoded = inflater.feed(data)
    if not inflater.complete:
        raise ValueError("the encoded body is cut off")
    return decoded


def _decode_zstd(data: bytes, limit: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    pieces: list[bytes] = []
    size = at = 0
    for _ in range(_MAX_MEMBERS):
        frame = decompressor.decompressobj()
        while not frame.eof:
            step = data[at : at + _ZSTD_STEP]
            if not step:
                raise ValueError("the encoded body is cut off")
            try:
                pieces.append(frame.decompress(step))
            except zstandard.ZstdError as error:
                raise ValueError(f"the body is not encoded as it says: {error}") from None
            size += len(pieces[-1])
            if size > limit:
                raise DecodedTooLarge("the decoded body is over the limit")
            at += len(step) - len(frame.unused_data)
        if at == len(data):
            return b"".join(pieces)
    raise ValueError("the body is not encoded as it says: it goes on behind its end")
