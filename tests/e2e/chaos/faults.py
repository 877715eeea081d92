"""The faults that can occur between a gateway and its provider, and the outcome that the caller must get for each."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tests.loopback import LAST_CHUNK, chunk

from .model import head
from .proxy import Fault, Link, no_fault

OVERLOADED = b'{"error": {"message":"too much",   "type":"overloaded_error", "code": null}}'
"""A provider's own error, with white space that only a byte-for-byte relay keeps."""


class Outcome(Enum):
    """The response that the caller must get, which implies the record's status."""

    WHOLE = "the answer, byte for byte"
    AS_IT_CAME = "what the upstream sent, byte for byte; failed"
    NO_MESSAGE = "a 200 whose body is passed on, byte for byte, and failed; 502 where it says that it is a stream"
    BAD_GATEWAY = "502"
    TIMEOUT = "504"
    BROKEN_STREAM = "whole events, then an error event; or, not streamed, 502"
    SILENT_STREAM = "whole events, then an error event; or, not streamed, 504"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    fault: Fault
    outcome: Outcome
    status: int = 200
    """The upstream's status, if the outcome is `AS_IT_CAME`."""
    greets: bool = False
    """Whether the fault happens as soon as the gateway has connected."""


CASES: list[Case] = []


def fault(outcome: Outcome, *, greets: bool = False) -> Callable[[Fault], Fault]:
    def add(play: Fault) -> Fault:
        CASES.append(Case(getattr(play, "__name__", "").replace("_", " "), play, outcome, greets=greets))
        return play

    return add


CASES.append(Case("no fault", no_fault, Outcome.WHOLE))


# The connection breaks


@fault(Outcome.BAD_GATEWAY, greets=True)
async def reset_at_once(link: Link) -> None:
    link.reset()


@fault(Outcome.BAD_GATEWAY, greets=True)
async def closed_at_once(link: Link) -> None:
    link.close()


@fault(Outcome.BAD_GATEWAY)
async def reset_before_the_head(link: Link) -> None:
    link.reset()


@fault(Outcome.BAD_GATEWAY)
async def closed_before_the_head(link: Link) -> None:
    link.close()


@fault(Outcome.BAD_GATEWAY)
async def reset_in_the_head(link: Link) -> None:
    await link.send(link.head[:25])
    await link.arrived()
    link.reset()


@fault(Outcome.BAD_GATEWAY)
async def closed_in_the_head(link: Link) -> None:
    await link.send(link.head[:25])
    link.close()


@fault(Outcome.BAD_GATEWAY)
async def reset_after_the_head(link: Link) -> None:
    await link.send(link.head)
    await link.arrived()
    link.reset()


@fault(Outcome.BAD_GATEWAY)
async def closed_after_the_head(link: Link) -> None:
    await link.send(link.head)
    link.close()


@fault(Outcome.BROKEN_STREAM)
async def reset_in_the_body(link: Link) -> None:
    await link.send(link.head + link.body[: link.middle])
    await link.arrived()
    link.reset()


@fault(Outcome.BROKEN_STREAM)
async def closed_in_the_body(link: Link) -> None:
    await link.send(link.head + link.body[: link.middle])
    link.close()


@fault(Outcome.BAD_GATEWAY)
async def half_closed_before_the_head(link: Link) -> None:
    await link.half_close()


@fault(Outcome.BROKEN_STREAM)
async def half_closed_in_the_body(link: Link) -> None:
    await link.send(link.head + link.body[: link.middle])
    await link.half_close()


# Silence and slow responses


@fault(Outcome.TIMEOUT)
async def stalls_before_the_head(link: Link) -> None:
    await link.silence()


@fault(Outcome.TIMEOUT)
async def stalls_in_the_head(link: Link) -> None:
    await link.send(link.head[:25])
    await link.silence()


@fault(Outcome.TIMEOUT)
async def stalls_after_the_head(link: Link) -> None:
    await link.send(link.head)
    await link.silence()


@fault(Outcome.SILENT_STREAM)
async def stalls_in_the_body(link: Link) -> None:
    await link.send(link.head + link.body[: link.middle])
    await link.silence()


@fault(Outcome.WHOLE)
async def delays(link: Link) -> None:
    await asyncio.sleep(0.05)
    await link.send(link.head)
    await asyncio.sleep(0.05)
    await link.send(link.body[: link.middle])
    await asyncio.sleep(0.05)
    await link.send(link.body[link.middle :])


@fault(Outcome.WHOLE)
async def byte_by_byte(link: Link) -> None:
    for byte in link.head + link.body:
        await link.send(bytes((byte,)))
        await asyncio.sleep(0)


@fault(Outcome.WHOLE)
async def closes_after_the_answer(link: Link) -> None:
    await link.send(link.head + link.body)
    link.close()


# The response is well formed, but too short


@fault(Outcome.BROKEN_STREAM)
async def truncates_unseen(link: Link) -> None:
    cut = link.body[: link.middle]
    if link.streams:
        await link.send(link.head + chunk(cut.partition(b"\r\n")[2][:-20]) + LAST_CHUNK)
    else:
        await link.send(head(content_type="application/json", content_length=str(len(cut) + 10)) + cut)
        link.close()


# The response is not HTTP


@fault(Outcome.BAD_GATEWAY)
async def garbage(link: Link) -> None:
    await link.send(b"\x16\x03\x00\xff this is not HTTP\r\n\r\n")
    await link.silence()


@fault(Outcome.BAD_GATEWAY, greets=True)
async def another_protocol(link: Link) -> None:
    await link.send(b"SSH-2.0-OpenSSH_9.6\r\n")
    await link.silence()


@fault(Outcome.BAD_GATEWAY)
async def endless_head(link: Link) -> None:
    await link.send(link.head[:-2])
    for number in range(40):
        await link.send(b"X-%d: " % number + b"x" * 30_000 + b"\r\n")
    await link.silence()


@fault(Outcome.BAD_GATEWAY)
async def endless_first_line(link: Link) -> None:
    await link.send(b"HTTP/1.1 200 " + b"x" * 200_000)
    await link.silence()


@fault(Outcome.BAD_GATEWAY)
async def two_lengths(link: Link) -> None:
    await link.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}"
    )
    await link.silence()


@fault(Outcome.BAD_GATEWAY)
async def negative_length(link: Link) -> None:
    await link.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: -5\r\n\r\n{}")
    await link.silence()


@fault(Outcome.BAD_GATEWAY)
async def status_that_is_none(link: Link) -> None:
    await link.send(link.head.replace(b" 200 ", b" 999 ") + link.body)


@fault(Outcome.BAD_GATEWAY)
async def switches_protocols(link: Link) -> None:
    await link.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\nfoo")
    await link.silence()


@fault(Outcome.WHOLE)
async def many_interim_answers(link: Link) -> None:
    await link.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 50 + link.head + link.body)


@fault(Outcome.BAD_GATEWAY)
async def line_break_in_a_header(link: Link) -> None:
    await link.send(link.head[:-2] + b"X-Folded: a\rX-Injected: b\r\n\r\n" + link.body)
    await link.silence()


@fault(Outcome.BAD_GATEWAY)
async def nul_in_a_header(link: Link) -> None:
    await link.send(link.head[:-2] + b"X-Nul: a\x00b\r\n\r\n" + link.body)
    await link.silence()


@fault(Outcome.BROKEN_STREAM)
async def broken_chunk_size(link: Link) -> None:
    start = head(content_type="text/event-stream" if link.streams else "application/json", transfer_encoding="chunked")
    first = link.body[: link.body.index(b"\n\n") + 4] if link.streams else chunk(link.body[:20])
    await link.send(start + first)
    await link.arrived()
    await link.send(b"zz\r\nwhatever\r\n")
    await link.silence()


@fault(Outcome.BROKEN_STREAM)
async def chunk_shorter_than_its_size(link: Link) -> None:
    start = head(content_type="text/event-stream" if link.streams else "application/json", transfer_encoding="chunked")
    first = link.body[: link.body.index(b"\n\n") + 4] if link.streams else chunk(link.body[:20])
    await link.send(start + first + b"fff\r\ntoo short")
    link.close()


# The response is HTTP, but no message of the API


PAGE = b"<html><body>Please log in to the network</body></html>"
NOISE = bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"")
PACKED = gzip.compress(b"data: {}" * 200, mtime=0)[:20]


@fault(Outcome.NO_MESSAGE)
async def a_page(link: Link) -> None:
    await link.send(head(content_type="text/html", content_length=str(len(PAGE))) + PAGE)


@fault(Outcome.NO_MESSAGE)
async def empty_answer(link: Link) -> None:
    await link.send(head(content_type="application/json", content_length="0"))


@fault(Outcome.NO_MESSAGE)
async def garbage_for_a_body(link: Link) -> None:
    kind = "text/event-stream" if link.streams else "application/json"
    await link.send(head(content_type=kind, content_length=str(len(NOISE))) + NOISE)


# The body is not encoded as its header says


@fault(Outcome.NO_MESSAGE)
async def bad_gzip(link: Link) -> None:
    await link.send(link.head[:-2] + b"Content-Encoding: gzip\r\n\r\n" + link.body)


@fault(Outcome.NO_MESSAGE)
async def cut_gzip(link: Link) -> None:
    kind = "text/event-stream" if link.streams else "application/json"
    await link.send(head(content_type=kind, content_encoding="gzip", content_length=str(len(PACKED))) + PACKED)


NO_MESSAGES = {"a page": PAGE, "empty answer": b"", "garbage for a body": NOISE, "cut gzip": PACKED}
"""The bodies of the `NO_MESSAGE` faults that are the same in all formats."""


# The provider answers with an error or a redirect


def says(status: int, **fields: str) -> Fault:
    async def play(link: Link) -> None:
        fields["content_length"] = str(len(OVERLOADED))
        await link.send(head(status, content_type="application/json", **fields) + OVERLOADED)

    return play


CASES += [
    Case(f"answers {status}", says(status, **fields), Outcome.AS_IT_CAME, status)
    for status, fields in (
        (400, {}),
        (401, {}),
        (429, {"retry_after": "3"}),
        (500, {}),
        (503, {}),
        (529, {}),
    )
]
CASES.append(Case("redirects", says(302, location="http://169.254.169.254/latest/meta-data"), Outcome.BAD_GATEWAY))
