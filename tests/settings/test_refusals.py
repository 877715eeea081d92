"""Errors for settings that do not validate: they name the variable and never show its value."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from fastapi_aibridge.errors import SettingsError
from fastapi_aibridge.settings import Settings, warn_of_base_urls

from .conftest import Setter

VALUE = "s3cret"
OPENAI = "PROVIDERS__OPENAI__"


def refused(**values: object) -> str:
    """The error's text, after a check that its traceback does not contain the value."""
    with pytest.raises(SettingsError) as error:
        Settings.load(**values)
    whole = "".join(traceback.format_exception(error.value))
    assert VALUE not in whole
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECORDER__URL", VALUE),
        ("RECORDER__URL", f"mysql://u:{VALUE}@h/db"),
        (f"{OPENAI}BASE_URL", VALUE),
        (f"{OPENAI}BASE_URL", f"ftp://h/{VALUE}"),
        (f"{OPENAI}BASE_URL", f"http://u:{VALUE}@h/v1"),
        (f"{OPENAI}BASE_URL", f"http://h/v1?key={VALUE}"),
        (f"{OPENAI}BASE_URL", f"http://h/v1#{VALUE}"),
        (f"{OPENAI}API_KEY", f"{VALUE}\nX-Evil: 1"),
        (f"{OPENAI}API_KEY", f"Bearer {VALUE}"),
        (f"{OPENAI}API_KEY", f"{VALUE}é"),
        (f"{OPENAI}API_KEYS", VALUE),
        (f"{OPENAI}API_KEYS", f'["{VALUE}"'),
        (f"{OPENAI}API_KEYS", f'{{"{VALUE}": 1}}'),
        (f"{OPENAI}ENABLED", VALUE),
        (f"{OPENAI}MAX_RETRIES", VALUE),
        (f"{OPENAI}MAX_RETRIES", "-1"),
        (f"{OPENAI}MAX_RETRIES", "11"),
        (f"{OPENAI}CONNECT_TIMEOUT", "0"),
        (f"{OPENAI}READ_TIMEOUT", "nan"),
        (f"{OPENAI}READ_TIMEOUT", VALUE),
        (f"{OPENAI}EXTRA_HEADERS", VALUE),
        (f"{OPENAI}EXTRA_HEADERS", f'["{VALUE}"]'),
        (f"{OPENAI}EXTRA_HEADERS", f'{{"X-A": "{VALUE}\\r\\nX-B: 1"}}'),
        (f"{OPENAI}EXTRA_HEADERS", f'{{"X-A": "{VALUE}\\u0000"}}'),
        (f"{OPENAI}EXTRA_HEADERS", f'{{"X-A": "{VALUE}\\u20ac"}}'),
        (f"{OPENAI}EXTRA_HEADERS", f'{{"X-A: x": "{VALUE}"}}'),
        (f"{OPENAI}EXTRA_HEADERS", f'{{"": "{VALUE}"}}'),
        (f"{OPENAI}EXTRA_HEADERS", f'{{"Content-Length": "{VALUE}"}}'),
        (f"{OPENAI}EXTRA_HEADERS", '{"transfer-encoding": "chunked"}'),
        (f"{OPENAI}CIRCUIT_BREAKER__TIMEOUT", "inf"),
        (f"{OPENAI}CIRCUIT_BREAKER__FAILURE_THRESHOLD", "0"),
        (f"{OPENAI}CIRCUIT_BREAKER__MAX_REQUESTS", VALUE),
        (f"{OPENAI}CIRCUIT_BREAKER", VALUE),
        (f"{OPENAI}TYPE", VALUE),
        ("PROVIDERS__OPENAI", VALUE),
        ("PROVIDERS", VALUE),
        ("PROVIDERS", f'["{VALUE}"]'),
        ("MCP_SERVERS__FILES__URL", VALUE),
        ("MCP_SERVERS__FILES__TOOL_ALLOW", f"({VALUE}"),
        ("MCP_SERVERS__FILES__TOOL_DENY", f"[{VALUE}"),
        ("MCP_SERVERS__FILES__HEADERS", f'{{"A": "{VALUE}\\n"}}'),
        ("POOL__MAX_ITEMS", "0"),
        ("POOL__TTL", "-1"),
        ("POOL__TTL", VALUE),
        ("POOL__DRAIN_TIMEOUT", "0"),
        ("SHUTDOWN_GRACE", "-1"),
        ("SHUTDOWN_GRACE", "inf"),
        ("RECORDER__RETENTION", "5 weeks"),
        ("RECORDER__ENABLED", VALUE),
        ("RECORDER__CAPTURE_CONTENT", VALUE),
        ("CLIENT_KEYS__ALICE", f"{VALUE} x"),
        ("CLIENT_KEYS__ALICE", f"sha256:{VALUE}"),
        ("CLIENT_KEYS", VALUE),
        ("ADMIN_TOKEN", f"{VALUE}\n{VALUE}"),
        ("MAX_BODY_SIZE", "0"),
        ("MAX_BODY_SIZE", VALUE),
        ("PRIVATE_HEADERS", VALUE),
        ("PRIVATE_HEADERS", f'["{VALUE} x"]'.replace(VALUE, "")),
        ("CLIENT_KEYS__ALICE", f'["k", "{VALUE} x"]'),
        ("CLIENT_KEYS__ALICE", f'["k", "{VALUE}"'),
        ("CLIENT_KEYS__ALICE", "[]"),
        ("CLIENT_KEYS__ALICE", '["k", ""]'),
        ("METRICS_TOKEN", f"{VALUE} x"),
        ("AUDIT_TOKEN", f"{VALUE}\n{VALUE}"),
        ("FORWARD_HEADERS", VALUE),
        ("FORWARD_HEADERS", '["no header"]'),
        ("FORWARD_HEADERS", '["Cookie"]'),
        ("FORWARD_HEADERS", '["X-AIBridge-Token"]'),
        ("FOREIGN_IDS", VALUE),
        ("LOG_FORMAT", VALUE),
        ("MEMORY__BODIES", VALUE),
        ("MEMORY__BODIES", "0"),
        ("RECORDER__MAX_TEXT", "5 MB"),
        (f"{OPENAI}FIRST_BYTE_TIMEOUT", "0"),
        (f"{OPENAI}PASS_THROUGH", VALUE),
        (f"{OPENAI}PASS_THROUGH", '["v1/files"]'),
        (f"{OPENAI}PASS_THROUGH", '["/v1/../admin"]'),
        (f"{OPENAI}PASS_THROUGH", '["/v1/*/content"]'),
        (f"{OPENAI}PASS_THROUGH", '["/v1//files"]'),
        (f"{OPENAI}PASS_THROUGH", '["/v1/files?limit=1"]'),
        (f"{OPENAI}PASS_THROUGH", '["/v1/%2e%2e/x"]'),
        (f"{OPENAI}CA_FILE", "/missing/ca.pem"),
        (f"{OPENAI}CA_FILE", __file__),
        (f"{OPENAI}CLIENT_CERT", "/missing/cert.pem"),
        (f"{OPENAI}CLIENT_CERT", __file__),
        (f"{OPENAI}PROXY", VALUE),
        (f"{OPENAI}PROXY", f"socks5://u:{VALUE}@h:1"),
        (f"{OPENAI}PROXY", f"http://u:{VALUE}@h:99999"),
        (f"{OPENAI}PROXY", f"http://h:1/{VALUE}"),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(env: Setter, name: str, value: str) -> None:
    """The text begins with the variable, whatever the error."""
    env(**{f"{OPENAI}API_KEY": "sk-1", name: value})
    if name.startswith("MCP_SERVERS") and not name.endswith("URL"):
        env(MCP_SERVERS__FILES__URL="http://h")
    text = refused()
    assert text.startswith(f"AIBRIDGE_{name}")


def test_a_name_that_is_no_type_needs_one(env: Setter) -> None:
    """If a provider's name is no type and no type is set, the error says that it must be set."""
    env(PROVIDERS__FOO__API_KEY="sk-1")
    assert refused().startswith("AIBRIDGE_PROVIDERS__FOO__TYPE is not set, and the provider's name is not a type")


def test_all_mistakes_are_told_at_once(env: Setter) -> None:
    """All errors are reported by one start."""
    env(POOL__TTL="x", MAX_BODY_SIZE="y", ADMIN_TOKEN="a b")
    text = refused()
    assert all(f"AIBRIDGE_{name}: " in text for name in ("POOL__TTL", "MAX_BODY_SIZE", "ADMIN_TOKEN"))


def test_what_should_be_json_is_said_to_be(env: Setter) -> None:
    """The error for a list that is not JSON says so."""
    env(**{f"{OPENAI}API_KEYS": "sk-1,sk-2"})
    assert 'JSON: ["first", "second"]' in refused()
    env(**{f"{OPENAI}API_KEYS": '["sk-1"]', f"{OPENAI}EXTRA_HEADERS": "X-A: b"})
    assert 'JSON: {"name": "value"}' in refused()
    env(BUDGETS='{"id": "alice", "usd": 20}')
    assert 'AIBRIDGE_BUDGETS: budgets are a JSON list of objects, such as [{"scope"' in refused()


@pytest.mark.parametrize("value", ["5 weeks", "1h30m", "soon", "PT5S"])
def test_durations_say_their_form(env: Setter, value: str) -> None:
    """The error for a duration shows the accepted forms."""
    env(POOL__TTL=value)
    assert refused() == ("AIBRIDGE_POOL__TTL: a duration is a number of seconds, or has a unit: 90s, 15m, 12h, 60d")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (f"{OPENAI}APIKEY", f"{OPENAI}API_KEY"),
        (f"{OPENAI}BASEURL", f"{OPENAI}BASE_URL"),
        (f"{OPENAI}CIRCUIT_BREAKER__FAILURE_TRESHOLD", f"{OPENAI}CIRCUIT_BREAKER__FAILURE_THRESHOLD"),
        ("MCP_SERVERS__FILES__TOOLS_ALLOW", "MCP_SERVERS__FILES__TOOL_ALLOW"),
        ("RECORDER__RETENTIONS", "RECORDER__RETENTION"),
    ],
)
def test_a_misspelled_member_is_told_the_right_one(env: Setter, name: str, meant: str) -> None:
    """The error for a misspelled member suggests the right one, at any depth."""
    env(**{f"{OPENAI}API_KEY": "sk-1", "MCP_SERVERS__FILES__URL": "http://h", name: VALUE})
    assert refused() == f"AIBRIDGE_{name}: there is no such setting; did you mean AIBRIDGE_{meant}?"


def test_a_member_that_is_like_no_other_is_told_what_there_is(env: Setter) -> None:
    """The error for an unknown member without a similar one lists the possible ones."""
    env(MEMORY__XYZ="1")
    assert refused() == "AIBRIDGE_MEMORY__XYZ: there is no such setting; there are BODIES"


@pytest.mark.parametrize(
    ("names", "same"),
    [
        ("ADMIN_TOKEN CLIENT_KEYS__ALICE", "AIBRIDGE_ADMIN_TOKEN is the same as the client key of 'alice'"),
        ("AUDIT_TOKEN CLIENT_KEYS__ALICE", "AIBRIDGE_AUDIT_TOKEN is the same as the client key of 'alice'"),
        ("METRICS_TOKEN CLIENT_KEYS__ALICE", "AIBRIDGE_METRICS_TOKEN is the same as the client key of 'alice'"),
        ("METRICS_TOKEN ADMIN_TOKEN", "AIBRIDGE_METRICS_TOKEN is the same as AIBRIDGE_ADMIN_TOKEN"),
        ("METRICS_TOKEN AUDIT_TOKEN", "AIBRIDGE_AUDIT_TOKEN is the same as AIBRIDGE_METRICS_TOKEN"),
    ],
)
def test_tokens_that_are_the_same(env: Setter, names: str, same: str) -> None:
    """Equal tokens are refused, because a caller or a lesser role would become an administrator."""
    env(**dict.fromkeys(names.split(), VALUE))
    assert same in refused()


def test_a_token_whose_digest_is_a_client_key(env: Setter) -> None:
    """An admin token whose digest is listed as a client key is refused."""
    env(ADMIN_TOKEN=VALUE, CLIENT_KEYS__ALICE=f'["k", "sha256:{hashlib.sha256(VALUE.encode()).hexdigest()}"]')
    assert "the client key of 'alice'" in refused()


@pytest.mark.parametrize(
    ("type_", "url", "problem"),
    [
        ("openai", "https://api.openai.com", "has no version path"),
        ("openai", "https://h/v1/v1/", "has /v1 twice"),
        ("openai", "https://h/v1/chat/completions", "ends in /chat/completions"),
        ("anthropic", "https://api.anthropic.com/v1", "ends in /v1"),
        ("anthropic", "https://h/v1/messages", "ends in /messages"),
        ("openai", "https://h/v1", None),
        ("openai", "https://h/v1beta/openai/", None),
        ("openai", "https://h/api/paas/v4", None),
        ("anthropic", "https://h/anthropic", None),
    ],
)
def test_base_urls_that_look_wrong_are_pointed_at(
    caplog: pytest.LogCaptureFixture, type_: str, url: str, problem: str | None
) -> None:
    """An unusual base URL causes a warning, not an error, because some servers need it."""
    settings = Settings.load(providers={"one": {"type": type_, "base_url": url, "api_key": "k"}})
    warn_of_base_urls(settings.providers)
    assert caplog.messages == ([] if problem is None else [caplog.messages[0]])
    if problem is not None:
        assert caplog.messages[0].startswith(f"AIBRIDGE_PROVIDERS__ONE__BASE_URL {problem}")


@pytest.mark.parametrize(
    "name",
    [
        f"{OPENAI}APIKEY",
        f"{OPENAI}CIRCUIT_BREAKER__THRESHOLD",
        f"{OPENAI}API_KEY__X",
        "POOL__SIZE",
        "RECORDER__CAPTURE",
        "MCP_SERVERS__FILES__TOKEN",
    ],
)
def test_unknown_names_below_a_section_are_refused(env: Setter, name: str) -> None:
    """Unknown names below a section are refused, because a misspelled one would leave a default in force."""
    if not name.endswith("API_KEY__X"):
        env(**{f"{OPENAI}API_KEY": "sk-1"})
    env(MCP_SERVERS__FILES__URL="http://h")
    env(**{name: VALUE})
    assert f"AIBRIDGE_{name.removesuffix('__X')}" in refused()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PROVIDER__OPENAI__API_KEY", "AIBRIDGE_PROVIDERS"),
        ("PROVIDERS_OPENAI_API_KEY", "AIBRIDGE_PROVIDERS__"),
        ("CLIENT_KEY__ALICE", "AIBRIDGE_CLIENT_KEYS"),
        ("ADMIN_TOKENS", "AIBRIDGE_ADMIN_TOKEN"),
        ("POOL_TTL", "AIBRIDGE_POOL__"),
        ("SHUTDOWN_GRACE_PERIOD", "AIBRIDGE_SHUTDOWN_GRACE"),
    ],
)
def test_unknown_names_at_the_top_are_warned_of(
    env: Setter, caplog: pytest.LogCaptureFixture, name: str, meant: str
) -> None:
    """Unknown names at the top cause a warning, because others may use the prefix; it suggests a similar name."""
    env(**{name: VALUE})
    Settings.load()
    assert f"AIBRIDGE_{name}" in caplog.text
    assert meant in caplog.text
    assert VALUE not in caplog.text


def test_variables_of_kubernetes_are_no_mistake(env: Setter, caplog: pytest.LogCaptureFixture) -> None:
    """The variables that Kubernetes sets for a service named aibridge cause no warning."""
    env(SERVICE_HOST="10.0.0.1", SERVICE_PORT="80", PORT="tcp://10.0.0.1:80", PORT_80_TCP_ADDR="10.0.0.1")
    Settings.load()
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["admin", "healthz", "readyz", "open ai", "Open", "a/b", "-a", "", "ä"])
def test_names_that_no_provider_can_have(name: str) -> None:
    """Names that would hide the gateway's own routes, or are no path segment, are refused."""
    text = refused(providers={name: {"type": "openai", "api_key": VALUE}})
    assert text.startswith("AIBRIDGE_PROVIDERS: ")
    assert repr(name) in text


def test_a_provider_without_a_key(env: Setter) -> None:
    """A provider needs a key unless it is disabled or callers bring their own; the error names all variables."""
    env(**{f"{OPENAI}ENABLED": "true"})
    text = refused()
    for name in (f"AIBRIDGE_{OPENAI}API_KEY", f"AIBRIDGE_{OPENAI}API_KEYS", "OPENAI_API_KEY", "BYOK"):
        assert name in text
    env(**{f"{OPENAI}BYOK": "true"})
    assert Settings.load().providers["openai"].keys == ()
    env(**{f"{OPENAI}BYOK": "false", f"{OPENAI}ENABLED": "false"})
    assert Settings.load().providers["openai"].keys == ()


def test_client_keys_that_are_the_same(env: Setter) -> None:
    """Equal client keys are refused even if one is given as its digest, because the caller would be ambiguous."""
    env(CLIENT_KEYS__ALICE=VALUE, CLIENT_KEYS__BOB=VALUE)
    text = refused()
    assert "'alice'" in text
    assert "'bob'" in text
    env(CLIENT_KEYS__BOB=f"sha256:{hashlib.sha256(VALUE.encode()).hexdigest().upper()}")
    assert "same client key" in refused()


def test_an_empty_client_key() -> None:
    """An empty client key is refused."""
    assert refused(client_keys={"alice": " "}) == "AIBRIDGE_CLIENT_KEYS__ALICE is empty"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (f'admin_token = "{VALUE}', "cannot be read as TOML"),
        (f"shutdown_grace = 1\nadmin_token = {VALUE}", "(at line 2, column 15), in the value of admin_token"),
        (f'admin_tokn = "{VALUE}"', "did you mean AIBRIDGE_ADMIN_TOKEN? (in "),
        (f'[pool]\nttl = "{VALUE}"', "AIBRIDGE_POOL__TTL"),
        (f'[client_keys]\nalice = {{ key = "{VALUE}" }}', "AIBRIDGE_CLIENT_KEYS__ALICE"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, content: str, told: str) -> None:
    """Errors in the file are named like variables; unknown names are refused even at the top."""
    file = tmp_path / "aibridge.toml"
    file.write_text(content)
    text = refused(config_file=file)
    assert told in text
    assert str(file) in text


def test_the_file_is_named_where_the_value_is_the_files(env: Setter, tmp_path: Path) -> None:
    """The error names the file only if no variable, which takes precedence, sets the value."""
    file = tmp_path / "aibridge.toml"
    file.write_text(f'[pool]\nttl = "{VALUE}"')
    env(CONFIG_FILE=str(file))
    assert refused().endswith(f"(in {file}: pool.ttl)")
    env(POOL__TTL=VALUE)
    assert str(file) not in refused()


def test_files_that_cannot_be_read(env: Setter, tmp_path: Path) -> None:
    """If a file cannot be read, the error names the variable that names the file."""
    env(CONFIG_FILE=str(tmp_path / "missing.toml"))
    assert refused().startswith("AIBRIDGE_CONFIG_FILE: ")
    (tmp_path / "latin.toml").write_bytes(b'admin_token = "\xe9"')
    env(CONFIG_FILE=str(tmp_path / "latin.toml"))
    assert refused().startswith("AIBRIDGE_CONFIG_FILE: ")
    env(CONFIG_FILE=str(tmp_path))
    assert refused().startswith("AIBRIDGE_CONFIG_FILE: ")


def test_secrets_that_cannot_be_read(env: Setter, tmp_path: Path) -> None:
    """A missing secrets directory and a secret that is not text are errors."""
    env(SECRETS_DIR=str(tmp_path / "missing"))
    assert refused().startswith("AIBRIDGE_SECRETS_DIR: ")
    (tmp_path / "aibridge_admin_token").write_bytes(b"s3cret\xff")
    env(SECRETS_DIR=str(tmp_path))
    assert refused().startswith("AIBRIDGE_SECRETS_DIR: ")


def test_a_wrong_secret_is_named_as_its_variable(tmp_path: Path) -> None:
    """An error in a secret names the variable, which is the file's name."""
    (tmp_path / "aibridge_providers__openai__api_keys").write_text(VALUE)
    assert refused(secrets_dir=tmp_path).startswith("AIBRIDGE_PROVIDERS__OPENAI__API_KEYS: ")


def test_pydantics_own_error_hides_values_too(env: Setter) -> None:
    """An app that creates the settings itself gets an error without values too."""
    env(POOL__TTL=VALUE, ADMIN_TOKEN=f"{VALUE} x")
    with pytest.raises(ValidationError) as error:
        Settings()
    assert VALUE not in str(error.value)


def test_settings_do_not_change(env: Setter) -> None:
    """Settings are immutable: a reload creates new ones, and running requests keep theirs."""
    env(**{f"{OPENAI}API_KEY": "sk-1"})
    settings = Settings.load()
    with pytest.raises(ValidationError):
        settings.max_body_size = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.providers["openai"].enabled = False  # type: ignore[misc]
