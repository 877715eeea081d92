"""The reference for the gateway's HTTP parser: h11, which must read responses in the same way.

Run as a module to compare both on random responses: `python -m tests.upstream.reference --minutes 10`.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import h11

from fastapi_aibridge.upstream.connection import Connection
from fastapi_aibridge.upstream.message import HEAD_LIMIT
from fastapi_aibridge.upstream.origin import TimeLimits


class Answer(NamedTuple):
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class _Clock:
    """An event loop whose time stands still, for a connection that never waits."""

    def time(self) -> float:
        return 0.0


class _Transport:
    def __init__(self) -> None:
        self.aborted = False

    def write(self, data: bytes) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


def ours(method: str, pieces: Iterable[bytes]) -> tuple[Answer | None, bool]:
    """Return the gateway's reading, None for an error, and whether the connection can be used again."""
    transport = _Transport()
    connection = Connection(cast("Any", _Clock()))
    connection.connection_made(cast("Any", transport))
    response = connection.send(method, b"/", b"h", [], b"", TimeLimits())
    body = b""
    for piece in pieces:
        if transport.aborted:  # an aborted connection is not read any more
            break
        connection.data_received(piece)
        body += response.leftovers()
    reusable = connection.is_open and response.complete
    if not transport.aborted:
        connection.connection_lost(None)
    body += response.leftovers()
    if not response.complete:
        return None, False
    return Answer(response.status, tuple(response.raw_headers), body), reusable


def h11s(method: str, data: bytes) -> tuple[Answer | None, bool]:
    """Return h11's reading in the same form; it does not depend on where the bytes are cut."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "h"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    status, body, ended, is_old = 0, b"", False, False
    headers: tuple[tuple[bytes, bytes], ...] = ()
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if ended:
                    return None, False
                ended = True
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                is_old = event.http_version == b"1.0"  # h11 never keeps such a connection
                status, headers = event.status_code, tuple((bytes(name), bytes(value)) for name, value in event.headers)
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                reusable = is_old or (connection.our_state is h11.DONE and connection.their_state is h11.DONE)
                return Answer(status, headers, body), reusable and not connection.trailing_data[0] and not ended
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return None, False
    except h11.RemoteProtocolError:
        return None, False


_STRICTER = [
    re.compile(rb"(?<!\r)\n"),  # line feeds without a CR
    re.compile(rb"\r\n[ \t]"),  # folded headers
    re.compile(rb"(?is)transfer-encoding.*content-length|content-length.*transfer-encoding"),
    re.compile(rb"(?is)content-length.*content-length"),
    re.compile(rb"(?i)content-length:[ \t]*\d+[ \t]*,"),
    re.compile(rb"(?i)transfer-encoding:(?![ \t]*chunked[ \t]*\r\n)"),
    re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"),
    re.compile(rb"HTTP/1\.[01] (?:101|[06-9]\d\d)"),
    re.compile(rb"HTTP/(?!1\.[01])"),
    re.compile(rb"(?i)content-length:[ \t]*0*\d{15,}"),  # numbers that are too large
    re.compile(rb"\r(?!\n)"),
    re.compile(rb"(?i)[0-9a-f][ \t]*;(?!a(?:=b|=\"b\")?\r\n)"),  # chunk extensions without a name
]
"""Responses that h11 reads and the gateway refuses on purpose: other readers might see two responses in them."""

_H11_IS_STRICTER = re.compile(rb"(?i)[0-9a-f][ \t]+;")
"""White space before a chunk extension, which readers must accept (RFC 9112, section 7.1.1)."""


def compare(method: str, data: bytes, cuts: Sequence[int]) -> None:
    """Compare both parsers, and the gateway's own with and without cuts. Raises `AssertionError` if they differ."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[start:end] for start, end in pairwise(places)]
    whole = ours(method, [data] if data else [])
    got, reusable = ours(method, pieces)
    assert got == whole[0], f"cut at {places}: {got}, else {whole[0]} of {method} {data!r}"
    # Empty lines after a response mean nothing; in a piece of their own they close the connection.
    assert reusable == whole[1] or data[-1:] in b"\r\n", f"cut at {places}, {method} {data!r}"
    if got is not None:
        got = got._replace(headers=tuple((name, _as_h11_has_it(name, value)) for name, value in got.headers))
    expected, may_be_reused = h11s(method, data)
    if got is None:
        is_stricter = any(rule.search(data) for rule in _STRICTER)
        assert expected is None or is_stricter, f"refused, and h11 reads {expected} of {method} {data!r}"
        return
    if expected is None and _H11_IS_STRICTER.search(data):
        return
    assert got == expected, f"{got}, and h11 reads {expected} of {method} {data!r}"
    assert may_be_reused or not reusable or data[-1:] in b"\r\n", (
        f"the connection is used again after {method} {data!r}"
    )


def _as_h11_has_it(name: bytes, value: bytes) -> bytes:
    return value.lower() if name == b"transfer-encoding" else value


_STATUSES = [
    b"200 OK",
    b"200",
    b"201 Made",
    b"204 No Content",
    b"304 Not Modified",
    b"404 \xe4",
    b"500 a\tb",
    b"101 Up",
]
_NAMES = [b"X-A", b"x-a", b"Content-Type", b"Date", b"Connection", b"Keep-Alive", b"Set-Cookie", b"a!#$%&'*+.^_`|~1"]
_VALUES = [b"", b"a", b"a b", b" a \t", b"close", b"keep-alive", b"\xff\xfe", b'a,b;c="d"', b"x" * 300]
_NOISE = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"0",
    b"5",
    b"a",
    b"\xff",
    b";",
    b",",
    b"-",
    b"chunked",
    b"HTTP/1.1 ",
]


def random_answer(dice: random.Random) -> bytes:
    """Return a response that is mostly close to well-formed, because noise is refused at its first byte."""
    kind = dice.random()
    if kind < 0.03:
        return dice.randbytes(dice.randrange(60))
    data = b"".join(_head(dice, b"103 Early Hints", []) for _ in range(dice.choice([0, 0, 0, 1, 2])))
    body = bytes(dice.choice(b"{}ab\r\n") for _ in range(dice.choice([0, 1, 5, 40, 300])))
    framing = dice.choice(["length", "length", "chunked", "chunked", "none", "both", "wrong"])
    fields, sent = _framed(dice, framing, body)
    data += _head(dice, dice.choice(_STATUSES), fields) + sent
    if dice.random() < 0.1:
        data += dice.choice([b"x", b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
    for _ in range(dice.choice([0, 0, 1, 1, 2, 5])):
        data = _damaged(dice, data)
    return data


def _head(dice: random.Random, status: bytes, fields: list[bytes]) -> bytes:
    lines = [
        dice.choice(_NAMES) + b":" + dice.choice([b"", b" "]) + dice.choice(_VALUES) for _ in range(dice.randrange(5))
    ]
    lines += fields
    dice.shuffle(lines)
    return b"\r\n".join([dice.choice([b"HTTP/1.1 ", b"HTTP/1.1 ", b"HTTP/1.0 "]) + status, *lines, b"", b""])


def _framed(dice: random.Random, framing: str, body: bytes) -> tuple[list[bytes], bytes]:
    length = b"Content-Length: %d" % len(body)
    if framing in ("length", "none"):
        return [length] if framing == "length" else [], body
    if framing == "wrong":
        wrong = [b"-1", b"+1", b"0x1", b"1, 1", b"", b"%d" % (len(body) + 1), b"9" * 30]
        return [b"Content-Length: " + dice.choice(wrong)], body
    chunks = []
    while body:
        size = dice.randrange(1, len(body) + 1)
        chunks.append(b"%x%b\r\n%b\r\n" % (size, dice.choice([b"", b"", b" ", b";a", b";a=b", b';a="b"']), body[:size]))
        body = body[size:]
    end = b"0\r\n" + dice.choice([b"", b"", b"X-Trailer: a\r\n", b"X-Sum: 1\r\nX-More: 2\r\n"]) + b"\r\n"
    fields = [dice.choice([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"])]
    return [*fields, length] if framing == "both" else fields, b"".join(chunks) + end


def _damaged(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    match dice.randrange(4):
        case 0:
            return data[:at] + data[at + dice.choice([1, 1, 2, 10]) :]
        case 1:
            return data[:at] + dice.choice(_NOISE) + data[at:]
        case 2:
            return data[:at] + dice.choice(_NOISE) + data[at + 1 :]
        case _:
            return data[:at]


def fuzz(minutes: float, seed: int) -> int:
    """Compare random responses for some minutes and return their number. Raises `AssertionError`."""
    dice, number, end = random.Random(seed), 0, time.monotonic() + minutes * 60
    while time.monotonic() < end:
        data = random_answer(dice)
        cuts = range(len(data)) if dice.random() < 0.05 else [dice.randrange(10**6) for _ in range(dice.randrange(6))]
        compare(dice.choice(["GET", "POST", "HEAD"]), data, cuts)
        number += 1
    return number


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    asked = parser.parse_args()
    print(f"{fuzz(asked.minutes, asked.seed)} answers with seed {asked.seed}: no difference")
