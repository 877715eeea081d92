"""The routes of a provider's API: paths that can be called, their methods, and the effects of a call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ..errors import GatewayError
from ..formats.format import Format
from .path import raw_tail

ANY_METHOD = ("GET", "POST", "PUT", "PATCH", "DELETE")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing at the provider (RFC 9110, section 9.2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path that is relayed without being parsed, and the facts about it that the gateway needs."""

    path: str
    """The path; `*` stands for one segment, at the end for one or more."""
    methods: tuple[str, ...] = ANY_METHOD
    """Allowed methods; `GET` includes `HEAD`."""
    reads_by_post: bool = False
    """Whether a `POST` changes nothing at the provider, as in counting tokens; it is not recorded then."""
    organisation_methods: tuple[str, ...] = ()
    """Methods that affect everybody who shares the credential; refused unless the settings allow it."""
    kind: str = ""
    """Kind of the object that the first `*` names, for example `response`; it may have one owner."""
    creates: str = ""
    """Kind of the object that a `POST` makes, for example `conversation`; the id in the response gets an owner."""
    names_objects: bool = False
    """Whether a `POST` body may name responses, conversations or their items."""
    models: Literal["", "list", "path", "body", "anywhere"] = ""
    """Where models are named: `list` in the response, `path` at the path's end, `body` in a body of a known format,
    `anywhere` in path and body, for routes that the settings add.
    """

    def matches(self, segments: list[str]) -> bool:
        """Whether the route matches a path, given as segments without the leading empty one."""
        pattern = self.path[1:].split("/")
        if len(segments) < len(pattern) or (len(segments) > len(pattern) and pattern[-1] != "*"):
            return False
        return all(one in ("*", segment) for one, segment in zip(pattern, segments, strict=False))

    def allows(self, method: str) -> bool:
        return method in self.methods or (method == "HEAD" and "GET" in self.methods)

    def changes(self, method: str) -> bool:
        """Whether a call may change something at the provider, and is recorded for that."""
        return method not in SAFE_METHODS and not (method == "POST" and self.reads_by_post)

    def object_id(self, path: str) -> str:
        """Return the object id in a path, as servers read it that know path parameters (`id;x`) or trim; empty where
        this route has none.
        """
        if not self.kind:
            return ""
        place = self.path[1:].split("/").index("*")
        return path[1:].split("/")[place].partition(";")[0].strip()


@dataclass(frozen=True, slots=True)
class Target:
    """The target of one request: its path, and how it is handled."""

    path: str
    """Path below the provider's name, decoded."""
    raw_path: str
    """The same path as the client wrote it, which goes upstream."""
    format: Format | None
    """Wire format; None for a request that is relayed without being parsed."""
    route: Route | None
    """Route; None for a request that is intercepted."""


def _ends_in(written: bytes, path: str) -> bool:
    """Whether nothing of the path is encoded, as is common."""
    return b"%" not in written and written.endswith(path.encode())


class Routes:
    """All paths of one provider that can be called. The first match counts."""

    def __init__(
        self,
        provider: str,
        intercepted: Mapping[str, Format],
        relayed: Iterable[Route],
        *,
        slashes_below: tuple[str, ...] = (),
    ) -> None:
        """Index the routes.

        Below the paths in `slashes_below`, which end in a slash, names may have encoded slashes.
        """
        self._provider = provider
        self._relayed = tuple(relayed)
        self._slashes_below = slashes_below
        # Targets of the common case, made once.
        self._intercepted = {path: Target(path, path, format_, None) for path, format_ in intercepted.items()}

    def find(self, method: str, tail: str, written: bytes | None) -> Target:
        """Return the target of a request. Raises `GatewayError`, 404.

        `tail` is the decoded end of its path, `written` the path as the client wrote it.
        """
        path = f"/{tail}"
        known = self._intercepted.get(path)
        if known is not None and method == "POST" and written and _ends_in(written, path):
            return known
        raw = raw_tail(tail, written, slashes_below=self._slashes_below)
        if raw is None:
            raise self._not_found("that path")
        if known is not None and method == "POST":
            return Target(path, f"/{raw}", known.format, None)
        segments = tail.split("/")
        route = next((one for one in self._relayed if one.matches(segments)), None)
        if route is None or not route.allows(method):
            raise self._not_found(f"{method} {path[:64]}", self._hint(method, path, route))
        return Target(path, f"/{raw}", None, route)

    def _hint(self, method: str, path: str, route: Route | None) -> str:
        """Return a hint at the path that the caller may have meant; empty where there is none."""
        methods = set(route.methods) if route else set()
        if path in self._intercepted:
            methods.add("POST")
        if methods:
            return f"; it relays {', '.join(sorted(methods))} there"
        if self._is_listed(method, f"/v1{path}"):
            return f"; did you mean /v1{path[:64]}? Then the client's base URL has to end in /{self._provider}/v1"
        if path.startswith("/v1/") and self._is_listed(method, path[3:]):
            return f"; did you mean {path[3:67]}? Then the client's base URL has to end in /{self._provider}"
        return ""

    def _is_listed(self, method: str, path: str) -> bool:
        segments = path[1:].split("/")
        return (method == "POST" and path in self._intercepted) or any(
            one.matches(segments) and one.allows(method) for one in self._relayed
        )

    def _not_found(self, what: str, hint: str = "") -> GatewayError:
        message = f"the gateway does not relay {what} to provider {self._provider!r}{hint}"
        return GatewayError(404, "not_found", message)
