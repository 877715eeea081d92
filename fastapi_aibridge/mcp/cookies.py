"""The cookies of one session, by which a load balancer finds the process that holds it. They are never shared."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_COOKIES = 16
MAX_SIZE = 4096
"""Bytes of one cookie, name and value."""

_COOKIE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([\x21\x23-\x3a\x3c-\x5b\x5d-\x7e\"]*)\Z")


class Cookies:
    """The cookies of one session. All its requests go to one URL, so paths and domains need no check."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def read(self, set_cookies: Iterable[str]) -> None:
        """Store the `Set-Cookie` values of a response; malformed and excess ones are ignored."""
        for line in set_cookies:
            pair, _, attributes = line.partition(";")
            match = _COOKIE.match(pair.strip()) if len(pair) <= MAX_SIZE else None
            if match is None:
                continue
            name, value = match.groups()
            if re.search(r"(?i)(?:^|;)\s*max-age\s*=\s*(?:0|-\d+)\s*(?:;|$)", attributes[:MAX_SIZE]):
                self._values.pop(name, None)
            elif name in self._values or len(self._values) < MAX_COOKIES:
                self._values[name] = value

    @property
    def header(self) -> str:
        """The value of the `Cookie` header; empty without cookies."""
        return "; ".join(f"{name}={value}" for name, value in self._values.items())
