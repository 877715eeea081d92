"""The credentials of a request: where callers put them, and which principal they belong to."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from pydantic import SecretStr

from fastapi_aibridge.credentials import ClientKeys, byok_key, caller_token, same_token
from fastapi_aibridge.principal import Principal


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({b"authorization": b"Bearer k"}, b"k"),
        ({b"authorization": b"bEARER   k  "}, b"k"),
        ({b"authorization": b"Bearer a b"}, b"a b"),
        ({b"x-api-key": b" k "}, b"k"),
        ({b"authorization": b"Bearer a", b"x-api-key": b"b"}, b"a"),
        ({b"authorization": b"Basic a", b"x-api-key": b"b"}, b"b"),
        ({b"authorization": b"Bearer ", b"x-api-key": b"b"}, b"b"),
        ({b"authorization": b"Bearer"}, None),
        ({b"authorization": b"k"}, None),
        ({b"authorization": b"Bearer "}, None),
        ({b"x-api-key": b" "}, None),
        ({}, None),
    ],
)
def test_the_callers_token(headers: dict[bytes, bytes], token: bytes | None) -> None:
    """The token is a bearer token, its scheme in any case, or else `X-Api-Key`; neither is a key for the provider."""
    assert caller_token(headers) == token
    assert byok_key(headers) is None


def test_with_a_token_of_ours_the_others_are_the_providers() -> None:
    """With `X-AIBridge-Token`, even an empty one, the other headers hold the caller's own provider key."""
    headers = {b"x-aibridge-token": b" t ", b"authorization": b"Bearer sk-own", b"x-api-key": b"other"}
    assert (caller_token(headers), byok_key(headers)) == (b"t", "sk-own")
    headers = {b"x-aibridge-token": b"", b"x-api-key": b"sk-own"}
    assert (caller_token(headers), byok_key(headers)) == (None, "sk-own")
    assert byok_key({b"x-aibridge-token": b"t"}) is None


def test_client_keys() -> None:
    """The settings name a client key in plain or as a digest; clients always send it in plain."""
    digest = hashlib.sha256(b"k-bob").hexdigest()
    keys = ClientKeys(
        {"alice": [SecretStr("k-alice"), SecretStr("k-new")], "bob": [SecretStr(f"sha256:{digest.upper()}")]}
    )
    assert keys.principal(b"k-alice") == Principal("alice")
    assert keys.principal(b"k-new") == Principal("alice")
    assert keys.principal(b"k-bob") == Principal("bob")
    for wrong in (b"k-carol", b"", None, f"sha256:{digest}".encode(), digest.encode(), b"K-ALICE"):
        assert keys.principal(wrong) is None


def test_client_keys_are_not_kept() -> None:
    """Only digests are kept: a dump of the process's objects reveals no key."""
    keys = ClientKeys({"alice": [SecretStr("k-alice")]})
    assert "k-alice" not in repr(vars(keys))


def test_without_client_keys_nobody_is_known() -> None:
    """Without client keys every token is refused, an empty one too."""
    assert ClientKeys({}).principal(b"") is None
    assert ClientKeys({}).principal(b"x") is None


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a comparison reveals nothing about the secret."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert same_token(b"secret", SecretStr("secret"))
    assert not same_token(b"secreT", SecretStr("secret"))
    assert compared == [(b"secret", b"secret"), (b"secreT", b"secret")]


def test_an_empty_secret_lets_nobody_in() -> None:
    """An empty secret in the settings matches no token."""
    assert not same_token(b"", SecretStr(""))
    assert not same_token(None, SecretStr(""))
    assert not same_token(b"x", SecretStr(""))
    assert same_token("schlüssel".encode(), SecretStr("schlüssel"))
