"""Headers that the gateway adds to a request: encoded once for each credential, and masked wherever they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from ..masking import hint
from ..principal import Principal
from ..upstream.message import HeaderValue
from ..upstream.secret import Secret
from .request_headers import plain_name


class OwnHeaders:
    """The gateway's own headers, which replace the caller's of the same name.

    Those in `lists` (names in lower case) do not: the caller's values and then the gateway's are joined in one header,
    each value once.
    """

    __slots__ = ("_headers", "_lists", "_replaced")

    def __init__(self, headers: Iterable[tuple[str, str]], lists: frozenset[str]) -> None:
        plain = [(name.encode("latin-1"), value) for name, value in headers]
        self._lists = {
            plain_name(name): [one for key, one in plain if plain_name(key) == plain_name(name)]
            for name, _ in plain
            if plain_name(name).decode("latin-1") in lists
        }
        self._headers: list[tuple[bytes, HeaderValue]] = [
            (name, Secret(value.encode(), hint(value))) for name, value in plain if plain_name(name) not in self._lists
        ]
        self._replaced = frozenset(plain_name(name) for name, _ in plain)

    def added_to(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, HeaderValue]]:
        """Return a request's headers with these added, as a new list."""
        kept: list[tuple[bytes, HeaderValue]] = [pair for pair in headers if plain_name(pair[0]) not in self._replaced]
        kept += self._headers
        for name, own in self._lists.items():
            theirs = [value.decode("latin-1") for key, value in headers if plain_name(key) == name]
            kept.append((name, _joined([*theirs, *own]).encode("latin-1")))
        return kept


def _joined(values: Iterable[str]) -> str:
    """Join the values of list headers to one, without repetitions."""
    items = (item.strip() for value in values for item in value.split(","))
    return ",".join(dict.fromkeys(item for item in items if item))


def actor_headers(principal: Principal) -> list[tuple[bytes, bytes]]:
    """Return headers that tell a provider who the caller is. Names and values come from the app's users."""
    headers = [(b"x-aibridge-actor-id", _safe_value(principal.initiator_id))]
    headers += [
        (b"x-aibridge-actor-metadata-" + _safe_name(str(key)), _safe_value(str(value)))
        for key, value in principal.metadata.items()
    ]
    return headers


def _safe_value(value: str) -> bytes:
    """Percent-encode everything but ASCII characters that are safe in a header."""
    return quote(value, safe=" !#$&'()*+,/:;=?@[]-._~", errors="replace").encode()


def _safe_name(name: str) -> bytes:
    """Replace each character that a header's name may not have by a hyphen."""
    return re.sub(r"[^a-z0-9_.-]", "-", name.lower()).encode()
