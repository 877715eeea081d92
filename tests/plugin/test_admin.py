"""The control plane: access, reloads, and reading."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, HTTPException
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from fastapi_aibridge import AIBridge, MemoryRecorder, Provider, Settings, SettingsError
from fastapi_aibridge.providers.building import build_providers

from .apps import ADMIN, ALICE, ASK, CHAT, Model, bearer

ROUTES = [
    ("POST", "/ai/admin/reload"),
    ("GET", "/ai/admin/metrics"),
    ("GET", "/ai/admin/pool"),
    ("GET", "/ai/admin/interceptions"),
    ("GET", "/ai/admin/interceptions/some-id"),
    ("GET", "/ai/admin/providers"),
    ("GET", "/ai/admin/usage"),
    ("GET", "/ai/admin/audit"),
    ("GET", "/ai/admin/client-keys"),
    ("DELETE", "/ai/admin/client-keys/some-id"),
]
each = pytest.mark.parametrize(("method", "path"), ROUTES)


def opened(path: str) -> int:
    """Return the status of a route that is open; without a database some have nothing to show."""
    return 404 if path.endswith(("/some-id", "/audit", "/client-keys")) else 200


def from_environment(registry: CollectorRegistry | None = None) -> FastAPI:
    """An app whose settings come from variables, files and the secrets directory."""
    app = FastAPI()
    app.include_router(AIBridge(recorder=MemoryRecorder(), registry=registry).router, prefix="/ai")
    return app


@pytest.fixture
def environment(model: Model, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {
        "PROVIDERS__OPENAI__BASE_URL": f"{model.url}/v1",
        "PROVIDERS__OPENAI__API_KEY": "sk-from-the-environment",
        "CLIENT_KEYS__ALICE": "k-alice",
        "ADMIN_TOKEN": "t-admin",
        "SHUTDOWN_GRACE": "0",
    }.items():
        monkeypatch.setenv(f"AIBRIDGE_{name}", value)
    return monkeypatch


# Access


@each
def test_no_answer_without_the_token(model: Model, method: str, path: str) -> None:
    """Without the token, or with another one such as a client key, an admin route responds with 401."""
    with TestClient(model.app()) as client:
        for headers in (
            {},
            bearer("t-admim"),
            bearer(""),
            ALICE,
            {"X-Api-Key": "t-admin"},
            {"Authorization": "t-admin"},
        ):
            answer = client.request(method, path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert client.request(method, path, headers=ADMIN).status_code == opened(path)


@each
def test_closed_without_a_configured_token(model: Model, method: str, path: str) -> None:
    """Without a configured token the admin routes are closed, whatever is sent."""
    app = FastAPI()
    app.include_router(model.bridge(settings=model.settings(admin_token=None)).router, prefix="/ai")
    with TestClient(app) as client:
        for headers in ({}, ADMIN, bearer(""), bearer("None")):
            assert client.request(method, path, headers=headers).status_code == 403


@each
def test_the_apps_own_dependency_guards_instead(model: Model, method: str, path: str) -> None:
    """With `admin=` the app's dependency decides, including its overrides, and the token is ignored."""

    async def operator(x_operator: Annotated[str, Header()] = "") -> None:
        if x_operator != "yes":
            raise HTTPException(418, "not an operator")

    app = FastAPI()
    app.include_router(model.bridge(admin=operator).router, prefix="/ai")
    with TestClient(app) as client:
        assert client.request(method, path, headers=ADMIN).status_code == 418
        assert client.request(method, path, headers={"X-Operator": "yes"}).status_code == opened(path)
        app.dependency_overrides[operator] = lambda: None
        assert client.request(method, path).status_code == opened(path)


# Reload


def test_reload_reads_the_environment_again(environment: pytest.MonkeyPatch, model: Model) -> None:
    """A changed variable takes effect with the reload and not before."""
    with TestClient(from_environment()) as client:
        client.post(CHAT, json=ASK, headers=ALICE)
        environment.setenv("AIBRIDGE_PROVIDERS__OPENAI__API_KEY", "sk-a-new-one")
        environment.setenv("AIBRIDGE_PROVIDERS__ANTHROPIC__API_KEY", "sk-ant")
        environment.setenv("AIBRIDGE_PROVIDERS__ANTHROPIC__ENABLED", "false")
        client.post(CHAT, json=ASK, headers=ALICE)
        answer = client.post("/ai/admin/reload", headers=ADMIN)
        assert answer.status_code == 200
        providers = answer.json().pop("providers")
        assert sorted(providers, key=lambda one: str(one["name"])) == [
            {"name": "anthropic", "type": "anthropic", "status": "disabled"},
            {"name": "openai", "type": "openai", "status": "enabled"},
        ]
        assert {key: answer.json()[key] for key in ("provider_version", "retired_bridges")} == {
            "provider_version": 2,
            "retired_bridges": 1,
        }
        client.post(CHAT, json=ASK, headers=ALICE)
        assert client.post("/ai/anthropic/v1/messages", json=ASK, headers=ALICE).status_code == 404
    keys = [received.headers["authorization"] for received in model.received]
    assert keys == ["Bearer sk-from-the-environment"] * 2 + ["Bearer sk-a-new-one"]


def test_reload_reads_the_file_again(environment: pytest.MonkeyPatch, model: Model, tmp_path: Path) -> None:
    """A reload reads `CONFIG_FILE` again; the environment still takes precedence."""
    file = tmp_path / "aibridge.toml"
    lines = ["[providers.openai]", 'api_key = "sk-below"', "[providers.other]", 'type = "openai"']
    template = "\n".join([*lines, 'base_url = "{}"', 'api_key = "{}"'])
    file.write_text(template.format(f"{model.url}/v1", "sk-file-1"))
    environment.setenv("AIBRIDGE_CONFIG_FILE", str(file))
    with TestClient(from_environment()) as client:
        client.get("/ai/other/v1/models", headers=ALICE)
        file.write_text(template.format(f"{model.url}/v1", "sk-file-2"))
        assert client.post("/ai/admin/reload", headers=ADMIN).status_code == 200
        client.get("/ai/other/v1/models", headers=ALICE)
        client.get("/ai/openai/v1/models", headers=ALICE)
    keys = [received.headers["authorization"] for received in model.received]
    assert keys == ["Bearer sk-file-1", "Bearer sk-file-2", "Bearer sk-from-the-environment"]


def test_reload_reads_the_secrets_again(environment: pytest.MonkeyPatch, model: Model, tmp_path: Path) -> None:
    """A secret that was mounted again, as orchestrators do, takes effect with the reload."""
    environment.delenv("AIBRIDGE_PROVIDERS__OPENAI__API_KEY")
    environment.setenv("AIBRIDGE_SECRETS_DIR", str(tmp_path))
    secret = tmp_path / "aibridge_providers__openai__api_key"
    if not _reads(secret, environment):
        secret = tmp_path / "providers__openai__api_key"
        assert _reads(secret, environment)
    with TestClient(from_environment()) as client:
        client.get("/ai/openai/v1/models", headers=ALICE)
        secret.write_text("sk-rotated")
        assert client.post("/ai/admin/reload", headers=ADMIN).status_code == 200
        client.get("/ai/openai/v1/models", headers=ALICE)
    keys = [received.headers["authorization"] for received in model.received]
    assert keys == ["Bearer sk-mounted", "Bearer sk-rotated"]


def _reads(secret: Path, environment: pytest.MonkeyPatch) -> bool:
    for other in secret.parent.iterdir():
        other.unlink()
    secret.write_text("sk-mounted")
    try:
        return Settings.load().providers["openai"].keys[0].get_secret_value() == "sk-mounted"
    except SettingsError:
        return False


def test_reload_changes_keys_and_token(environment: pytest.MonkeyPatch) -> None:
    """A reload replaces client keys and the admin token along with the providers."""
    with TestClient(from_environment()) as client:
        environment.setenv("AIBRIDGE_CLIENT_KEYS__ALICE", "k-new")
        environment.setenv("AIBRIDGE_ADMIN_TOKEN", "t-new")
        assert client.post("/ai/admin/reload", headers=ADMIN).status_code == 200
        assert client.get("/ai/openai/v1/models", headers=ALICE).status_code == 401
        assert client.get("/ai/openai/v1/models", headers=bearer("k-new")).status_code == 200
        assert client.get("/ai/admin/pool", headers=ADMIN).status_code == 401
        assert client.get("/ai/admin/pool", headers=bearer("t-new")).status_code == 200


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROVIDERS__OPENAI__MAX_RETRIES", "s3cret"),
        ("PROVIDERS__OPENAI__BASE_URL", "http://user:s3cret@host"),
        ("PROVIDERS__OPENAI__EXTRA_HEADERS", '{"X-Key": "s3cret'),
        ("PROVIDERS__OPENAI__EXTRA_HEADERS", '{"X-Key": "s3cret\\n"}'),
        ("PROVIDERS__OPENAI__TYPO", "s3cret"),
        ("PROVIDERS__MINE__TYPE", "s3cret-type"),
        ("CLIENT_KEYS__ALICE", "sha256:s3cret"),
        ("CLIENT_KEYS__BOB", "k-alice"),
        ("POOL__TTL", "-5"),
        ("CONFIG_FILE", "/nowhere/s3cret.toml"),
        ("SECRETS_DIR", "/nowhere/at/all"),
    ],
)
def test_settings_that_do_not_validate_change_nothing(
    environment: pytest.MonkeyPatch, model: Model, variable: str, value: str
) -> None:
    """The response is 422 and names the variable, never a secret; the old providers, keys and counters stay."""
    with TestClient(from_environment()) as client:
        client.post(CHAT, json=ASK, headers=ALICE)
        environment.setenv("AIBRIDGE_PROVIDERS__OPENAI__API_KEY", "sk-s3cret-new")
        environment.setenv(f"AIBRIDGE_{variable}", value)
        answer = client.post("/ai/admin/reload", headers=ADMIN)
        assert answer.status_code == 422, answer.text
        assert f"AIBRIDGE_{variable.split('__')[0]}" in answer.text or "'bob' and 'alice'" in answer.text
        if variable not in ("CONFIG_FILE", "PROVIDERS__MINE__TYPE"):
            assert "s3cret" not in answer.text
        assert "k-alice" not in answer.text
        pool = client.get("/ai/admin/pool", headers=ADMIN).json()
        assert (pool["provider_version"], pool["size"]) == (1, 1)
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200
        assert {received.headers["authorization"] for received in model.received} == {"Bearer sk-from-the-environment"}


def test_reload_asks_the_apps_own_sources(model: Model) -> None:
    """A reload calls the settings function and the `ProviderSource` again; an error of theirs changes nothing."""
    versions: list[str] = []

    def settings() -> Settings:
        versions.append("settings")
        return model.settings(providers={})

    class Source:
        def __init__(self) -> None:
            self.names = ["one"]

        async def load(self) -> Sequence[Provider]:
            versions.append("providers")
            if not self.names:
                raise SettingsError("the database has no providers")
            one = model.settings().providers["openai"]
            return [provider for name in self.names for provider in build_providers({name: one})]

    source = Source()
    app = FastAPI()
    app.include_router(AIBridge(settings, providers=source, recorder=MemoryRecorder()).router, prefix="/ai")
    with TestClient(app) as client:
        assert client.get("/ai/one/v1/models", headers=ALICE).status_code == 200
        source.names = ["two"]
        answer = client.post("/ai/admin/reload", headers=ADMIN)
        assert [one["name"] for one in answer.json()["providers"]] == ["two"]
        assert client.get("/ai/one/v1/models", headers=ALICE).status_code == 404
        for refused, words in (([], "the database has no providers"), (["x", "x"], "two providers of the same name")):
            source.names = refused
            answer = client.post("/ai/admin/reload", headers=ADMIN)
            assert (answer.status_code, words in answer.text) == (422, True)
        assert client.get("/ai/two/v1/models", headers=ALICE).status_code == 200
    assert versions == ["settings", "providers"] * 4


# Reading


def metrics_of(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.get("/ai/admin/metrics", headers=ADMIN)
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_are_a_prometheus_exposition(model: Model) -> None:
    """The exposition parses; it counts pool and interceptions, and no label has values that callers choose."""
    with TestClient(model.app()) as client:
        for _ in range(3):
            client.post(CHAT, json={**ASK, "model": "their-choice"}, headers=ALICE)
        client.get("/ai/openai/v1/models", headers=ALICE)
        client.get("/ai/openai/v1/nothing", headers=ALICE)
        client.post(CHAT, json=ASK)
        client.post("/ai/admin/reload", headers=ADMIN)
        metrics = metrics_of(client)
    named = {name: value for (name, labels), value in metrics.items() if not labels}
    assert named["aibridge_pool_misses_total"] == 1
    assert named["aibridge_pool_hits_total"] == 4
    assert named["aibridge_pool_keys_added_total"] == 1
    assert named["aibridge_pool_size"] == 0
    assert named["aibridge_pool_provider_version"] == 2
    assert named["aibridge_interceptions_in_flight"] == 0
    labels = {
        "provider": "openai",
        "route": "/v1/chat/completions",
        "status": "completed",
        "client": "Unknown",
        "streaming": "false",
    }
    assert metrics["aibridge_interceptions_total", tuple(sorted(labels.items()))] == 3
    assert metrics["aibridge_tokens_total", (("kind", "output"), ("provider", "openai"))] == 18
    assert (
        metrics["aibridge_passed_through_total", (("code", "200"), ("provider", "openai"), ("route", "/v1/models"))]
        == 1
    )
    assert metrics["aibridge_refused_total", (("code", "not_found"),)] == 1
    assert metrics["aibridge_refused_total", (("code", "invalid_api_key"),)] == 1
    assert metrics["aibridge_reloads_total", (("outcome", "applied"),)] == 1
    values = {value for _, labels_of in metrics for _, value in labels_of}
    assert not values & {"alice", "their-choice", "k-alice"}


def test_metrics_can_go_into_the_apps_registry(model: Model) -> None:
    """The app's own registry has its metrics and the gateway's, in one exposition."""
    registry = CollectorRegistry()
    Counter("apps_own", "The app's.", registry=registry).inc()
    app = FastAPI()
    app.include_router(model.bridge(registry=registry).router, prefix="/ai")
    with TestClient(app) as client:
        metrics = metrics_of(client)
        assert metrics["apps_own_total", ()] == 1
        assert metrics["aibridge_pool_size", ()] == 0
    assert registry.get_sample_value("apps_own_total") == 1


def test_the_pool_as_json(model: Model) -> None:
    """The pool's members are those of the contract, as numbers."""
    with TestClient(model.app()) as client:
        client.post(CHAT, json=ASK, headers=ALICE)
        client.post(CHAT, json=ASK, headers=ALICE)
        pool = client.get("/ai/admin/pool", headers=ADMIN).json()
    wanted = {
        "size": 1,
        "max_items": 5000,
        "ttl_seconds": 900.0,
        "hits": 1,
        "misses": 1,
        "keys_added": 1,
        "keys_evicted": 0,
        "builds_in_flight": 0,
        "leases": 0,
        "draining": 0,
        "provider_version": 1,
    }
    assert {name: pool[name] for name in wanted} == wanted


def test_interceptions_are_listed_newest_first(model: Model) -> None:
    """The listing has pages, a cursor and filters; its items and a single interception have the contract's JSON."""
    with TestClient(model.app()) as client:
        ids = []
        for number in range(5):
            headers = ALICE if number % 2 else bearer("k-bob")
            answer = client.post(CHAT, json={**ASK, "model": f"m-{number}"}, headers=headers)
            ids.append(answer.headers["x-aibridge-interception-id"])

        def listed(**query: Any) -> tuple[list[str], str | None]:
            page = client.get("/ai/admin/interceptions", params=query, headers=ADMIN)
            assert page.status_code == 200, page.text
            return [item["id"] for item in page.json()["items"]], page.json()["next_cursor"]

        assert listed() == (ids[::-1], None)
        assert listed(initiator_id="alice") == ([ids[3], ids[1]], None)
        assert listed(model="m-4") == ([ids[4]], None)
        assert listed(provider="anthropic") == ([], None)
        assert listed(started_before="2020-01-01T00:00:00Z") == ([], None)
        assert listed(cursor="", limit="", model="", started_after="") == (ids[::-1], None)
        first, cursor = listed(limit=2)
        second, cursor = listed(limit=2, cursor=cursor)
        third, cursor = listed(limit=2, cursor=cursor)
        assert (first + second + third, cursor) == (ids[::-1], None)
        usage = client.get("/ai/admin/usage?by=initiator_id&by=model&initiator_id=alice", headers=ADMIN).json()["items"]
        assert [(row["initiator_id"], row["model"]) for row in usage] == [("alice", "m-1"), ("alice", "m-3")]
        export = client.get("/ai/admin/interceptions/export?format=csv&model=m-4", headers=ADMIN)
        assert export.headers["content-type"] == "text/csv; charset=utf-8"
        assert ids[4] in export.text
        assert ids[3] not in export.text
        assert client.get("/ai/admin/interceptions?cursor=nonsense", headers=ADMIN).status_code == 400
        assert client.get("/ai/admin/interceptions?limit=0", headers=ADMIN).status_code == 422
        one = client.get(f"/ai/admin/interceptions/{ids[0]}", headers=ADMIN).json()
        assert (one["initiator_id"], one["model"], one["status"]) == ("bob", "m-0", "completed")
        assert one["prompts"][0]["text"] == "hi"
        assert one["credential_hint"] == "sk-...enai"
        assert client.get("/ai/admin/interceptions/none", headers=ADMIN).status_code == 404


def test_a_recorder_that_cannot_be_read_has_no_list(model: Model) -> None:
    """If no recorder can be read, the response says so."""
    app = FastAPI()
    app.include_router(AIBridge(model.settings(recorder={"enabled": False})).router, prefix="/ai")
    with TestClient(app) as client:
        assert client.post(CHAT, json=ASK, headers=ALICE).status_code == 200
        for path in ("/ai/admin/interceptions", "/ai/admin/interceptions/some-id"):
            answer = client.get(path, headers=ADMIN)
            assert (answer.status_code, "cannot be read back" in answer.text) == (404, True)
