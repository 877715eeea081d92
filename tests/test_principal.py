"""The values a principal accepts: anything that a record cannot hold is refused when the principal is made."""

import dataclasses
import enum
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from fastapi_aibridge import ConfigurationError, Principal
from fastapi_aibridge.errors import PrincipalError
from fastapi_aibridge.principal import MAX_DEPTH, MAX_ID, MAX_METADATA, MAX_SESSION_KEY
from fastapi_aibridge.recorder.text import dump

NO_TEXT = [None, 5, True, 1.5, uuid.UUID(int=1), b"alice", ("a", "b"), ["a"], {"a": 1}, object()]


@pytest.mark.parametrize("field", ["initiator_id", "api_key_id"])
@pytest.mark.parametrize("value", NO_TEXT, ids=lambda one: type(one).__name__)
def test_ids_are_text(field: str, value: Any) -> None:
    """An id that is no `str` is refused by an error that names the field, the type and the remedy."""
    ids: dict[str, Any] = {"initiator_id": "alice", field: value}
    with pytest.raises(
        PrincipalError, match=rf"^{field} of a Principal must be a str, not {type(value).__name__}"
    ) as e:
        Principal(**ids)
    assert isinstance(e.value, ConfigurationError)
    assert isinstance(e.value, ValueError)
    assert not e.value.by_caller
    assert "str()" in str(e.value)


@pytest.mark.parametrize("field", ["initiator_id", "api_key_id"])
@pytest.mark.parametrize("value", ["\0", "a\0b", "\ud800", "é\udfff", "a" * (MAX_ID + 1), "é" * (MAX_ID + 1)])
def test_ids_that_no_database_takes(field: str, value: str) -> None:
    """NUL, lone surrogates and text too long for an index are refused as an error of the caller."""
    with pytest.raises(PrincipalError, match=f"^{field} of a Principal ") as e:
        Principal(**{"initiator_id": "alice", field: value})  # type: ignore[arg-type]
    assert e.value.by_caller
    str(e.value).encode()


@pytest.mark.parametrize("value", ["", "a" * MAX_ID, "zoë", "名前", "\U0001f600" * MAX_ID, "a b|c\n"])
def test_ids_that_are_right(value: str) -> None:
    """Any other text is accepted as an id."""
    assert Principal(value, value).key == (value, value)


def test_a_subclass_of_str_becomes_plain() -> None:
    """A member of a string enum stands for its value."""

    class Role(enum.StrEnum):
        ADMIN = "admin"

    class Loud(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "LOUD"

    principal = Principal(Role.ADMIN, Loud("x"))
    assert [type(one) for one in principal.key] == [str, str]
    assert principal.key == ("admin", "x")


@pytest.mark.parametrize("value", [5, b"s", ["s"], "s" * (MAX_SESSION_KEY + 1), SecretStr("s" * (MAX_SESSION_KEY + 1))])
def test_session_keys(value: Any) -> None:
    """A session key is text of bounded length, and no error shows it."""
    with pytest.raises(PrincipalError, match=r"^session_key of a Principal ") as e:
        Principal("alice", session_key=value)
    assert "sss" not in str(e.value)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def circular() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["me"] = value
    return value


WRONG_METADATA: dict[str, Any] = {
    "no mapping": [("a", 1)],
    "none": None,
    "text": "a",
    "a set": {"a": {1}},
    "bytes": {"a": b"x"},
    "an id": {"a": uuid.UUID(int=1)},
    "an object": {"a": [object()]},
    "nan": {"a": float("nan")},
    "infinity": {"a": {"b": float("-inf")}},
    "a large number": {"a": 2**63},
    "a number as key": {1: "a"},
    "none as key": {"a": {None: 1}},
    "nul": {"a": "x\0"},
    "nul in a key": {"x\0": 1},
    "a surrogate": {"a": ["\ud800"]},
    "a surrogate as key": {"a": {"\ud800": 1}},
    "too deep": {"a": nested(MAX_DEPTH)},
    "circular": circular(),
    "too long": {"a": "x" * MAX_METADATA},
    "too many": {str(n): n for n in range(MAX_METADATA // 8)},
    "a long list": {"a": [1] * MAX_METADATA},
    "long keys": {"x" * 9000: 1, "y" * 9000: 1},
    "another mapping inside": {"a": MappingProxyType({})},
}


@pytest.mark.parametrize("metadata", WRONG_METADATA.values(), ids=WRONG_METADATA)
def test_metadata_that_no_record_can_hold(metadata: Any) -> None:
    """Metadata is a mapping of JSON values within bounds."""
    with pytest.raises(PrincipalError, match=r"metadata of a Principal ") as e:
        Principal("alice", metadata=metadata)
    str(e.value).encode()


RIGHT_METADATA: list[Mapping[str, Any]] = [
    {},
    MappingProxyType({"team": "x"}),
    {"a": None, "b": True, "c": 2**63 - 1, "d": -(2**63), "e": 1.5, "f": ["x", {"g": ()}], "": "é"},
    {"a": nested(MAX_DEPTH - 1)},
    {"a": "x" * (MAX_METADATA - 10)},
]


@pytest.mark.parametrize("metadata", RIGHT_METADATA)
def test_metadata_that_is_right(metadata: Mapping[str, Any]) -> None:
    """Accepted metadata can be written."""
    assert dump(dict(Principal("alice", metadata=metadata).metadata))


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(text, json_values))
def test_any_small_json_object_is_metadata(metadata: dict[str, Any]) -> None:
    """Every JSON object of ordinary size is accepted and can be written."""
    assert dump(dict(Principal("alice", metadata=metadata).metadata))


def test_a_copy_is_checked_too() -> None:
    """`dataclasses.replace` is checked like the constructor."""
    with pytest.raises(PrincipalError):
        dataclasses.replace(Principal("alice"), initiator_id=None)  # type: ignore[arg-type]


def test_same_session() -> None:
    """Session keys are compared by value, whether they are plain or a `SecretStr`."""
    one, same, other = (Principal("a", session_key=key) for key in ("k", SecretStr("k"), "l"))
    none = Principal("b")
    assert one.has_session_of(same)
    assert none.has_session_of(Principal("a"))
    assert not one.has_session_of(other)
    assert not none.has_session_of(one)
    assert "k" not in repr(one.session)


@pytest.mark.parametrize("field", ["groups", "models"])
@pytest.mark.parametrize("value", ["staff", 5, b"staff", {"a": 1}, [5], [None], ["a", b"b"], object()])
def test_groups_and_models_are_sequences_of_text(field: str, value: Any) -> None:
    """Other types are refused, a single string too: it would be taken as a sequence of letters."""
    with pytest.raises(PrincipalError, match=f"^{field} of a Principal ") as e:
        Principal(**{"initiator_id": "alice", field: value})
    assert not e.value.by_caller


@pytest.mark.parametrize("value", [["\0"], ["\ud800"], ["a" * 513], [str(n) for n in range(129)]])
@pytest.mark.parametrize("field", ["groups", "models"])
def test_groups_and_models_are_bounded(field: str, value: list[str]) -> None:
    """Values over the bounds are an error of the caller, because an identity provider may have sent them."""
    with pytest.raises(PrincipalError, match=f"^{field} of a Principal ") as e:
        Principal(**{"initiator_id": "alice", field: value})  # type: ignore[arg-type]
    assert e.value.by_caller


def test_groups_and_models_are_kept_as_they_cannot_change() -> None:
    """Groups and models are stored as tuples without duplicates, whatever sequence was given."""
    given = ["staff", "staff", "ops"]
    principal = Principal("alice", groups=given, models=frozenset({"gpt-5"}))  # type: ignore[arg-type]
    given.clear()
    assert (principal.groups, principal.models) == (("staff", "ops"), ("gpt-5",))
    assert Principal("alice").groups == ()
    assert Principal("alice").models is None
    with pytest.raises(PrincipalError):
        Principal("alice", models=[""])


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [
        (None, "anything", True),
        ((), "gpt-5", False),
        (["gpt-5"], "gpt-5", True),
        (["gpt-5"], "GPT-5", False),
        (["gpt-5"], "gpt-5-pro", False),
        (["gpt-5"], "my-gpt-5", False),
        (["gpt-*"], "gpt-5-mini", True),
        (["gpt-*"], "gpt-5\nx", True),
        (["claude-*", "gpt-5*"], "gpt-5-mini", True),
        (["claude-[so]*"], "claude-opus-4-8", True),
        (["claude-opus-4-8[1m]"], "claude-opus-4-8[1m]", True),
        (["gpt-?"], "gpt-5", True),
        (["(gpt|claude)-5"], "gpt-5", False),
        (["*"], "", True),
    ],
)
def test_models(patterns: Any, model: str, allowed: bool) -> None:
    """Models are `fnmatch` patterns that respect case; a pattern also matches the model of exactly that name."""
    assert Principal("alice", models=patterns).allows(model) is allowed


def test_hostile_patterns_match_in_linear_time() -> None:
    """Matching a pattern with many stars takes no exponential time."""
    assert not Principal("alice", models=["*a" * 128]).allows("a" * 100 + "b" * 156)
