"""Secrets in what others say."""

from __future__ import annotations

import json
import pickle
import time

import pytest

from fastapi_aibridge.masking import Masker, hint, secrets_in_headers

KEY = "sk-of-the-organisation-1234"


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        (KEY, f"Incorrect API key provided: {KEY}. You can find"),
        ('p"w\\d-0123456789ab', json.dumps({"message": 'no p"w\\d-0123456789ab'})),
        ("a+b/c=d-0123456789", "GET /v1?key=a%2Bb%2Fc%3Dd-0123456789"),
        ("short", "a short one"),
    ],
)
def test_texts(secret: str, said: str) -> None:
    """A secret is found as it is, as JSON writes it, and as a URL does."""
    text = Masker([secret]).text(said)
    for form in (secret, json.dumps(secret)[1:-1]):
        assert form not in text
    assert hint(secret) in text


def test_json_at_any_depth() -> None:
    """In names, in values, in lists; all else stays, in its order, and the original is not touched."""
    value = {"b": [1, None, f"x {KEY}", {"c": (KEY, True)}], KEY: {"d": 1.5}, "a": "plain"}
    before = repr(value)
    masked = Masker([KEY]).json(value)
    assert masked == {"b": [1, None, f"x {hint(KEY)}", {"c": [hint(KEY), True]}], hint(KEY): {"d": 1.5}, "a": "plain"}
    assert list(masked) == ["b", hint(KEY), "a"]
    assert repr(value) == before


def test_what_holds_no_secret_is_the_same_object() -> None:
    """Nearly everything that comes holds none: nothing is copied."""
    value = {"a": ["x", {"b": "y"}]}
    assert Masker([KEY]).json(value) is value
    text = "nothing here"
    assert Masker([KEY]).text(text) is text
    assert Masker([]).json(value) is value
    assert Masker([""]).text("") == ""


def test_nesting_deeper_than_python_calls() -> None:
    """A provider chooses how deep its arguments are nested."""
    deep: object = KEY
    for _ in range(50_000):
        deep = [deep]
    masked = Masker([KEY]).json(deep)
    while isinstance(masked, list):
        (masked,) = masked
    assert masked == hint(KEY)
    while isinstance(deep, list):  # taken apart by hand, as freeing it at once would recurse
        (deep,) = deep


def test_a_secret_that_begins_another_does_not_unmask_it() -> None:
    """Also where the longer one came later."""
    short, long = "sk-key-0123456789", "sk-key-0123456789-and-more"
    assert Masker([short]).including(long).text(long) == hint(long)
    assert Masker([short, long]).text(f"{long} {short}") == f"{hint(long)} {hint(short)}"


def test_header_values() -> None:
    """The scheme is no secret; what is short would garble ordinary words."""
    assert secrets_in_headers(["Bearer abcdefgh", "eu", "token-1234"]) == ["abcdefgh", "token-1234"]


def test_time_grows_with_the_text() -> None:
    """Four times the text takes about four times as long."""
    masker = Masker([KEY, "another-secret-value"])

    def seconds(size: int) -> float:
        text, value = (KEY + "sk-of-the-organisation-") * size, [{"a": "b" * 20}] * size
        begun = time.thread_time()
        masker.text(text)
        masker.json(value)
        return time.thread_time() - begun

    seconds(1000)
    assert min(seconds(40_000) for _ in range(5)) < 8 * min(seconds(10_000) for _ in range(5))


def test_a_masker_does_not_show_what_it_masks() -> None:
    """It holds every key there is, in one place."""
    masker = Masker([KEY])
    assert KEY not in repr(masker)
    assert KEY.encode() not in pickle.dumps(masker)
