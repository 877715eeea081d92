"""Secrets in the settings, and all the ways in which an object can reveal them."""

from __future__ import annotations

import base64
import copy
import pickle
import pprint

import pytest

from fastapi_aibridge.masking import MASK, masked_secret
from fastapi_aibridge.settings import Settings

S = "s3cret"
FERNET = base64.urlsafe_b64encode(S.encode().ljust(32)).decode()


def settings() -> Settings:
    """Settings with a secret in every member that can hold one."""
    return Settings(
        providers={
            "openai": {
                "api_key": S,
                "api_keys": [f"{S}-2"],
                "extra_headers": {"X-Key": f"a {S}"},
                "proxy": f"http://u:{S}@proxy:3128",
            }
        },
        mcp_servers={"files": {"url": f"https://h/{S}/mcp", "headers": {"Authorization": f"Bearer {S}"}}},
        client_keys={"alice": [f"{S}-3", f"{S}-4"]},
        admin_token=f"{S}-5",
        metrics_token=f"{S}-6",
        audit_token=f"{S}-7",
        redis_url=f"redis://:{S}@h",
        secret_keys=[FERNET],
        recorder={"url": f"postgresql+asyncpg://u:{S}@h/d"},
    )


def test_nothing_secret_is_shown() -> None:
    """No repr, dump or pickle contains a secret."""
    one = settings()
    for shown in (
        repr(one),
        str(one),
        pprint.pformat(one),
        repr(one.model_dump()),
        repr(one.model_dump(mode="json")),
        one.model_dump_json(),
        repr(dict(one)),
        repr(one.mcp_servers["files"].model_dump(mode="json")),
        repr(vars(one)),
    ):
        assert S not in shown
        assert FERNET not in shown
    assert S.encode() not in pickle.dumps(one)
    assert FERNET.encode() not in pickle.dumps(one)
    assert one.model_dump(mode="json")["mcp_servers"]["files"] == {
        "url": MASK,
        "headers": {"Authorization": MASK},
        "tool_allow": None,
        "tool_deny": None,
    }


def test_the_vendors_variable_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key from the vendor's variable is not pickled either."""
    monkeypatch.setenv("OPENAI_API_KEY", S)
    assert S.encode() not in pickle.dumps(Settings(providers={"openai": {}}))


def test_copies_keep_their_secrets() -> None:
    """Copies within the process keep their secrets."""
    one = settings()
    assert copy.deepcopy(one) == copy.copy(one) == one.model_copy(deep=True) == one
    secret = copy.deepcopy(one).admin_token
    assert secret is not None
    assert secret.get_secret_value() == f"{S}-5"
    assert copy.copy(masked_secret(S)).get_secret_value() == S
