"""Large texts that are built, read and freed in steps."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Generator, Iterator

import pytest

from fastapi_aibridge.formats import edits, large_text
from fastapi_aibridge.formats.large_text import LARGE, STEP, LargeText, TextBuilder, contains, joined
from fastapi_aibridge.formats.scanner import finish


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Generator[None, None, None]]]:
    """The generators that free the memory of texts, one for each text."""
    found: list[Generator[None, None, None]] = []
    monkeypatch.setattr(LargeText, "give_back", found.append)
    yield found
    found.clear()


def large(text: bytes) -> LargeText:
    made = finish(joined([memoryview(text)]))
    assert isinstance(made, LargeText)
    return made


def test_a_small_text_is_plain() -> None:
    """A small text is plain bytes, and a single piece is returned without a copy."""
    assert finish(joined([b"a", memoryview(b"bc")])) == b"abc"
    whole = b"x" * LARGE
    assert finish(joined([whole])) is whole


def test_a_large_text_reads_like_bytes() -> None:
    """A large text is joined in several steps and can be used like bytes."""
    pieces = [b'{"a":', b"1" * 3 * STEP, b"2" * 100] * 4
    whole = b"".join(pieces)
    steps = joined(pieces)
    assert sum(1 for _ in steps) >= len(whole) // STEP - 4
    text = large(whole)
    assert text[:] == whole
    assert len(text) == len(whole)
    assert text.startswith(b'"a"', 1)
    assert not text.startswith(b"1")
    assert re.compile(rb"2+").search(text, 10)
    assert text[-1] == whole[-1]
    assert b"12222" in text
    assert b"3" not in text


@pytest.mark.parametrize("moves_pages", [True, False])
@pytest.mark.parametrize("sizes", [[], [0, 3], [LARGE - 1, 1], [5, LARGE, 7], [100_000] * 50, [LARGE, 9 * LARGE]])
def test_texts_of_sizes_that_nobody_knew(sizes: list[int], moves_pages: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text can be built without knowing its size, on systems that cannot move memory pages too."""
    if not moves_pages:
        monkeypatch.setattr(LargeText, "resize", raising(SystemError), raising=False)
    builder, whole = TextBuilder(), b""
    for number, size in enumerate(sizes):
        piece = bytes([65 + number % 26]) * size
        builder.add(piece)
        whole += piece
        assert builder.size == len(whole)
    text = builder.text()
    assert text[:] == whole
    assert isinstance(text, LargeText) == (len(whole) >= LARGE)


def raising(error: type[Exception]) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("place", [0, STEP - 2, STEP, 2 * STEP - 3, 3 * LARGE - 4])
def test_marks_are_found_wherever_they_stand(place: int) -> None:
    """Marks are found across the border of two steps, but not outside the given range."""
    whole = bytearray(b" " * 3 * LARGE)
    whole[place : place + 4] = b"MARK"
    text = large(bytes(whole))
    assert finish(contains(text, (b"none", b"MARK"), 0, len(text)))
    assert not finish(contains(text, (b"MARK",), 0, place + 3))
    assert not finish(contains(text, (b"MARK",), place + 1, len(text)))


def test_pages_go_when_nobody_refers_to_the_text(given_back: list[Generator[None, None, None]]) -> None:
    """Memory is freed in steps, after the last reference: a connection may still be writing a part."""
    text = large(b"x" * 3 * LARGE)
    written = memoryview(text)[5:10]
    del text
    gc.collect()
    assert not given_back
    assert bytes(written) == b"xxxxx"
    del written
    (steps,) = given_back
    assert sum(1 for _ in steps) == 3
    assert len(given_back) == 1, "it goes once"


@pytest.mark.parametrize("name", ["a", "b", "new"])
def test_edits_of_large_texts_are_those_of_small_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits give the same bytes for large texts as for small ones."""
    whole = b'{"a" : [' + b'{"x":1},' * 200_000 + b'0], "b":"' + b"y" * LARGE + b'"} \n'
    edited = finish(edits.with_member(large(whole), name, b"[1]"))
    assert isinstance(edited, LargeText) == (len(edited) >= LARGE)
    listed = finish(edits.list_member(large(whole), "a"))
    monkeypatch.setattr(large_text, "LARGE", 2**40)
    assert edited[:] == finish(edits.with_member(whole, name, b"[1]"))
    assert listed == [b'{"x":1}'] * 200_000 + [b"0"]
