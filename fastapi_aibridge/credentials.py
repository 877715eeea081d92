"""Reads callers' credentials from request headers, and checks client keys and tokens."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping

from pydantic import SecretStr

from .principal import Principal

TOKEN = b"x-aibridge-token"
"""The header with the caller's token when `Authorization` or `X-Api-Key` holds the caller's own provider key."""


def caller_token(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return the token that the caller authenticates with, None if there is none. Header names are in lower case."""
    if (token := headers.get(TOKEN)) is not None:
        return token.strip() or None
    return _key(headers)


def byok_key(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the caller's own provider key. Only a request with `X-AIBridge-Token` can bring one."""
    if TOKEN not in headers:
        return None
    key = _key(headers)
    return key.decode("latin-1") if key else None


def _key(headers: Mapping[bytes, bytes]) -> bytes | None:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return headers.get(b"x-api-key", b"").strip() or None


class ClientKeys:
    """The client keys of the settings, stored as digests only, and the principals that they authenticate."""

    def __init__(
        self,
        keys: Mapping[str, Iterable[SecretStr]],
        others: Callable[[bytes], Principal | None] = lambda _digest: None,
    ) -> None:
        """`keys` maps each initiator to its valid keys, in plain or as `sha256:<hex>`. `others` finds the principal of
        a digest that is not among them.
        """
        self._others = others
        self._principals = {
            digest_of(key.get_secret_value()): Principal(initiator) for initiator, all_ in keys.items() for key in all_
        }

    def principal(self, token: bytes | None) -> Principal | None:
        """Return the principal of a key, None if unknown. The look-up by digest reveals nothing through its timing."""
        if not token:
            return None
        digest = hashlib.sha256(token).digest()
        return self._principals.get(digest) or self._others(digest)


def same_token(given: bytes | None, secret: SecretStr) -> bool:
    """Compare in constant time. A missing or empty token never matches."""
    if not given:
        return False
    return hmac.compare_digest(given, secret.get_secret_value().encode())


def digest_of(key: str) -> bytes:
    """Return the stored form of a client key, its SHA-256 digest. The key is in plain or `sha256:<hex>`."""
    if key.startswith("sha256:"):
        return bytes.fromhex(key.removeprefix("sha256:"))
    return hashlib.sha256(key.encode()).digest()
