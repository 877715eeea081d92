"""The gateway's HTTP parser compared with h11: equal readings, or an error, wherever the bytes are cut."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import reference


@settings(max_examples=500, deadline=None)
@given(
    seed=st.integers(0, 2**64),
    method=st.sampled_from(["GET", "POST", "HEAD"]),
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
)
def test_answers(seed: int, method: str, cuts: list[int]) -> None:
    """Responses that are well-formed or nearly so are read alike."""
    reference.compare(method, reference.random_answer(random.Random(seed)), cuts)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_noise(data: bytes, cuts: list[int]) -> None:
    """Noise is read alike, alone and after the beginning of a response."""
    reference.compare("POST", data, cuts)
    reference.compare("POST", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data, cuts)
    reference.compare("POST", b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n", cuts)


OK = b"HTTP/1.1 200 OK\r\n"
SMUGGLING = [
    OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    OK + b"Content-Length: 2, 2\r\n\r\n{}",
    OK + b"Content-Length: +2\r\n\r\n{}",
    OK + b"Content-Length: -2\r\n\r\n{}",
    OK + b"Content-Length: 0x2\r\n\r\n{}",
    OK + b"Content-Length: 2 2\r\n\r\n{}",
    OK + b"Content-Length:\r\n\r\n{}",
    OK + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    OK + b"Content-Length : 2\r\n\r\n{}",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: identity\r\n\r\n{}",
    OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}X0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n",
    OK + b"X-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Folded: a\r\n\tb\r\nContent-Length: 2\r\n\r\n{}",
    OK + b" X-First: a\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Nul: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Return: a\rb\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Feed: a\nContent-Length: 2\r\n\r\n{}",
    OK + b"No colon\r\nContent-Length: 2\r\n\r\n{}",
    OK + b": no name\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-\xc3\xa4: a\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 a\0b\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 099 No\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 600 No\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 2000 No\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.2 200 No\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/2 200 No\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/0.9 200 No\r\nContent-Length: 2\r\n\r\n{}",
    b"ICY 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx",
]


@pytest.mark.parametrize("data", SMUGGLING, ids=range(len(SMUGGLING)))
def test_what_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    """An ambiguous response is refused, whole or byte by byte."""
    assert reference.ours("POST", [data]) == (None, False)
    assert reference.ours("POST", [data[at : at + 1] for at in range(len(data))]) == (None, False)


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("POST", OK + b"Content-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
        ("POST", OK + b"Content-Length: 2\r\n\r\n{}x"),
        ("POST", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ("HEAD", OK + b"Content-Length: 2\r\n\r\n{}"),
        ("POST", b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n{}"),
        ("POST", b"HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\n{}"),
        ("POST", OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"),
        ("POST", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        ("POST", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("POST", OK + b"\r\n{}"),
    ],
)
def test_a_connection_that_is_not_used_again(method: str, data: bytes) -> None:
    """A connection with surplus bytes, or one that will be closed, is not used again; its response is valid."""
    answer, reusable = reference.ours(method, [data])
    assert answer is not None
    assert answer.status < 400
    assert not reusable


def test_what_servers_do_and_all_readers_take() -> None:
    """Padded chunk sizes, extensions, trailers, interim responses and HTTP/1.0 keep-alive are accepted."""
    early = b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n" * 20
    data = early + OK + b"Transfer-Encoding: Chunked\r\n\r\n2  \r\n{}\r\n1;a=b\r\n \r\n0\r\nX-Sum: 1\r\n\r\n"
    answer = reference.Answer(200, ((b"transfer-encoding", b"Chunked"),), b"{} ")
    assert reference.ours("POST", [data]) == (answer, True)
    assert reference.ours("POST", [data[at : at + 1] for at in range(len(data))]) == (answer, True)
    old = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}"
    assert reference.ours("POST", [old])[1]
