"""Where callers put their credentials, and whose they are."""

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
    """A bearer token, the scheme in any case, or else `X-Api-Key`; such a request brings no key of its own."""
    assert caller_token(headers) == token
    assert byok_key(headers) is None


def test_with_a_token_of_ours_the_others_are_the_providers() -> None:
    """`X-AIBridge-Token` authenticates alone; an empty one authenticates nobody."""
    headers = {b"x-aibridge-token": b" t ", b"authorization": b"Bearer sk-own", b"x-api-key": b"other"}
    assert (caller_token(headers), byok_key(headers)) == (b"t", "sk-own")
    headers = {b"x-aibridge-token": b"", b"x-api-key": b"sk-own"}
    assert (caller_token(headers), byok_key(headers)) == (None, "sk-own")
    assert byok_key({b"x-aibridge-token": b"t"}) is None


def test_client_keys() -> None:
    """A key is plain or a digest in the settings, and always plain when it is sent."""
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
    """Only digests are: no dump of the process's objects gives a key away."""
    keys = ClientKeys({"alice": [SecretStr("k-alice")]})
    assert "k-alice" not in repr(vars(keys))


def test_without_client_keys_nobody_is_known() -> None:
    """Not even with an empty token."""
    assert ClientKeys({}).principal(b"") is None
    assert ClientKeys({}).principal(b"x") is None


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a comparison takes says nothing of the secret."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert same_token(b"secret", SecretStr("secret"))
    assert not same_token(b"secreT", SecretStr("secret"))
    assert compared == [(b"secret", b"secret"), (b"secreT", b"secret")]


def test_an_empty_secret_lets_nobody_in() -> None:
    """A secret that was forgotten is not one that everybody knows."""
    assert not same_token(b"", SecretStr(""))
    assert not same_token(None, SecretStr(""))
    assert not same_token(b"x", SecretStr(""))
    assert same_token("schlüssel".encode(), SecretStr("schlüssel"))
