"""Content encodings: bodies are decoded whole and within the limit, or refused."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.exchange.body import decode_body
from fastapi_aibridge.exchange.body_budget import BodyBudget
from fastapi_aibridge.exchange.encoding import DecodedTooLarge, Inflater, UnsupportedEncoding, accepts, decode
from fastapi_aibridge.exchange.fair_queue import FairQueue

BODY = b'{"model":"gpt-5","input":"' + b"abc" * 1000 + b'"}'


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def zstd_streamed(data: bytes) -> bytes:
    """Compress as a client that streams: the frame does not state the length of its content."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return compressor.compress(data) + compressor.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd,
}
each_encoding = pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])


@pytest.mark.parametrize("encoding", [*ENCODERS, "GZIP", " zstd "])
def test_bodies_are_decoded(encoding: str) -> None:
    """Bodies are decoded; the name of the encoding may be in any case."""
    encoded = ENCODERS[encoding.strip().lower()](BODY)
    assert decode(encoded, encoding, len(BODY)) == BODY
    assert decode(ENCODERS[encoding.strip().lower()](b""), encoding, 0) == b""


def test_no_encoding() -> None:
    """`identity` is the body itself."""
    assert decode(BODY, "identity", len(BODY)) == BODY


def test_zstd_frames_without_a_length() -> None:
    """A zstd frame without a content length, as streaming compressors write it, is decoded."""
    assert decode(zstd_streamed(BODY), "zstd", len(BODY)) == BODY


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_bodies_in_several_parts(encoding: str) -> None:
    """Consecutive gzip members and zstd frames are all decoded (RFC 1952, RFC 8878), up to a number."""
    parts = [BODY[:100], b"", BODY[100:]]
    encoded = b"".join([ENCODERS[encoding](part) for part in parts])
    assert decode(encoded, encoding, len(BODY)) == BODY
    with pytest.raises(DecodedTooLarge):
        decode(encoded, encoding, len(BODY) - 1)
    with pytest.raises(ValueError, match="behind its end"):
        decode(ENCODERS[encoding](b"x") * 1000, encoding, 10_000)


@each_encoding
def test_a_body_over_the_limit_is_refused(encoding: str) -> None:
    """A body one byte over the limit is refused, and a decompression bomb is not decoded to its end."""
    with pytest.raises(DecodedTooLarge):
        decode(ENCODERS[encoding](BODY), encoding, len(BODY) - 1)
    bomb = ENCODERS[encoding](bytes(50_000_000))
    assert len(bomb) < 60_000
    with pytest.raises(DecodedTooLarge):
        decode(bomb, encoding, 1000)


@each_encoding
def test_a_body_that_is_cut_off_is_refused(encoding: str) -> None:
    """A body cut off at any byte is refused, so that half a request never passes for a whole one."""
    encoded = ENCODERS[encoding](b'{"model":"gpt-5"}')
    for end in range(len(encoded)):
        with pytest.raises(ValueError, match=r"cut off|not encoded"):
            decode(encoded[:end], encoding, 1000)
    if encoding == "zstd":
        with pytest.raises(ValueError, match="cut off"):
            decode(zstd_streamed(BODY)[:-1], encoding, 10_000)


@each_encoding
def test_what_follows_the_body_is_refused(encoding: str) -> None:
    """Bytes after the encoded body are refused, because a stricter reader would see another body."""
    with pytest.raises(ValueError, match="not encoded"):
        decode(ENCODERS[encoding](BODY) + b"more", encoding, 10_000)


def test_a_zstd_frame_may_not_ask_for_much_memory() -> None:
    """A zstd window over 8 MiB is refused (RFC 9659)."""
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(ValueError, match="not encoded"):
        decode(compressor.compress(BODY) + compressor.flush(), "zstd", 10_000)


@pytest.mark.parametrize("encoding", ["br", "compress", "gzip, zstd", "", "x"])
def test_other_encodings_are_refused(encoding: str) -> None:
    """An unknown encoding, or a list of several, is refused."""
    with pytest.raises(UnsupportedEncoding):
        decode(b"x", encoding, 10)


@settings(deadline=None, max_examples=60)
@given(st.binary(), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_garbage_is_refused(data: bytes, encoding: str) -> None:
    """Garbage raises nothing but a `ValueError`."""
    with pytest.raises(ValueError, match=r"not encoded|cut off"):
        decode(data, encoding, 1000)


@settings(deadline=None, max_examples=60)
@given(st.binary(), st.sampled_from(["gzip", "deflate"]), st.integers(1, 9))
def test_streams_are_decoded_piece_by_piece(data: bytes, encoding: str, size: int) -> None:
    """A stream is decoded wherever it is cut, and the inflater tells when it is complete."""
    encoded = ENCODERS[encoding](data)
    inflater = Inflater(encoding, 2**63)
    pieces = []
    for at in range(0, len(encoded), size):
        assert not inflater.complete
        pieces.append(inflater.feed(encoded[at : at + size]))
    assert b"".join(pieces) == data
    assert inflater.complete


def test_a_stream_of_several_members_goes_on() -> None:
    """A stream of several gzip members is decoded, because a server may end a member with each flush."""
    inflater = Inflater("gzip", 100)
    assert [inflater.feed(gzip.compress(part)) for part in (b"a", b"b", b"c")] == [b"a", b"b", b"c"]
    assert inflater.complete


def test_the_limit_is_for_all_pieces_together() -> None:
    """The limit applies to the sum of all decoded pieces."""
    inflater = Inflater("gzip", 3)
    assert inflater.feed(gzip.compress(b"ab")) == b"ab"
    with pytest.raises(DecodedTooLarge):
        inflater.feed(gzip.compress(b"cd"))


@pytest.mark.parametrize(
    ("encoding", "data", "status"),
    [("br", b"x", 415), ("gzip", b"x", 400), ("gzip", gzip.compress(bytes(11), mtime=0), 413), ("zstd", b"", 400)],
)
@pytest.mark.anyio
async def test_what_the_client_is_told(encoding: str, data: bytes, status: int) -> None:
    """An unknown encoding gives 415, a broken body 400, and one that is too large 413."""
    holding = BodyBudget(1000).holding("alice")
    with pytest.raises(GatewayError) as refused:
        await decode_body(data, encoding, 10, holding, FairQueue().share("alice"))
    assert refused.value.status == status


@each_encoding
@pytest.mark.anyio
async def test_decoding_is_counted_and_lets_others_work(encoding: str) -> None:
    """The decoded bytes replace the encoded ones in the budget, and the event loop runs during the decoding."""
    data = random.Random(1).randbytes(4_000_000).hex().encode()
    encoded = ENCODERS[encoding](data)
    budget = BodyBudget(40_000_000)
    holding = budget.holding("alice")
    holding.grow(len(encoded))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    decoded = await decode_body(encoded, encoding, 20_000_000, holding, FairQueue().share("alice"))
    counting.cancel()
    assert decoded[:] == data
    assert turns > 20
    assert budget.used == holding.size == len(data)


@each_encoding
@pytest.mark.anyio
async def test_a_bomb_is_refused_before_it_is_unpacked(encoding: str) -> None:
    """A bomb without room in the memory budget is refused with 503, and the memory held for it is released."""
    budget = BodyBudget(10_000_000)
    holding = budget.holding("alice")
    others = budget.holding("bob")
    others.grow(3_000_000)
    with pytest.raises(GatewayError) as refused:
        await decode_body(
            ENCODERS[encoding](bytes(4_900_000)), encoding, 20_000_000, holding, FairQueue().share("alice")
        )
    assert (refused.value.status, refused.value.headers["retry-after"]) == (503, "1")
    holding.release()
    assert budget.used == 3_000_000


@each_encoding
@pytest.mark.parametrize("size", [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 128 * 1024, 1_000_000])
def test_bodies_of_any_size_are_decoded_whole(encoding: str, size: int) -> None:
    """Bodies of sizes around that of the pieces used for decoding are decoded whole."""
    for data in (bytes(size), random.Random(size).randbytes(size)):
        assert decode(ENCODERS[encoding](data), encoding, size) == data


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5, br", True),
        ("gzip ; q=1", True),
        ("gzip;q=0", False),
        ("gzip; Q=0.0", False),
        ("gzip;q=0.000", False),
        ("identity", False),
        ("notgzip", False),
        ("*", False),
        ("", False),
    ],
)
def test_what_a_client_accepts(header: str, accepted: bool) -> None:
    """The client accepts gzip if it names gzip with a weight above 0."""
    assert accepts(header, "gzip") is accepted
