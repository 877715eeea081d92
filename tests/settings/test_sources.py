"""The sources of the settings and their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from fastapi_aibridge.errors import SettingsError
from fastapi_aibridge.settings import ModelPrices, ProviderSettings, Settings

from .conftest import Setter


def reached(settings: Settings, path: str) -> Any:
    """The value at a path of attributes and keys, with secrets and URLs as text."""
    value: Any = settings
    for part in path.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return plain(value)


def plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(plain(one) for one in value)
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def key(settings: Settings, provider: str = "openai") -> str | None:
    keys = settings.providers[provider].keys
    return keys[0].get_secret_value() if keys else None


def test_the_defaults() -> None:
    """Without any source the defaults are the documented ones."""
    settings = Settings.load()
    assert (settings.providers, settings.mcp_servers, settings.client_keys) == ({}, {}, {})
    assert (settings.pool.max_items, settings.pool.ttl, settings.pool.drain_timeout) == (5000, 900.0, 600.0)
    assert settings.shutdown_grace == 5.0
    assert reached(settings, "recorder.url") == "sqlite+aiosqlite:///aibridge.db"
    recorder = settings.recorder
    assert (recorder.enabled, recorder.capture_content, recorder.retention) == (True, True, 60 * 86400.0)
    assert (settings.admin_token, settings.redis_url, settings.config_file) == (None, None, None)
    assert settings.max_body_size == 32 * 1024 * 1024
    breaker = ProviderSettings().circuit_breaker
    assert (breaker.enabled, breaker.failure_threshold, breaker.interval) == (True, 5, 10.0)
    assert (breaker.timeout, breaker.max_requests) == (30.0, 3)


PROVIDER = "providers.openai"
BREAKER = f"{PROVIDER}.circuit_breaker"
VARIABLES: list[tuple[str, str, str, Any]] = [
    ("PROVIDERS__OPENAI__TYPE", "anthropic", f"{PROVIDER}.type", "anthropic"),
    ("PROVIDERS__OPENAI__API_KEY", "sk-2", f"{PROVIDER}.api_key", "sk-2"),
    ("PROVIDERS__OPENAI__API_KEYS", '["sk-2", "sk-3"]', f"{PROVIDER}.keys", ("sk-1", "sk-2", "sk-3")),
    ("PROVIDERS__OPENAI__ENABLED", "false", f"{PROVIDER}.enabled", False),
    ("PROVIDERS__OPENAI__MAX_RETRIES", "0", f"{PROVIDER}.max_retries", 0),
    ("PROVIDERS__OPENAI__CONNECT_TIMEOUT", "2.5", f"{PROVIDER}.connect_timeout", 2.5),
    ("PROVIDERS__OPENAI__READ_TIMEOUT", "15m", f"{PROVIDER}.read_timeout", 900.0),
    ("PROVIDERS__OPENAI__EXTRA_HEADERS", '{"X-A": "b"}', f"{PROVIDER}.extra_headers", {"X-A": "b"}),
    ("PROVIDERS__OPENAI__SEND_ACTOR_HEADERS", "1", f"{PROVIDER}.send_actor_headers", True),
    ("PROVIDERS__OPENAI__BYOK", "yes", f"{PROVIDER}.byok", True),
    ("PROVIDERS__OPENAI__CIRCUIT_BREAKER__ENABLED", "off", f"{BREAKER}.enabled", False),
    ("PROVIDERS__OPENAI__CIRCUIT_BREAKER__FAILURE_THRESHOLD", "7", f"{BREAKER}.failure_threshold", 7),
    ("PROVIDERS__OPENAI__CIRCUIT_BREAKER__INTERVAL", "3", f"{BREAKER}.interval", 3.0),
    ("PROVIDERS__OPENAI__CIRCUIT_BREAKER__TIMEOUT", "1m", f"{BREAKER}.timeout", 60.0),
    ("PROVIDERS__OPENAI__CIRCUIT_BREAKER__MAX_REQUESTS", "1", f"{BREAKER}.max_requests", 1),
    ("MCP_SERVERS__FILES__HEADERS", '{"A": "{session_key}"}', "mcp_servers.files.headers", {"A": "{session_key}"}),
    ("MCP_SERVERS__FILES__TOOL_ALLOW", "^read_", "mcp_servers.files.tool_allow.pattern", "^read_"),
    ("MCP_SERVERS__FILES__TOOL_DENY", "drop", "mcp_servers.files.tool_deny.pattern", "drop"),
    ("POOL__MAX_ITEMS", "10", "pool.max_items", 10),
    ("POOL__TTL", "60", "pool.ttl", 60.0),
    ("POOL__DRAIN_TIMEOUT", "30", "pool.drain_timeout", 30.0),
    ("SHUTDOWN_GRACE", "0", "shutdown_grace", 0.0),
    ("RECORDER__URL", "postgresql+asyncpg://u:p@h/d", "recorder.url", "postgresql+asyncpg://u:p@h/d"),
    ("RECORDER__ENABLED", "false", "recorder.enabled", False),
    ("RECORDER__CAPTURE_CONTENT", "false", "recorder.capture_content", False),
    ("RECORDER__RETENTION", "90d", "recorder.retention", 90 * 86400.0),
    ("RECORDER__RETENTION", "0", "recorder.retention", 0.0),
    ("CLIENT_KEYS__ALICE", "k-alice", "client_keys.alice", ("k-alice",)),
    ("CLIENT_KEYS__ALICE", "12345", "client_keys.alice", ("12345",)),
    ("CLIENT_KEYS__ALICE", "null", "client_keys.alice", ("null",)),
    ("CLIENT_KEYS__ALICE", '["k-1", "k-2"]', "client_keys.alice", ("k-1", "k-2")),
    ("CLIENT_KEYS", '{"Alice@x": "k"}', "client_keys.Alice@x", ("k",)),
    ("CLIENT_KEYS", '{"a": ["k", "l"]}', "client_keys.a", ("k", "l")),
    ("ADMIN_TOKEN", "t", "admin_token", "t"),
    ("ADMIN_TOKEN", "12345", "admin_token", "12345"),
    ("METRICS_TOKEN", "m", "metrics_token", "m"),
    ("AUDIT_TOKEN", "a", "audit_token", "a"),
    ("MAX_BODY_SIZE", "1000", "max_body_size", 1000),
    ("MAX_BODY_SIZE", "2 MiB", "max_body_size", 2 * 2**20),
    ("MEMORY__BODIES", "1GiB", "memory.bodies", 2**30),
    ("RECORDER__MAX_TEXT", "64KiB", "recorder.max_text", 2**16),
    ("FORWARD_HEADERS", '["X-Tenant", "x-b"]', "forward_headers", ("x-tenant", "x-b")),
    ("FORWARD_HEADERS", '["*"]', "forward_headers", ("*",)),
    ("FOREIGN_IDS", "refuse", "foreign_ids", "refuse"),
    ("LOG_FORMAT", "json", "log_format", "json"),
    ("PROVIDERS__OPENAI__FIRST_BYTE_TIMEOUT", "2m", f"{PROVIDER}.first_byte_timeout", 120.0),
    (
        "PROVIDERS__OPENAI__PASS_THROUGH",
        '["/v1/files", "/v1/files/*"]',
        f"{PROVIDER}.pass_through",
        ("/v1/files", "/v1/files/*"),
    ),
    ("PROVIDERS__OPENAI__PROXY", "http://u:p@proxy:3128", f"{PROVIDER}.proxy", "http://u:p@proxy:3128"),
    ("PROVIDERS__OPENAI__PROXY", "env", f"{PROVIDER}.proxy", "env"),
    ("REDIS_URL", "redis://:p@h", "redis_url", "redis://:p@h"),
    (
        "PRICES",
        '{"openai": {"House-model": {"input": 1.5, "output": 6, "cache_read": 0.15, "cache_write": 1.875}}}',
        "prices",
        {"openai": {"House-model": ModelPrices(input=1.5, output=6, cache_read=0.15, cache_write=1.875)}},
    ),
    (
        "PRICES__OPENAI",
        '{"gpt-5.1": {"input": 1, "output": 2}}',
        "prices",
        {"openai": {"gpt-5.1": ModelPrices(input=1, output=2)}},
    ),
    ("UNPRICED", "refuse", "unpriced", "refuse"),
    ("PRIVATE_HEADERS", '["x-session"]', "private_headers", ("x-session",)),
]


@pytest.mark.parametrize(("name", "value", "path", "expected"), VARIABLES)
def test_each_variable(env: Setter, name: str, value: str, path: str, expected: Any) -> None:
    """Each variable is read."""
    if name.startswith("PROVIDERS"):
        env(PROVIDERS__OPENAI__API_KEY="sk-1")
    if name.startswith("MCP_SERVERS"):
        env(MCP_SERVERS__FILES__URL="http://h/mcp")
    env(**{name: value})
    assert reached(Settings.load(), path) == expected


@pytest.mark.parametrize("name", ["aibridge_pool__max_items", "AIBRIDGE_POOL__Max_Items", "AiBridge_Pool__MAX_ITEMS"])
def test_names_in_any_case(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Variables are read in any case, because operators' habits differ."""
    monkeypatch.setenv(name, "7")
    assert Settings.load().pool.max_items == 7


def test_base_urls(env: Setter) -> None:
    """A base URL is the configured one or the vendor's."""
    env(PROVIDERS__OPENAI__API_KEY="a", PROVIDERS__ANTHROPIC__API_KEY="b")
    env(PROVIDERS__LOCAL__TYPE="openai", PROVIDERS__LOCAL__API_KEY="c", PROVIDERS__LOCAL__BASE_URL="http://h:1/v1")
    urls = {name: str(provider.base_url).rstrip("/") for name, provider in Settings.load().providers.items()}
    assert urls == {
        "openai": "https://api.openai.com/v1",
        "anthropic": "https://api.anthropic.com",
        "local": "http://h:1/v1",
    }


def test_maps_may_be_json_and_single_variables(env: Setter) -> None:
    """A variable for one member adds to the JSON of the whole map."""
    env(PROVIDERS='{"openai": {"api_key": "sk-1", "max_retries": 1}}', PROVIDERS__OPENAI__MAX_RETRIES="5")
    provider = Settings.load().providers["openai"]
    assert (provider.max_retries, provider.keys[0].get_secret_value()) == (5, "sk-1")
    env(PROVIDERS__OPENAI='{"api_key": "sk-2"}')
    assert key(Settings.load()) == "sk-2"


@pytest.mark.parametrize(("name", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")])
def test_the_vendors_own_variables(monkeypatch: pytest.MonkeyPatch, env: Setter, name: str, variable: str) -> None:
    """A provider without a key uses the variable of its vendor's SDK; an empty one is ignored."""
    monkeypatch.setenv(variable, "sk-vendor")
    env(**{f"PROVIDERS__{name.upper()}__ENABLED": "true", "PROVIDERS__OTHER__TYPE": name})
    settings = Settings.load()
    assert (key(settings, name), key(settings, "other")) == ("sk-vendor", "sk-vendor")
    env(**{f"PROVIDERS__{name.upper()}__API_KEY": "sk-own"})
    assert key(Settings.load(), name) == "sk-own"
    env(**{f"PROVIDERS__{name.upper()}__API_KEY": ""})
    assert key(Settings.load(), name) == "sk-vendor"


def test_an_empty_variable_counts_as_none(env: Setter) -> None:
    """An empty variable counts as unset, because compose files and charts pass on unset variables."""
    env(ADMIN_TOKEN="", REDIS_URL="", POOL__TTL="", CONFIG_FILE="", SECRETS_DIR="", CLIENT_KEYS="")
    assert Settings.load() == Settings()
    assert Settings.load().admin_token is None


def test_a_secret_that_is_empty_counts_as_none(tmp_path: Path) -> None:
    """An empty secret counts as unset in every source, because an empty admin token would admit everybody."""
    (tmp_path / "aibridge_admin_token").write_text("\n")
    assert Settings.load(secrets_dir=tmp_path).admin_token is None
    assert Settings.load(admin_token=SecretStr(" ")).admin_token is None
    assert Settings.load(redis_url=SecretStr("")).redis_url is None


def test_the_toml_file(env: Setter, tmp_path: Path) -> None:
    """The TOML file has the structure of the settings and is read again each time."""
    file = tmp_path / "aibridge.toml"
    file.write_text(
        """
        shutdown_grace = 1
        max_body_size = 100
        client_keys = {alice = "k-alice"}
        [pool]
        ttl = "10m"
        [providers.openai]
        api_keys = ["sk-1", "sk-2"]
        extra_headers = {"X-A" = "b"}
        circuit_breaker = {enabled = false}
        [mcp_servers.files]
        url = "http://h/mcp"
        """
    )
    env(CONFIG_FILE=str(file))
    settings = Settings.load()
    assert (settings.shutdown_grace, settings.max_body_size, settings.pool.ttl) == (1.0, 100, 600.0)
    assert reached(settings, "providers.openai.keys") == ("sk-1", "sk-2")
    assert not settings.providers["openai"].circuit_breaker.enabled
    assert reached(settings, "mcp_servers.files.url") == "http://h/mcp"
    assert settings.config_file == file
    file.write_text("shutdown_grace = 2")
    assert Settings.load().shutdown_grace == 2.0


def test_the_secrets_directory(env: Setter, tmp_path: Path) -> None:
    """The directory has one file for each value, named like its variable in any case; a final line break is ignored."""
    for name, value in {
        "aibridge_admin_token": "t\n",
        "AIBRIDGE_CLIENT_KEYS__ALICE": " k-alice\r\n",
        "aibridge_providers__openai__api_key": "sk-1\n",
        "aibridge_providers__anthropic__api_keys": '["sk-2", "sk-3"]\n',
        "another_programs_secret": "x",
    }.items():
        (tmp_path / name).write_text(value)
    env(SECRETS_DIR=str(tmp_path))
    settings = Settings.load()
    assert reached(settings, "admin_token") == "t"
    assert reached(settings, "client_keys.alice") == ("k-alice",)
    assert key(settings) == "sk-1"
    assert reached(settings, "providers.anthropic.keys") == ("sk-2", "sk-3")


def test_a_secrets_directory_of_kubernetes(env: Setter, tmp_path: Path) -> None:
    """Kubernetes mounts secrets as links to links, which change with the secret."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "aibridge_admin_token").write_text("t")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "aibridge_admin_token").symlink_to("..data/aibridge_admin_token")
    env(SECRETS_DIR=str(tmp_path))
    assert reached(Settings.load(), "admin_token") == "t"


def test_other_programs_secrets_are_let_be(tmp_path: Path) -> None:
    """Other programs' files in the secrets directory are ignored, even binary and huge ones."""
    (tmp_path / "keystore.p12").write_bytes(b"\xff" * (17 * 2**20))
    (tmp_path / "aibridge_admin_token").write_text("t")
    admin_token = Settings.load(secrets_dir=tmp_path).admin_token
    assert admin_token
    assert admin_token.get_secret_value() == "t"


def test_secrets_without_the_prefix_are_not_read(env: Setter, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Secrets without the prefix are ignored, and a warning names the file."""
    (tmp_path / "admin_token").write_text("s3cret")
    (tmp_path / "providers__openai__api_key").write_text("s3cret")
    (tmp_path / "other").write_text("s3cret")
    env(SECRETS_DIR=str(tmp_path))
    settings = Settings.load()
    assert (settings.admin_token, settings.providers) == (None, {})
    assert "AIBRIDGE_ADMIN_TOKEN" in caplog.text
    assert "AIBRIDGE_PROVIDERS__OPENAI__API_KEY" in caplog.text
    assert "other" not in caplog.text
    assert "s3cret" not in caplog.text


def test_the_order_of_the_sources(env: Setter, tmp_path: Path) -> None:
    """The first source with a value wins: arguments, environment, secrets directory, file."""
    file = tmp_path / "aibridge.toml"
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    file.write_text('admin_token = "file"\nredis_url = "file"\nmax_body_size = 4\nshutdown_grace = 4')
    for name, value in {"admin_token": "3", "redis_url": "redis://3", "max_body_size": "3"}.items():
        (secrets / f"aibridge_{name}").write_text(value)
    env(ADMIN_TOKEN="2", REDIS_URL="redis://2", CONFIG_FILE=str(file), SECRETS_DIR=str(secrets))
    settings = Settings.load(admin_token=SecretStr("1"))
    assert [reached(settings, name) for name in ("admin_token", "redis_url")] == ["1", "redis://2"]
    assert [settings.max_body_size, settings.shutdown_grace] == [3, 4.0]


def test_a_provider_may_come_from_several_sources(env: Setter, tmp_path: Path) -> None:
    """One provider's address, key and options may come from a file, a secret and a variable."""
    file = tmp_path / "aibridge.toml"
    file.write_text('[providers.local]\ntype = "openai"\nbase_url = "http://h/v1"\nmax_retries = 1\nbyok = true')
    (tmp_path / "aibridge_providers__local__api_key").write_text("sk-1")
    env(PROVIDERS__LOCAL__MAX_RETRIES="9", CONFIG_FILE=str(file), SECRETS_DIR=str(tmp_path))
    provider = Settings.load().providers["local"]
    assert (provider.type, str(provider.base_url), provider.max_retries, provider.byok) == (
        "openai",
        "http://h/v1",
        9,
        True,
    )
    assert [one.get_secret_value() for one in provider.keys] == ["sk-1"]


def test_files_may_be_named_by_arguments(env: Setter, tmp_path: Path) -> None:
    """An argument that names a file takes precedence over the variable."""
    (tmp_path / "a.toml").write_text("max_body_size = 1")
    (tmp_path / "b.toml").write_text("max_body_size = 2")
    env(CONFIG_FILE=str(tmp_path / "a.toml"))
    assert Settings.load(config_file=tmp_path / "b.toml").max_body_size == 2


def test_two_readings_are_equal(env: Setter) -> None:
    """Two readings are equal, so that a reload recognises unchanged providers."""
    env(PROVIDERS__OPENAI__API_KEY="sk-1", MCP_SERVERS__A__URL="http://h", MCP_SERVERS__A__TOOL_ALLOW="x")
    assert Settings.load() == Settings.load()
    first = Settings.load()
    env(PROVIDERS__OPENAI__API_KEY="sk-2")
    assert Settings.load().providers["openai"] != first.providers["openai"]


def test_no_representation_shows_a_secret(env: Setter) -> None:
    """No representation shows keys, tokens, passwords in URLs, or headers."""
    env(
        PROVIDERS__OPENAI__API_KEY="s3cret-1",
        PROVIDERS__OPENAI__API_KEYS='["s3cret-2"]',
        PROVIDERS__OPENAI__EXTRA_HEADERS='{"X-Key": "s3cret-3"}',
        MCP_SERVERS__A__URL="http://h/s3cret-4",
        MCP_SERVERS__A__HEADERS='{"Authorization": "Bearer s3cret-5"}',
        CLIENT_KEYS__ALICE="s3cret-6",
        ADMIN_TOKEN="s3cret-7",
        REDIS_URL="redis://:s3cret-8@h",
        RECORDER__URL="postgresql+asyncpg://u:s3cret-9@h/d",
    )
    settings = Settings.load()
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


def test_certificates_are_read(env: Setter, tmp_path: Path) -> None:
    """Certificates are loaded with the settings, so that a wrong file is found at the start."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("gateway").private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    env(PROVIDERS__OPENAI__API_KEY="k", PROVIDERS__OPENAI__CA_FILE=str(tmp_path / "ca.pem"))
    env(PROVIDERS__OPENAI__CLIENT_CERT=str(tmp_path / "client.pem"))
    provider = Settings.load().providers["openai"]
    assert (provider.ca_file, provider.client_cert) == (tmp_path / "ca.pem", tmp_path / "client.pem")
    env(PROVIDERS__OPENAI__CLIENT_CERT=str(tmp_path / "ca.pem"))
    with pytest.raises(SettingsError, match="private key"):
        Settings.load()
