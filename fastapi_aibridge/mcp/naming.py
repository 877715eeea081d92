"""The names of tools for models: `bmcp_<server>_<tool>`, in the characters and length that every API accepts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from ..formats.rounds import PREFIX

MAX_LENGTH = 64
_DIGITS = 12
_ODD = re.compile(r"[^a-zA-Z0-9_-]")
_MARKED = re.compile(rf"_[0-9a-f]{{{_DIGITS}}}\Z")


class Names:
    """The names of the tools of a set of servers. A name depends on the names of the servers, not on their tools.

    A name that is too long is cut, other characters are replaced, and such a name ends in a hash of its server and
    tool. So does a name that could be read in two ways (servers `a` and `a_b`, tools `b_c` and `c`), and one that
    already looks as if it ended in a hash: no two tools ever have the same name.
    """

    __slots__ = ("_ambiguous",)

    def __init__(self, servers: Iterable[str]) -> None:
        names = set(servers)
        self._ambiguous = {name for name in names if any(name.startswith(f"{other}_") for other in names)}

    def name(self, server: str, tool: str) -> str:
        """Return the injected name of one server's tool."""
        plain = f"{PREFIX}{server}_{tool}"
        safe = _ODD.sub("_", plain)
        if safe == plain and len(plain) <= MAX_LENGTH and server not in self._ambiguous and not _MARKED.search(plain):
            return plain
        # The length of the server's name distinguishes ("ab", "c") from ("a", "bc").
        pair = f"{len(server)}:{server}{tool}".encode(errors="surrogatepass")
        digest = hashlib.sha256(pair).hexdigest()[:_DIGITS]
        return f"{safe[: MAX_LENGTH - _DIGITS - 1]}_{digest}"
