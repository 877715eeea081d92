"""Administrators' mistakes and failures when providers are managed by the routes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text

from fastapi_aibridge import AIBridge, Settings
from fastapi_aibridge.recorder.sql import SQLRecorder

from .apps import ADMIN, Model
from .test_admin_answers import check
from .test_managed_routes import FILES, HOUSE, SECRET_KEY, ask, house, served


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'records.db'}"


def test_what_was_read_may_be_written_back(model: Model, url: str) -> None:
    """A body that was read can be written back: its hints keep the stored secrets."""
    headers = {"X-Team": "team-secret-of-the-house", "X-Short": "short"}
    keys = ["sk-first-key-is-secret", "sk-second-key-is-too"]
    with TestClient(served(model, url)) as client:
        client.put(HOUSE, json=house(model, api_key=None, api_keys=keys, extra_headers=headers), headers=ADMIN)
        read = client.get(HOUSE, headers=ADMIN).json()["settings"]
        for method in ("PUT", "PATCH"):
            assert client.request(method, HOUSE, json={**read, "read_timeout": 5}, headers=ADMIN).status_code == 200
            assert ask(client) == 200
            sent = model.received[-1].headers
            assert sent["authorization"].removeprefix("Bearer ") in keys
            assert (sent["x-team"], sent["x-short"]) == (headers["X-Team"], "short")
        one_less = {**read, "api_keys": read["api_keys"][1:]}
        assert client.put(HOUSE, json=one_less, headers=ADMIN).status_code == 200
        assert ask(client) == 200
        assert model.received[-1].headers["authorization"] == f"Bearer {keys[1]}"


@pytest.mark.parametrize(
    ("place", "body"),
    [
        (HOUSE, {"api_key": "sk-...cret"}),
        (HOUSE, {"api_key": "..."}),
        (HOUSE, {"api_keys": ["sk-...cret"]}),
        (HOUSE, {"extra_headers": {"X-Team": "..."}}),
        (FILES, {"url": "https://files.example/..."}),
    ],
)
def test_a_hint_of_another_secret_is_none(model: Model, url: str, place: str, body: dict[str, Any]) -> None:
    """A hint that does not belong to the stored secret is refused."""
    with TestClient(served(model, url)) as client:
        if place == HOUSE:
            body = house(model, **body)
        refused = client.put(place, json=body, headers=ADMIN)
        assert refused.status_code == 422
        assert "hint" in refused.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    ("given", "status"), [("no", "disabled"), ("false", "disabled"), (0, "disabled"), ("yes", "enabled")]
)
def test_the_status_is_that_in_force(model: Model, url: str, given: object, status: str) -> None:
    """`enabled` may be written as in the environment; the status tells what it means."""
    with TestClient(served(model, url)) as client:
        assert client.put(HOUSE, json=house(model, enabled=given), headers=ADMIN).json()["status"] == status
        assert client.get(HOUSE, headers=ADMIN).json()["status"] == status
        assert ask(client) == (404 if status == "disabled" else 200)


@pytest.mark.parametrize(
    "change", [{"max_retries": True}, {"read_timeout": False}, {"circuit_breaker": {"max_requests": True}}]
)
def test_true_is_no_number(model: Model, url: str, change: dict[str, Any]) -> None:
    with TestClient(served(model, url)) as client:
        refused = client.put(HOUSE, json=house(model, **change), headers=ADMIN)
        assert (refused.status_code, "true or false" in refused.text) == (422, True)


@pytest.mark.parametrize("lines", [["{tag}"], ["W/{tag}"], ['"x", W/{tag}'], ['"x"', "{tag}"], ["*"]])
def test_what_if_none_match_names_is_not_replaced(model: Model, url: str, lines: list[str]) -> None:
    """Tags are compared as RFC 9110 says: weakly here, and in all lines of the header."""
    with TestClient(served(model, url)) as client:
        tag = client.put(HOUSE, json=house(model), headers=ADMIN).headers["etag"]
        sent = [*ADMIN.items(), *(("If-None-Match", line.format(tag=tag)) for line in lines)]
        assert client.put(HOUSE, json=house(model), headers=sent).status_code == 412


PEM = "-----BEGIN PRIVATE KEY-----\nMIIEsecretsecretsecret\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "change",
    [
        {"client_cert": PEM},
        {"ca_file": PEM},
        {"client_cert": "/" + "x" * 100_000},
        {"pass_through": ["x" * 100_000]},
        {"extra_headers": {"x" * 100_000 + " ": ""}},
    ],
)
def test_a_refusal_repeats_no_secret_and_nothing_long(model: Model, url: str, change: dict[str, Any]) -> None:
    with TestClient(served(model, url)) as client:
        refused = client.put(HOUSE, json=house(model, **change), headers=ADMIN)
        assert (refused.status_code, "secretsecret" in refused.text) == (422, False)
        assert len(refused.content) < 2000
        assert refused.json()["detail"][0]["loc"][:2] == ["body", next(iter(change))]


def test_if_match_in_two_lines(model: Model, url: str) -> None:
    with TestClient(served(model, url)) as client:
        tag = client.put(HOUSE, json=house(model), headers=ADMIN).headers["etag"]
        sent = [*ADMIN.items(), ("If-Match", '"x"'), ("If-Match", tag)]
        assert client.put(HOUSE, json=house(model), headers=sent).status_code == 200
        sent = [*ADMIN.items(), ("If-Match", f"W/{tag}")]
        assert client.put(HOUSE, json=house(model), headers=sent).status_code == 412


def test_a_header_is_there_once(model: Model, url: str) -> None:
    """Header names that differ only in case are refused, because the provider would get both."""
    with TestClient(served(model, url)) as client:
        client.put(HOUSE, json=house(model, extra_headers={"X-Team": "one"}), headers=ADMIN)
        refused = client.patch(HOUSE, json={"extra_headers": {"x-team": "two"}}, headers=ADMIN)
        assert (refused.status_code, "twice" in refused.text) == (422, True)


def test_what_is_below_a_member_is_patched_too(model: Model, url: str) -> None:
    """PATCH merges nested members as in RFC 7396, so that unreadable headers need not be sent again."""
    with TestClient(served(model, url)) as client:
        client.put(HOUSE, json=house(model, extra_headers={"X-One": "1", "X-Two": "2"}), headers=ADMIN)
        change = {"extra_headers": {"X-Two": None, "X-Three": "3"}, "circuit_breaker": {"timeout": 5}}
        assert client.patch(HOUSE, json=change, headers=ADMIN).status_code == 200
        change = {"circuit_breaker": {"max_requests": 1}}
        changed = client.patch(HOUSE, json=change, headers=ADMIN).json()
        assert changed["settings"]["circuit_breaker"] == {"timeout": 5, "max_requests": 1}
        ask(client)
        sent = model.received[-1].headers
        assert (sent["x-one"], sent["x-three"], "x-two" in sent) == ("1", "3", False)


def test_a_patch_of_what_cannot_be_read_takes_no_secret_away(model: Model, url: str) -> None:
    with TestClient(served(model, url)) as client:
        client.put(HOUSE, json=house(model), headers=ADMIN)
    with TestClient(served(model, url, secret_keys=[])) as client:
        refused = client.patch(HOUSE, json={"enabled": False}, headers=ADMIN)
        assert refused.status_code == 422
        assert "AIBRIDGE_SECRET_KEYS" in refused.text
    with TestClient(served(model, url)) as client:
        assert ask(client) == 200


@pytest.mark.parametrize("name", ["%00", "a%00b", "%ED%A0%80", "House", "x" * 200, "%2e%2e"])
def test_names_that_nothing_can_have(model: Model, url: str, name: str) -> None:
    with TestClient(served(model, url)) as client:
        for place in ("providers", "mcp-servers"):
            for method, statuses in (("GET", {404}), ("PATCH", {404}), ("DELETE", {404}), ("PUT", {404, 422})):
                answer = client.request(method, f"/ai/admin/{place}/{name}", json=house(model), headers=ADMIN)
                assert answer.status_code in statuses, (method, answer.text)


def test_an_app_that_has_mcp_servers_of_its_own(model: Model, url: str) -> None:
    """If the app builds its own MCP servers, one in the database would never be used, so it is refused."""

    class Builder:
        def build(self, _: Any) -> list[Any]:
            return []

    app = FastAPI()
    settings = model.settings(managed=True, secret_keys=[SECRET_KEY])
    app.include_router(AIBridge(settings, recorder=SQLRecorder(url), mcp=Builder()).router, prefix="/ai")
    with TestClient(app) as client:
        assert client.put(FILES, json={"url": "http://127.0.0.1:9"}, headers=ADMIN).status_code == 409


def test_a_provider_that_cannot_be_built(model: Model, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that is invalid in this environment is refused, and disables no other if it is already stored."""
    with TestClient(served(model, url)) as client:
        assert client.put(HOUSE, json=house(model, proxy="env"), headers=ADMIN).status_code == 200
        assert client.get(HOUSE, headers=ADMIN).json()["settings"]["proxy"] == "env"
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:9")
    with TestClient(served(model, url)) as client:
        states = {
            one["name"]: one["status"] for one in client.get("/ai/admin/providers", headers=ADMIN).json()["items"]
        }
        assert states == {"openai": "enabled", "anthropic": "enabled", "house": "error"}
        assert "a proxy is a URL" in client.get(HOUSE, headers=ADMIN).json()["error"]
        other = client.put("/ai/admin/providers/other", json=house(model, proxy="env"), headers=ADMIN)
        assert other.status_code == 422
        assert client.get("/ai/admin/providers/other", headers=ADMIN).status_code == 404


def test_an_mcp_server_that_cannot_be_used_says_so(model: Model, url: str) -> None:
    with TestClient(served(model, url)) as client:
        client.put(FILES, json={"url": "http://127.0.0.1:9"}, headers=ADMIN)
        engine = create_engine(url.replace("+aiosqlite", ""))
        with engine.begin() as connection:
            connection.execute(text('UPDATE aibridge_managed_settings SET settings = \'{"tool_allow": "("}\''))
        engine.dispose()
        (item,) = client.get("/ai/admin/mcp-servers", headers=ADMIN).json()["items"]
        assert "tool_allow" in item["error"]


def test_a_change_is_kept_also_where_the_settings_cannot_be_read(model: Model, url: str) -> None:
    """If the settings cannot be read, the response says that the change is stored but not in force."""
    broken = False

    def read() -> Settings:
        if broken:
            raise ValueError("secret")
        return model.settings(managed=True, secret_keys=[SECRET_KEY])

    app = FastAPI()
    app.include_router(model.bridge(settings=read, recorder=SQLRecorder(url)).router, prefix="/ai")
    with TestClient(app) as client:
        broken = True
        answer = client.put(HOUSE, json=house(model), headers=ADMIN)
        assert answer.status_code == 503
        assert "stored, but not in force" in answer.json()["detail"]
        assert "secret" not in answer.text
        reloaded = client.post("/ai/admin/reload", headers=ADMIN)
        assert (reloaded.status_code, "secret" in reloaded.text) == (503, False)
        broken = False
        assert client.post("/ai/admin/reload", headers=ADMIN).status_code == 200
        assert ask(client) == 200


def test_the_answer_says_on_how_many_workers_it_is_in_force(model: Model, url: str) -> None:
    app = served(model, url)
    with TestClient(app) as client:
        for method in ("PUT", "PATCH"):
            answer = client.request(method, HOUSE, json=house(model), headers=ADMIN)
            check(app.openapi(), method, "/admin/providers/{name}", 200, answer.json())
            assert answer.json()["workers"] == {"applied": 1, "failed": [], "silent": 0}


def test_the_audit_tells_two_keys_apart(model: Model, url: str) -> None:
    with TestClient(served(model, url)) as client:
        client.put(HOUSE, json=house(model, api_key="sk-the-old-secret-1111"), headers=ADMIN)
        client.patch(HOUSE, json={"api_key": "sk-the-new-secret-2222"}, headers=ADMIN)
        (changed, made) = client.get("/ai/admin/audit", headers=ADMIN).json()["items"]
        assert made["after"]["api_key"] == changed["before"]["api_key"] == "sk-...1111"
        assert changed["after"]["api_key"] == "sk-...2222"


def test_a_change_is_one_version_and_one_reload(model: Model, url: str) -> None:
    """A change is one version and one reload, because each reload retires all bridges."""
    with TestClient(served(model, url)) as client:

        def state() -> tuple[int, int]:
            (worker,) = client.get("/ai/admin/workers", headers=ADMIN).json()["items"]
            return worker["config_version"], worker["provider_version"]

        config, providers = state()
        assert client.put(HOUSE, json=house(model), headers=ADMIN).status_code == 200
        assert state() == (config + 1, providers + 1)
        assert client.delete(HOUSE, headers=ADMIN).status_code == 204
        time.sleep(1.2)  # for the next look at the version
        assert state() == (config + 2, providers + 2)
