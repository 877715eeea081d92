"""The removal from requests of what the app's own dependencies read, above all the caller's credentials."""

from __future__ import annotations

from urllib.parse import unquote_plus

from starlette.types import Scope

from ..credentials import TOKEN
from ..fastapi_inside import Declared
from ..fastapi_inside.principal_dependency import OF_PROTOCOLS

PROVIDER_KEYS = frozenset({b"authorization", b"x-api-key"})
"""Headers for a caller's own provider key, or else for the caller's credential here."""


class Screen:
    """Removes from a request the headers and query parameters that dependencies declare.

    A caller's own provider key passes only if `by_token` says that `X-AIBridge-Token` identified the caller, and only
    in a header that no dependency reads. `declared` is None if FastAPI does not reveal it: then only headers pass that
    are known to be harmless.
    """

    def __init__(self, declared: Declared | None, *, by_token: bool) -> None:
        self._query = frozenset[str]() if declared is None else declared.query
        self._is_closed = declared is None
        names = frozenset[bytes]() if declared is None else declared.headers - OF_PROTOCOLS
        self._names = names - {TOKEN} if by_token else names | PROVIDER_KEYS | {TOKEN}

    def __call__(self, scope: Scope) -> Scope:
        query: bytes = scope["query_string"]
        if self._is_closed:
            headers = [pair for pair in scope["headers"] if pair[0] in OF_PROTOCOLS]
            return {**scope, "headers": headers, "query_string": b""}
        headers = [pair for pair in scope["headers"] if pair[0] not in self._names]
        if self._query and query:
            query = b"&".join(piece for piece in query.split(b"&") if _name(piece) not in self._query)
        return {**scope, "headers": headers, "query_string": query}


def _name(piece: bytes) -> str:
    return unquote_plus(piece.partition(b"=")[0].decode("latin-1"))
