"""Reads exchanges: a client's request, the upstream's response, and what client and record must get. The format of the
files is in `docs/corpus.md`.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DIRECTORY = Path(__file__).parent
SUFFIX = ".exchange"

Headers = tuple[tuple[str, str], ...]
Format = Literal["chat_completions", "messages", "responses"]

_PATHS: dict[str, Format] = {
    "/v1/chat/completions": "chat_completions",
    "/v1/messages": "messages",
    "/v1/responses": "responses",
}
_OPTIONS = {
    "request": set[str](),
    "upstream request": {"json"},
    "upstream": {"break", "crlf", "gzip", "repeat"},
    "client": {"crlf", "decoded", "error body", "error event", "repeat"},
    "record": set[str](),
}
_MARKER = re.compile(rb"^=== ([^\n:]*)(?:: ([^\n]*))?\n", re.MULTILINE)
_REPEAT = re.compile(rb"<<([^<>\n]*) \* ([0-9]+)>>")


class ExchangeError(ValueError):
    """Raised for a file that breaks the format; the text names the file and the fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    """The path below the gateway's prefix, beginning with the provider's name."""
    headers: Headers
    body: bytes

    @property
    def provider(self) -> str:
        return self.path.split("/")[1]

    @property
    def upstream_path(self) -> str:
        """The path and query that the upstream must receive."""
        return self.path.removeprefix(f"/{self.provider}")

    @property
    def route(self) -> str:
        return self.upstream_path.partition("?")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The upstream's response. With `breaks`, the connection is cut after this body, before its announced end."""

    status: int
    reason: str
    headers: Headers
    body: bytes
    breaks: bool = False

    @property
    def chunked(self) -> bool:
        """Whether the body is sent in chunks: streams announce no length."""
        return any(name.lower() == "content-type" and "event-stream" in value for name, value in self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The response that the client must get.

    With `error`, the whole body, or one event after `body`, is an error of the gateway in the provider's shape. With
    `decoded`, `body` is compared with the decoded body, in whatever encoding it arrives.
    """

    status: int
    headers: Headers
    body: bytes
    error: Literal["body", "event"] | None = None
    decoded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    name: str
    """The folder and file name, without the suffix."""
    summary: str
    pages: tuple[str, ...]
    """The vendors' pages that the exchange is based on."""
    request: Request
    upstream_request: bytes
    """The body that the upstream must receive."""
    as_json: bool
    """Whether the upstream's body is compared with `upstream_request` as JSON instead of byte for byte."""
    upstream: Answer | None
    """The upstream's response; with None, it hangs up without one."""
    client: Wanted
    record: dict[str, Any]
    """The members that the record must have."""

    @property
    def format(self) -> Format:
        return _PATHS[self.request.route]

    @property
    def streamed(self) -> bool:
        """Whether the response is a stream of events; the request may have asked for one and got an error."""
        return self.upstream is not None and self.upstream.chunked


def load(directory: Path = DIRECTORY) -> list[Exchange]:
    """Return all exchanges below a directory, sorted by name."""
    return [
        parse(path.read_bytes(), path.relative_to(directory).with_suffix("").as_posix())
        for path in sorted(directory.glob(f"*/*{SUFFIX}"))
    ]


def parse(content: bytes, name: str) -> Exchange:
    """Return the exchange in a file. Raises `ExchangeError`."""
    try:
        return _parse(content, name)
    except ExchangeError as error:
        raise ExchangeError(f"{name}: {error}") from None
    except (ValueError, IndexError) as error:
        raise ExchangeError(f"{name}: {type(error).__name__}: {error}") from error


def _parse(content: bytes, name: str) -> Exchange:
    if b"\r" in content:
        raise ExchangeError("has a carriage return: write lines that end in LF, and the option crlf")
    head, sections = _sections(content)
    summary, _, rest = head.decode().partition("\n")
    request = _request(sections["request"][0])
    if request.route not in _PATHS:
        raise ExchangeError(f"{request.path} is no path of an intercepted request")
    upstream = _answer(*sections["upstream"])
    if "client" in sections:
        client = _wanted(*sections["client"])
    elif upstream is None or upstream.breaks:
        raise ExchangeError("the upstream breaks off: say in a client section what the client gets")
    else:
        client = Wanted(status=upstream.status, headers=(), body=upstream.body)
    upstream_request, options = sections.get("upstream request", (request.body, set()))
    return Exchange(
        name=name,
        summary=summary,
        pages=tuple(re.findall(r"^Page: (\S+)$", rest, re.MULTILINE)),
        request=request,
        upstream_request=upstream_request,
        as_json="json" in options,
        upstream=upstream,
        client=client,
        record=json.loads(sections["record"][0]),
    )


def _sections(content: bytes) -> tuple[bytes, dict[str, tuple[bytes, set[str]]]]:
    markers = list(_MARKER.finditer(content))
    ends = [marker.start() - 1 for marker in markers[1:]] + [len(content)]
    found: dict[str, tuple[bytes, set[str]]] = {}
    for marker, end in zip(markers, ends, strict=True):
        section = marker[1].decode()
        options = {option.strip() for option in (marker[2] or b"").decode().split(",")} - {""}
        if section not in _OPTIONS:
            raise ExchangeError(f"there is no section {section!r}")
        if section in found:
            raise ExchangeError(f"has two sections {section!r}")
        if unknown := options - _OPTIONS[section]:
            raise ExchangeError(f"section {section!r} has no option {', '.join(sorted(unknown))}")
        found[section] = content[marker.end() : max(end, marker.end())], options
    if missing := {"request", "upstream", "record"} - set(found):
        raise ExchangeError(f"lacks the sections {', '.join(sorted(missing))}")
    return content[: markers[0].start()], found


def _message(content: bytes, options: set[str]) -> tuple[str, Headers, bytes]:
    head, _, body = content.partition(b"\n\n")
    start, *lines = head.decode().split("\n")
    headers = []
    for line in lines:
        name, colon, value = line.partition(": ")
        if not colon:
            raise ExchangeError(f"{line!r} is no header")
        headers.append((name, value))
    if "repeat" in options:
        body = _REPEAT.sub(lambda found: found[1] * int(found[2]), body)
    if "crlf" in options:
        body = body.replace(b"\n", b"\r\n")
    if "gzip" in options:
        body = gzip.compress(body, mtime=0)
    return start, tuple(headers), body


def _request(content: bytes) -> Request:
    start, headers, body = _message(content, set())
    method, path = start.split(" ")
    return Request(method=method, path=path, headers=headers, body=body)


def _answer(content: bytes, options: set[str]) -> Answer | None:
    if not content:
        if "break" not in options:
            raise ExchangeError("the upstream says nothing: add the option break")
        return None
    start, headers, body = _message(content, options)
    status, _, reason = start.partition(" ")
    return Answer(status=int(status), reason=reason, headers=headers, body=body, breaks="break" in options)


def _wanted(content: bytes, options: set[str]) -> Wanted:
    start, headers, body = _message(content, options)
    error: Literal["body", "event"] | None = None
    if "error body" in options:
        error = "body"
    elif "error event" in options:
        error = "event"
    status = int(start.partition(" ")[0])
    return Wanted(status=status, headers=headers, body=body, error=error, decoded="decoded" in options)
