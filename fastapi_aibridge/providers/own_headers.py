"""What the gateway adds to a request, as it goes on the wire: made once for each credential, and not shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from ..masking import hint
from ..principal import Principal
from ..upstream.message import HeaderValue
from ..upstream.secret import Secret


class OwnHeaders:
    """Headers of the gateway's, which replace the caller's of the same name.

    Of those in `lists`, names in lower case, both stay, the caller's first, each value once, in one header.
    """

    __slots__ = ("_headers", "_lists", "_replaced")

    def __init__(self, headers: Iterable[tuple[str, str]], lists: frozenset[str]) -> None:
        plain = [(name.encode("latin-1"), value) for name, value in headers]
        self._lists = {
            _plain(name): [one for key, one in plain if _plain(key) == _plain(name)]
            for name, _ in plain
            if _plain(name).decode("latin-1") in lists
        }
        self._headers: list[tuple[bytes, HeaderValue]] = [
            (name, Secret(value.encode(), hint(value))) for name, value in plain if _plain(name) not in self._lists
        ]
        self._replaced = frozenset(_plain(name) for name, _ in plain)

    def added_to(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, HeaderValue]]:
        """A request's headers with these; the list is a new one."""
        kept: list[tuple[bytes, HeaderValue]] = [pair for pair in headers if _plain(pair[0]) not in self._replaced]
        kept += self._headers
        for name, own in self._lists.items():
            theirs = [value.decode("latin-1") for key, value in headers if _plain(key) == name]
            kept.append((name, _joined([*theirs, *own]).encode("latin-1")))
        return kept


def _plain(name: bytes) -> bytes:
    """By which names are the same: some servers take `x_a` for `x-a`."""
    return name.lower().replace(b"_", b"-")


def _joined(values: Iterable[str]) -> str:
    """Lists as they stand in headers, made one without repetitions."""
    items = (item.strip() for value in values for item in value.split(","))
    return ",".join(dict.fromkeys(item for item in items if item))


def actor_headers(principal: Principal) -> list[tuple[bytes, bytes]]:
    """Who calls, for providers that are to know. Names and values come from the app's users."""
    headers = [(b"x-aibridge-actor-id", _safe_value(principal.initiator_id))]
    headers += [
        (b"x-aibridge-actor-metadata-" + _safe_name(str(key)), _safe_value(str(value)))
        for key, value in principal.metadata.items()
    ]
    return headers


def _safe_value(value: str) -> bytes:
    """No line break, nothing beyond ASCII; percent-encoded where it was."""
    return quote(value, safe=" !#$&'()*+,/:;=?@[]-._~", errors="replace").encode()


def _safe_name(name: str) -> bytes:
    """What is no letter, digit or mark that a name may have becomes a hyphen."""
    return re.sub(r"[^a-z0-9_.-]", "-", name.lower()).encode()
