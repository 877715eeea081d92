"""The format of client keys: `aib_`, 43 random characters and a checksum of 6, all letters and digits.

Secret scanners can detect it: `aib_[0-9A-Za-z]{49}`, where the last six characters are the CRC-32 of all before them,
prefix included, in base 62. So texts that only look like a key are rejected without a look-up.
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
    """Return a new key with 256 random bits."""
    begin = PREFIX.decode() + _base62(secrets.randbits(256), _CHANCE)
    return begin + _checksum(begin.encode())


def is_key(token: bytes) -> bool:
    """Whether the text has the format of a key and a valid checksum."""
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
