"""Where callers put their credentials, and the built-in check of them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping

from pydantic import SecretStr

from .principal import Principal

TOKEN = b"x-aibridge-token"
"""Carries the caller's token where `Authorization` or `X-Api-Key` carry their own provider key."""


def caller_token(headers: Mapping[bytes, bytes]) -> bytes | None:
    """What the caller authenticates with; `headers` has lower-case names."""
    if (token := headers.get(TOKEN)) is not None:
        return token.strip() or None
    return _key(headers)


def byok_key(headers: Mapping[bytes, bytes]) -> str | None:
    """The provider key that the caller brought; only a request with `X-AIBridge-Token` can bring one."""
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
    """The built-in principals: which initiator sends which key. Keys are kept as digests only."""

    def __init__(
        self,
        keys: Mapping[str, Iterable[SecretStr]],
        others: Callable[[bytes], Principal | None] = lambda _digest: None,
    ) -> None:
        """`keys` is initiator: all their valid keys, in plain or as `sha256:<hex>`. `others` knows further ones."""
        self._others = others
        self._principals = {
            digest_of(key.get_secret_value()): Principal(initiator) for initiator, all_ in keys.items() for key in all_
        }

    def principal(self, token: bytes | None) -> Principal | None:
        """Whose key this is. Looked up by digest: how long that takes says nothing of the keys."""
        if not token:
            return None
        digest = hashlib.sha256(token).digest()
        return self._principals.get(digest) or self._others(digest)


def same_token(given: bytes | None, secret: SecretStr) -> bool:
    """Compares in constant time. An empty token is never the same."""
    if not given:
        return False
    return hmac.compare_digest(given, secret.get_secret_value().encode())


def digest_of(key: str) -> bytes:
    """What is kept of a client key, given in plain or as `sha256:<hex>`."""
    if key.startswith("sha256:"):
        return bytes.fromhex(key.removeprefix("sha256:"))
    return hashlib.sha256(key.encode()).digest()
