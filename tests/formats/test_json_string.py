"""Decoding of long JSON strings in steps."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_aibridge.formats import json_string
from fastapi_aibridge.formats.json_string import decoding
from fastapi_aibridge.formats.scanner import finish

PIECES = st.sampled_from(["a", "\\\\", '\\"', "\\n", "\\u00e4", "\\ud83d\\ude00", "\u00e4", "\U0001f600", "u", "d83d"])


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=60), st.integers(12, 40))
def test_a_string_is_what_it_is_in_one_piece(pieces: list[str], size: int) -> None:
    """The result is the same wherever the steps cut: in backslashes, surrogate pairs or characters of several bytes."""
    written = '"' + "".join(pieces) + '"'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_string, "_PIECE", size)
        text = b"xx" + written.encode() + b"xx"
        assert finish(decoding(text, 2, len(text) - 2, 2**20)) == (json.loads(written), False)


def test_what_is_kept_has_a_bound() -> None:
    """The text is cut at a whole character within the given number of bytes, and the rest is not read."""
    written = ('"' + "\u00e4" * 100_000 + '\\q"').encode()
    assert finish(decoding(written, 0, len(written), 1001)) == ("\u00e4" * 500, True)


@pytest.mark.parametrize("wrong", [b"\\q", b"\\u12", b"\\ud83d", b"\\", b"\n", b"\xff"])
@pytest.mark.parametrize("before", [b"", b"x" * 100_000, b"\\\\" * 50_000])
def test_what_is_no_string_is_refused(wrong: bytes, before: bytes) -> None:
    """An invalid string is refused wherever the fault is."""
    text = b'"' + before + wrong + b'"'
    with pytest.raises(ValueError, match=r"."):
        finish(decoding(text, 0, len(text), 2**30))
