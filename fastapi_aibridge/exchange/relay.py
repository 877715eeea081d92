"""Relays the upstream's response to the client: streams event by event, other responses whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from ..errors import GatewayError, UpstreamUnreachable
from ..formats.rounds import Rounds
from ..providers.response_headers import client_headers
from ..sse import Framer, parts
from ..upstream.response import UpstreamResponse
from .body_budget import Holding
from .encoding import DecodedTooLarge, Inflater, UnsupportedEncoding, accepts, decoding
from .fair_queue import PIECE, Share
from .interruption import Interruption
from .response_writer import ResponseWriter
from .steps import in_steps

OBSERVED_SIZE = 64 * 1024 * 1024
"""Bytes of a response that is no stream. It is read whole before it is relayed; a larger one is not observed."""
COUNTED = 64 * 1024
"""Bytes of a response, or of one event, from which on they count as held by the caller."""
STEP = 8 * 1024
"""Bytes of events that are processed at once, so that a burst of tiny events takes only some milliseconds."""

Read = Callable[[UpstreamResponse], Awaitable[bytes]]
Begin = Callable[[], Awaitable[None]]
"""A function to await before the client gets the first bytes of a message."""


def encoding_of(response: UpstreamResponse) -> str:
    encoding = response.headers.raw(b"content-encoding")
    return "identity" if encoding is None else encoding.decode("latin-1").strip().lower() or "identity"


def answer_headers(response: UpstreamResponse, *dropped: bytes) -> list[tuple[bytes, bytes]]:
    """Return the client's headers: the upstream's without those `dropped`, and the gateway's notes in their place."""
    notes = response.notes
    return [*client_headers(response.raw_headers, *dropped, *(name for name, _ in notes)), *notes]


async def relay_stream(
    response: UpstreamResponse,
    rounds: Rounds,
    writer: ResponseWriter,
    share: Share,
    holding: Holding,
    read: Read | None,
    begin: Begin,
    seen: Callable[[bytes], None] | None = None,
) -> bytes:
    """Relay whole events as they come, as far as the rounds pass them on. The client's stream stays open.

    `begin` is awaited before the first bytes, `seen` is called with all events. Returns the last events unsent if they
    came together with the end of a stream that no round follows, so that they can be sent with the end.

    Raises `GatewayError` if the stream breaks off, after all complete events have been relayed; but not if only the end
    of the connection is missing, or if the upstream has sent an error event of its own. Raises it, too, if there is no
    memory for an event.
    """
    inflater = _inflater(response)
    framer = Framer()
    message = rounds.message
    writer.prepare(response.status, answer_headers(response, b"content-length", b"content-encoding"), streaming=True)
    broken: GatewayError | None = None
    while broken is None:
        try:
            chunk = await (response.read_some() if read is None else read(response))
        except GatewayError as error:
            broken = error
            chunk = response.leftovers()
        if not chunk:
            break
        if not share.take(PIECE):
            await response.hold(share.turn(PIECE))
        if inflater is None and len(chunk) <= STEP:
            # The common case: one or a few events, not compressed.
            block = _framed(framer, chunk)
            if not block and framer.size > COUNTED:
                holding.hold_answer(framer.size)
            if seen is not None and block:
                seen(block)
            if block and (kept := rounds.stream(block)):
                if not writer.begun:
                    await begin()
                if read is None and response.exhausted and message.complete and not message.error and not framer.rest:
                    return kept  # to be sent together with the end
                await writer.piece(kept)
                if holding.answer and len(block) <= COUNTED:  # the client has taken all that is larger
                    holding.hold_answer(0)
        else:
            await _relay_slowly(response, chunk, inflater, framer, rounds, writer, share, holding, begin, seen)
    rest = framer.rest
    if broken is not None and (rest or not (message.stream_complete or message.error)):
        raise broken
    if rest:
        # Some providers omit the last empty line.
        kept = rounds.stream(rest + b"\n\n")
        if kept and (message.complete or message.error):
            await writer.piece(rest if kept == rest + b"\n\n" else kept)
    if not message.complete and message.error is None:
        raise UpstreamUnreachable("the upstream's stream ended before its last event")
    return b""


def _framed(framer: Framer, piece: bytes) -> bytes:
    try:
        return framer.feed(piece)
    except ValueError as error:
        raise _unreadable(error) from error


def _unreadable(error: ValueError) -> UpstreamUnreachable:
    return UpstreamUnreachable(f"the upstream's stream cannot be read: {error}")


async def _relay_slowly(
    response: UpstreamResponse,
    chunk: bytes,
    inflater: Inflater | None,
    framer: Framer,
    rounds: Rounds,
    writer: ResponseWriter,
    share: Share,
    holding: Holding,
    begin: Begin,
    seen: Callable[[bytes], None] | None,
) -> None:
    """Relay a large or compressed chunk in steps, between which other requests have their turn."""
    first = True
    pieces: Iterable[bytes] = (chunk,) if inflater is None else inflater.pieces(chunk)
    try:
        for piece in pieces:
            block = framer.feed(piece)
            held = len(block) + framer.size
            if held > COUNTED:
                holding.hold_answer(max(held, holding.answer))
            for part in parts(block, STEP):
                if not first:
                    await asyncio.sleep(0)
                    if not share.take(PIECE):
                        await response.hold(share.turn(PIECE))
                first = False
                if seen is not None:
                    seen(part)
                if kept := rounds.stream(part):
                    if not writer.begun:
                        await begin()
                    await writer.piece(kept)
            if block and holding.answer > held:
                holding.hold_answer(held)
    except ValueError as error:
        raise _unreadable(error) from error


def _inflater(response: UpstreamResponse) -> Inflater | None:
    """Make the decoder of a stream that is compressed although it was requested without; None for a plain stream.

    The stream has to be decoded, because events can be cut and added only in plain text.
    """
    encoding = encoding_of(response)
    if encoding == "identity":
        return None
    try:
        return Inflater(encoding, 2**62)
    except UnsupportedEncoding as error:
        raise _unreadable(error) from None


async def read_answer(response: UpstreamResponse, holding: Holding) -> tuple[bytes, bool]:
    """Read the body of a response that is no stream, as it was sent. Return it, and whether it is complete: reading
    stops at `OBSERVED_SIZE`, or at a quarter of all that may be held. Raises `GatewayError` if the response breaks off,
    or if there is no memory for it.
    """
    most = min(OBSERVED_SIZE, holding.limit // 2)
    pieces: list[bytes] = []
    size = 0
    while chunk := await response.read_some():
        pieces.append(chunk)
        size += len(chunk)
        if size > most:
            return b"".join(pieces), False
        if size > COUNTED:
            holding.hold_answer(size)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), True


@dataclass(slots=True)
class Answer:
    """A whole upstream response that is no stream; for a stream, its head and the events that are not sent yet."""

    response: UpstreamResponse
    body: bytes
    decoded: bytes | None = None
    """The body without its content encoding; None if it has none or cannot be decoded."""
    is_message: bool = False
    problem: str | None = None
    """Why a successful response could not be read as a message; None if it could."""

    @classmethod
    async def read(
        cls, response: UpstreamResponse, body: bytes, rounds: Rounds, share: Share, holding: Holding
    ) -> Answer:
        """Decode the body and pass it to the rounds. A body that cannot be read goes to the client as it is, because a
        retry would be billed again. Raises `GatewayError` if there is no memory for it.
        """
        succeeded = 200 <= response.status < 300
        encoding = encoding_of(response)
        decoded: bytes | None = body
        if encoding != "identity":
            try:
                steps = decoding(body, encoding, OBSERVED_SIZE, lambda size: holding.hold_answer(holding.answer + size))
                decoded = (await in_steps(steps, share))[:]
            except (UnsupportedEncoding, DecodedTooLarge):
                return cls(response, body)
            except ValueError as error:
                return cls(
                    response, body, problem=f"the upstream's answer cannot be read: {error}" if succeeded else None
                )
        is_object = decoded is not None and rounds.blocking(decoded)
        problem = None if is_object or not succeeded else "the upstream's answer is not a JSON object"
        return cls(
            response,
            body,
            decoded=None if decoded is body else decoded,
            is_message=is_object and succeeded,
            problem=problem,
        )

    def woven(self, body: bytes) -> Answer:
        """Return the same head with another body."""
        return Answer(self.response, body, decoded=body, is_message=True)


async def send_answer(
    answer: Answer, writer: ResponseWriter, interruption: Interruption, accept_encoding: bytes
) -> None:
    """Send the upstream's status and headers with the body, decoded if the client does not accept its encoding."""
    response, body = answer.response, answer.body
    dropped = [b"content-length"]
    encoding = encoding_of(response)
    if answer.decoded is not None and (
        answer.decoded is body or not accepts(accept_encoding.decode("latin-1"), encoding)
    ):
        body = answer.decoded
        dropped.append(b"content-encoding")
    head = answer_headers(response, *dropped)
    if response.status not in (204, 304):
        head.append((b"content-length", str(len(body)).encode()))
    interruption.settle()
    writer.prepare(response.status, head)
    await writer.finish(body)


async def relay_rest(
    response: UpstreamResponse, start: bytes, writer: ResponseWriter, interruption: Interruption
) -> None:
    """Relay a body that is too large to be observed, as it comes, after the part that has been read."""
    writer.prepare(response.status, answer_headers(response))
    chunk = start
    while chunk:
        await writer.piece(chunk)
        chunk = await response.read_some()
    interruption.settle()
    await writer.finish()
