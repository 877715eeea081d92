"""Decodes content encodings (RFC 9110, section 8.4) of bodies, within a limit."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator

import zstandard

from ..formats.large_text import BodyText, Steps, TextBuilder
from ..formats.scanner import finish

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_MAX_WINDOW = 2**23
"""Bytes of memory that a zstd frame may require (RFC 9659, section 3)."""
_PIECE = 64 * 1024
"""Bytes of output that zlib may produce at a time."""
_ZLIB_STEP = 16 * 1024
"""Bytes given to zlib at a time, few because each call copies the input that is left over."""
_ZSTD_STEP = 64
"""Bytes given to zstd at a time. They may hold 16 blocks of 128 KiB, so one step may produce 2 MiB."""
_MAX_MEMBERS = 64
"""Consecutive gzip members or zstd frames. Both formats allow any number; thousands would be an attack."""


class UnsupportedEncoding(ValueError):
    pass


class DecodedTooLarge(ValueError):
    pass


def accepts(accept_encoding: str, encoding: str) -> bool:
    """Whether a client that sent this header named the encoding without refusing it."""
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
        """Whether the encoded data has reached its end."""
        return self._inflate.eof

    def feed(self, data: bytes) -> bytes:
        """Decode all of the data. Raises `DecodedTooLarge`, and `ValueError` for data in another encoding."""
        pieces = list(self.pieces(data, self._left + 1))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pieces(self, data: bytes, most: int = _PIECE) -> Iterator[bytes]:
        """Decode as `feed` does, in pieces of at most `most` bytes: compressed zeros grow a thousandfold."""
        members = 0
        full = False  # if so, zlib may hold more decoded bytes
        while data or full:
            if self._inflate.eof:
                members += 1
                if self._bits != _WINDOW_BITS["gzip"] or members >= _MAX_MEMBERS:
                    raise ValueError("the body is not encoded as it says: it goes on behind its end")
                self._inflate = zlib.decompressobj(self._bits)
            try:
                piece = self._inflate.decompress(data, min(most, self._left + 1))
            except zlib.error as error:
                raise ValueError(f"the body is not encoded as it says: {error}") from None
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            self._left -= len(piece)
            if self._left < 0:
                raise DecodedTooLarge("the decoded body is over the limit")
            full = len(piece) >= most and not self._inflate.eof
            if piece:
                yield piece


def decode(data: bytes, encoding: str, limit: int) -> bytes:
    """Decode a whole body at once. Raises as `decoding` does."""
    return finish(decoding(data, encoding, limit))[:]


def decoding(
    data: BodyText, encoding: str, limit: int, taken: Callable[[int], None] = lambda _: None
) -> Steps[BodyText]:
    """Decode a whole body in gzip, deflate or zstd, in steps of some hundred KiB.

    `taken` is called with the size of each decoded piece. Raises `UnsupportedEncoding`, `DecodedTooLarge` or
    `ValueError`.
    """
    name = encoding.strip().lower()
    if name == "identity":
        return data
    if name != "zstd" and name not in _WINDOW_BITS:
        raise UnsupportedEncoding(f"the content encoding {encoding!r} is not supported here")
    builder = TextBuilder()
    for piece in _zstd_pieces(data) if name == "zstd" else _zlib_pieces(data, name):
        if builder.size + len(piece) > limit:
            raise DecodedTooLarge("the decoded body is over the limit")
        taken(len(piece))
        builder.add(piece)
        yield
    return builder.text()


def _zlib_pieces(data: BodyText, encoding: str) -> Iterator[bytes]:
    inflater = Inflater(encoding, sys.maxsize)
    for at in range(0, len(data), _ZLIB_STEP):
        yield from inflater.pieces(data[at : at + _ZLIB_STEP])
        yield b""  # encoded data may decode to nothing
    if not inflater.complete:
        raise ValueError("the encoded body is cut off")


def _zstd_pieces(data: BodyText) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    at = 0
    for _ in range(_MAX_MEMBERS):
        frame = decompressor.decompressobj()
        while not frame.eof:
            step = data[at : at + _ZSTD_STEP]
            if not step:
                raise ValueError("the encoded body is cut off")
            try:
                yield frame.decompress(step)
            except zstandard.ZstdError as error:
                raise ValueError(f"the body is not encoded as it says: {error}") from None
            at += len(step) - len(frame.unused_data)
        if at == len(data):
            return
    raise ValueError("the body is not encoded as it says: it goes on behind its end")
