"""Paths as clients write them: the checked path is the one sent upstream, and ambiguous ones are refused."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastapi_aibridge.providers.path import raw_tail


def decoded(raw: bytes) -> str:
    """Return the path as uvicorn passes it to an app."""
    return unquote_to_bytes(raw).decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("written", "tail"),
    [
        (b"v1/models", "v1/models"),
        (b"v1/models/gpt-5", "v1/models/gpt-5"),
        (b"v1/models/ft:gpt-5:org::id", "v1/models/ft:gpt-5:org::id"),
        (b"v1/models/a%20b", "v1/models/a%20b"),
        (b"v1/models/a%3Bb;c", "v1/models/a%3Bb;c"),
        (b"v1/models/a%3Fb%23c", "v1/models/a%3Fb%23c"),
        (b"v1/models/%C3%A9", "v1/models/%C3%A9"),
        (b"v1/models/...", "v1/models/..."),
        (b"v1/models/.hidden", "v1/models/.hidden"),
        (b"%76%31/models/%67%70%74%2D%35", "v1/models/gpt-5"),
    ],
)
def test_plain_paths_stay_as_they_were_written(written: bytes, tail: str) -> None:
    """Reserved characters stay encoded or not, as the client wrote them; unreserved characters are not encoded."""
    assert raw_tail(decoded(written), b"/ai/openai/" + written) == tail


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"v1//models",
        b"/v1/models",
        b"v1/models/",
        b"v1/./models",
        b"v1/../admin",
        b"v1/models/..",
        b"v1/models/%2e%2e",
        b"v1/models/%2E%2e/x",
        b"v1/models/.%2e",
        b"v1/models/..;/admin",
        b"v1/models/..;x=1/admin",
        b"v1/models/;x",
        b"v1/models/%2e%2e%3bx",
        b"v1/models%2fgpt-5",
        b"v1/models/a%2Fb",
        b"v1%2Fmodels",
        b"v1/models/a\\b",
        b"v1/models/a%5Cb",
        b"v1/models/%5c..%5cadmin",
        b"v1/models/%252e%252e",
        b"v1/models/%25",
        b"v1/models/a%252Fb",
        b"v1/models/%00",
        b"v1/models/a%0d%0aHost:x",
        b"v1/models/%7f",
        b"v1/models/%C2%85",
        b"v1/models/%E2%80%A8",
        b"v1/models/%ff",
        b"v1/models/%c0%ae%c0%ae",
        b"v1/models/%C3",
        b"v1/models/%",
        b"v1/models/%zz",
        b"v1/models/%4",
        b"v1/models/a b",
        b"v1/models/a#b",
        b"v1/models/a?b",
        b'v1/models/"',
        b"v1/models/<x>",
        b"v1/models/\xc3\xa9",
        b"v1/models/\xc3\xa9%20",
        b"v1/models/a\tb",
    ],
)
def test_hostile_paths_are_refused(written: bytes) -> None:
    """Empty and dot segments, encoded slashes, backslashes, double encoding and invalid characters are refused."""
    assert raw_tail(decoded(written), b"/ai/openai/" + written) is None


def test_a_raw_path_that_says_something_else_is_refused() -> None:
    """A path that differs from its raw form is refused, because a server or middleware may have rewritten either."""
    assert raw_tail("v1/models", b"/ai/openai/v1/files") is None
    assert raw_tail("v1/models", b"") is None
    assert raw_tail("v1/models/a b", b"/openai/v1/models/a+b") is None
    assert raw_tail("v1/models/a/b", b"/openai/v1/models/a%2Fb") is None
    assert raw_tail("x/a/b", b"/v1/x/a%2Fb") is None


def test_without_a_raw_path_it_is_written_anew() -> None:
    """Without a raw path, which ASGI servers may leave out, the path is encoded again."""
    assert raw_tail("v1/models/ft:gpt-5:a b", None) == "v1/models/ft:gpt-5:a%20b"
    assert raw_tail("v1/models/a?b#c", None) == "v1/models/a%3Fb%23c"
    assert raw_tail("v1/models/é", None) == "v1/models/%C3%A9"
    assert raw_tail("v1/../admin", None) is None


def test_characters_that_are_none_are_refused() -> None:
    """A lone surrogate is refused, because it has no bytes."""
    assert raw_tail("v1/models/\ud800", b"/v1/models/x") is None
    assert raw_tail("v1/models/\ud800", None) is None


PIECES = st.sampled_from([b"/", b".", b"..", b"%2e", b"%2F", b"%", b"%25", b"\\", b"v1", b";", b"a", b"\xff", b"%41"])


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=2), max_size=8).map(b"".join), st.booleans())
@example(b"v1/models/%2e%2e/%2e%2e", True)
def test_what_passes_means_what_was_judged(written: bytes, given_raw: bool) -> None:
    """A path that passes decodes to the checked path, without dot segments, new slashes or unsafe bytes."""
    tail = decoded(written)
    raw = raw_tail(tail, b"/openai/" + written if given_raw else None)
    if raw is None:
        return
    assert unquote_to_bytes(raw).decode() == tail
    assert raw.isascii()
    assert raw.isprintable()
    assert not set(raw) & set(' "<>\\^`{|}?#[]')
    for form in (raw, tail, unquote_to_bytes(unquote_to_bytes(raw)).decode()):
        assert not {"", ".", ".."} & {segment.partition(";")[0] for segment in form.split("/")}
    assert raw.count("/") == tail.count("/")
    assert "%2f" not in raw.lower()
