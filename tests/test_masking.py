"""Masking of secrets in texts and JSON that others wrote."""

from __future__ import annotations

import json
import pickle

import pytest

from fastapi_aibridge.masking import Masker, hint, secrets_in_headers
from tests import processor_time

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
    """A secret is masked in its plain form, in its JSON form and in its URL-encoded form."""
    text = Masker([secret]).text(said)
    for form in (secret, json.dumps(secret)[1:-1]):
        assert form not in text
    assert hint(secret) in text


def test_json_at_any_depth() -> None:
    """Names, values and lists are masked; everything else keeps its order, and the original is not changed."""
    value = {"b": [1, None, f"x {KEY}", {"c": (KEY, True)}], KEY: {"d": 1.5}, "a": "plain"}
    before = repr(value)
    masked = Masker([KEY]).json(value)
    assert masked == {"b": [1, None, f"x {hint(KEY)}", {"c": [hint(KEY), True]}], hint(KEY): {"d": 1.5}, "a": "plain"}
    assert list(masked) == ["b", hint(KEY), "a"]
    assert repr(value) == before


def test_what_holds_no_secret_is_the_same_object() -> None:
    """A value without secrets, the usual case, is returned without a copy."""
    value = {"a": ["x", {"b": "y"}]}
    assert Masker([KEY]).json(value) is value
    text = "nothing here"
    assert Masker([KEY]).text(text) is text
    assert Masker([]).json(value) is value
    assert Masker([""]).text("") == ""


def test_nesting_deeper_than_python_calls() -> None:
    """JSON nested deeper than Python's recursion limit is masked: the provider chooses the nesting."""
    deep: object = KEY
    for _ in range(50_000):
        deep = [deep]
    masked = Masker([KEY]).json(deep)
    while isinstance(masked, list):
        (masked,) = masked
    assert masked == hint(KEY)
    while isinstance(deep, list):  # taken apart by hand, because freeing it at once would recurse
        (deep,) = deep


def test_a_secret_that_begins_another_does_not_unmask_it() -> None:
    """A secret that is the beginning of a longer one does not unmask its rest, in whichever order they are added."""
    short, long = "sk-key-0123456789", "sk-key-0123456789-and-more"
    assert Masker([short]).including(long).text(long) == hint(long)
    assert Masker([short, long]).text(f"{long} {short}") == f"{hint(long)} {hint(short)}"


def test_header_values() -> None:
    """Header values are secrets without their scheme; short ones are left out, because they occur in ordinary words."""
    assert secrets_in_headers(["Bearer abcdefgh", "eu", "token-1234"]) == ["abcdefgh", "token-1234"]


def test_time_grows_with_the_text() -> None:
    """Masking a text four times as long takes less than eight times as long."""
    masker = Masker([KEY, "another-secret-value"])

    def seconds(size: int) -> float:
        text, value = (KEY + "sk-of-the-organisation-") * size, [{"a": "b" * 20}] * size
        return processor_time.of(lambda: (masker.text(text), masker.json(value)))

    seconds(1000)
    assert processor_time.growth(seconds, 10_000, 40_000, 8) < 8


def test_a_masker_does_not_show_what_it_masks() -> None:
    """A masker's representation and pickle show none of the keys that it holds."""
    masker = Masker([KEY])
    assert KEY not in repr(masker)
    assert KEY.encode() not in pickle.dumps(masker)
