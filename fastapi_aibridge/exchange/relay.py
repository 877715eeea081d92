"""From the upstream's response to the client's: streams event by event, other answers whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from ..errors import GatewayError, UpstreamUnreachable
from ..formats import Observer
from ..providers.response_headers import client_headers
from ..sse import Framer
from ..upstream.response import UpstreamResponse
from .encoding import DecodedTooLarge, Inflater, UnsupportedEncoding, accepts, decode
from .fair_queue import PIECE, Share
from .interruption import Interruption
from .reply import RawHeaders, Reply

OBSERVED_SIZE = 64 * 1024 * 1024
"""Bytes of an answer that is no stream: so much is read before any is relayed; a larger one is not observed."""

INFLATED_AT_ONCE = 4096
"""Bytes of a compressed stream."""

Read = Callable[[UpstreamResponse], Awaitable[bytes]]


def encoding_of(response: UpstreamResponse) -> str:
    return response.headers.get("content-encoding", "identity").strip().lower() or "identity"


def answer_headers(response: UpstreamResponse, *dropped: bytes) -> RawHeaders:
    """What the client gets of the upstream's headers, less those `dropped`, and the gateway's own word on them."""
    notes = response.notes
    return [*client_headers(response.raw_headers, *dropped, *(name for name, _ in notes)), *notes]


async def relay_stream(
    response: UpstreamResponse, observer: Observer, reply: Reply, share: Share, read: Read = UpstreamResponse.read_some
) -> None:
    """Relay whole events as they come, as far as the observer passes them on; the client's stream stays open.

    Raises `GatewayError` where the stream breaks off, after what came whole has been relayed; not where nothing is
    missing but the end of the connection, or the upstream's own error has said what is wrong.
    """
    inflater = _inflater(response)
    framer = Framer()
    reply.prepare(response.status, answer_headers(response, b"content-length", b"content-encoding"), streaming=True)

    async def relay(chunk: bytes) -> None:
        for piece in (chunk,) if inflater is None else _split(chunk):
            try:
                block = framer.feed(inflater.feed(piece) if inflater else piece)
            except ValueError as error:
                raise UpstreamUnreachable(f"the upstream's stream cannot be read: {error}") from error
            if block and (kept := observer.stream(block)):
                await reply.piece(kept)

    try:
        while chunk := await read(response):
            if not share.take(PIECE):
                await response.hold(share.turn(PIECE))
            await relay(chunk)
    except GatewayError:
        await relay(response.leftovers())
        if framer.rest or not (observer.over or observer.error):
            raise
    if rest := framer.rest:
        # Some providers leave the last empty line out.
        kept = observer.stream(rest + b"\n\n")
        if kept and (observer.finished or observer.error):
            await reply.piece(rest if kept == rest + b"\n\n" else kept)
    if not observer.finished and observer.error is None:
        raise UpstreamUnreachable("the upstream's stream ended before its last event")


def _split(chunk: bytes) -> Iterator[bytes]:
    """Compressed zeros grow a thousandfold: so little at a time that no piece comes to more than some megabytes."""
    return (chunk[start : start + INFLATED_AT_ONCE] for start in range(0, len(chunk), INFLATED_AT_ONCE))


def _inflater(response: UpstreamResponse) -> Inflater | None:
    """For a stream that comes compressed although it was asked for as it is: cut and ended it can be only decoded."""
    encoding = encoding_of(response)
    if encoding == "identity":
        return None
    try:
        return Inflater(encoding, 2**62)
    except UnsupportedEncoding as error:
        raise UpstreamUnreachable(f"the upstream's stream cannot be read: {error}") from None


async def read_answer(response: UpstreamResponse) -> tuple[bytes, bool]:
    """The body of an answer that is no stream, as it was sent, and whether that is all of it: it ends where it is
    larger than `OBSERVED_SIZE`. Raises `GatewayError` where the answer breaks off.
    """
    pieces: list[bytes] = []
    size = 0
    while chunk := await response.read_some():
        pieces.append(chunk)
        size += len(chunk)
        if size > OBSERVED_SIZE:
            return b"".join(pieces), False
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), True


def decoded_answer(response: UpstreamResponse, body: bytes) -> bytes | None:
    """The body without its content encoding; None where that is not known here, or the body too large for it.

    Raises `GatewayError` where the body of a message is not encoded as it says; an error's is passed on all the same.
    """
    encoding = encoding_of(response)
    if encoding == "identity":
        return body
    try:
        return decode(body, encoding, OBSERVED_SIZE)
    except (UnsupportedEncoding, DecodedTooLarge):
        return None
    except ValueError as error:
        if response.status >= 300:
            return None
        raise UpstreamUnreachable(f"the upstream's answer cannot be read: {error}") from error


def observed(response: UpstreamResponse, body: bytes, observer: Observer) -> bytes | None:
    """The body without its content encoding, once the observer has seen it; None where it cannot be decoded.

    Raises `GatewayError` where it should be a message and cannot even be one: nothing that reads JSON could take it.
    """
    decoded = decoded_answer(response, body)
    if decoded is not None and not observer.blocking(decoded) and response.status == 200:
        raise UpstreamUnreachable("the upstream's answer is not a JSON object")
    return decoded


async def relay_answer(
    response: UpstreamResponse,
    observer: Observer,
    accept_encoding: bytes,
    reply: Reply,
    interruption: Interruption,
) -> None:
    """Relay an answer that is no stream, whole: one that breaks off becomes an error that can be read."""
    body, whole = await read_answer(response)
    if not whole:
        await _relay_rest(response, body, reply, interruption)
        return
    dropped = [b"content-length"]
    decoded = observed(response, body, observer)
    if decoded is not None:
        encoding = encoding_of(response)
        if encoding != "identity" and not accepts(accept_encoding.decode("latin-1"), encoding):
            body = decoded
            dropped.append(b"content-encoding")
    await send_whole(response, body, reply, interruption, *dropped)


async def send_whole(
    response: UpstreamResponse, body: bytes, reply: Reply, interruption: Interruption, *dropped: bytes
) -> None:
    """The upstream's status and headers, less those `dropped`, with this body."""
    head = answer_headers(response, *dropped)
    if response.status not in (204, 304):
        head.append((b"content-length", str(len(body)).encode()))
    interruption.settle()
    reply.prepare(response.status, head)
    await reply.finish(body)


async def _relay_rest(response: UpstreamResponse, start: bytes, reply: Reply, interruption: Interruption) -> None:
    """Relay what is too large to be observed, as it comes."""
    reply.prepare(response.status, answer_headers(response))
    chunk = start
    while chunk:
        await reply.piece(chunk)
        chunk = await response.read_some()
    interruption.settle()
    await reply.finish()
