"""What a client key looks like: `aib_`, 43 characters of chance and 6 of a checksum, letters and digits only.

Secret scanners can know it: `aib_[0-9A-Za-z]{49}`, of which the last six are the CRC-32 of what stands before them,
prefix included, in base 62. So a text that only looks like a key is told apart without asking anybody.
"""

from __future__ import annotations

import secrets
from zlib import crc32

PREFIX = b"aib_"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHANCE = 43
"""256 bits in base 62."""
_CHECKSUM = 6
_LENGTH = len(PREFIX) + _CHANCE + _CHECKSUM


def new_key() -> str:
    """A key of 256 random bits."""
    begin = PREFIX.decode() + _base62(secrets.randbits(256), _CHANCE)
    return begin + _checksum(begin.encode())


def is_key(token: bytes) -> bool:
    """Whether the text could be a key that was made here."""
    if len(token) != _LENGTH or not token.startswith(PREFIX):
        return False
    return token[-_CHECKSUM:] == _checksum(token[:-_CHECKSUM]).encode()


def _checksum(begin: bytes) -> str:
    return _base62(crc32(begin), _CHECKSUM)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
