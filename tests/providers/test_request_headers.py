"""Request headers: those of SDKs and known agents are sent upstream, those about the caller are not."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import product

import pytest

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.providers.request_headers import MAX_HEADERS, RequestHeaders, check_headers

PLAIN = [
    (b"content-type", b"application/json"),
    (b"user-agent", b"codex_cli_rs/0.1"),
    (b"anthropic-version", b"2023-06-01"),
    (b"anthropic-beta", b"a"),
    (b"anthropic-beta", b"b"),
    (b"x-stainless-retry-count", b"0"),
    (b"idempotency-key", b"k"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]

# The headers that each client was seen to send, besides its credentials and what HTTP needs.
SENT_BY_CLIENTS = {
    "Claude Code": """accept anthropic-beta anthropic-dangerous-direct-browser-access anthropic-version content-type
        user-agent x-app x-claude-code-session-id x-claude-code-agent-id x-claude-code-parent-agent-id
        x-client-request-id x-stainless-arch x-stainless-lang x-stainless-os x-stainless-package-version
        x-stainless-retry-count x-stainless-runtime x-stainless-runtime-version
        x-stainless-timeout x-stainless-helper-method""",
    "Codex": """accept content-type conversation_id originator session_id session-id thread-id user-agent version
        x-client-request-id x-codex-beta-features x-codex-turn-metadata x-codex-turn-state x-codex-window-id
        x-openai-subagent openai-beta x-responsesapi-include-timing-metrics""",
    "OpenAI SDK": """accept content-type user-agent x-stainless-arch x-stainless-async x-stainless-lang x-stainless-os
        x-stainless-package-version x-stainless-raw-response x-stainless-read-timeout x-stainless-retry-count
        x-stainless-runtime x-stainless-runtime-version x-stainless-poll-helper openai-beta idempotency-key""",
    "Kilo Code": """http-referer x-title user-agent x-kilocode-taskid x-kilocode-version x-kilocode-editorname
        x-session-id originator""",
    "OpenCode": """user-agent x-opencode-session x-opencode-request x-opencode-client x-opencode-project x-session-id
        x-session-affinity x-parent-session-id""",
    "GitHub Copilot": """copilot-integration-id copilot-vision-request editor-version editor-plugin-version x-initiator
        openai-intent x-interaction-id x-interaction-type x-github-api-version x-request-id vscode-sessionid
        vscode-machineid x-agent-task-id x-client-session-id x-vscode-user-agent-library-version""",
    "qwen-code": "x-dashscope-cachecontrol x-dashscope-useragent user-agent",
    "Mux, Cursor, pi": "x-mux-workspace-id x-cursor-client-version session_id",
}


def up(
    *headers: tuple[bytes, bytes],
    own_account: bool = False,
    private: Iterable[bytes] = (),
    forwarded: Iterable[str] = (),
) -> list[str]:
    rule = RequestHeaders(forwarded=forwarded, private=private)
    return [name.decode("latin-1") for name, _ in rule.going_up(headers, own_account=own_account)]


def goes(name: str, *, own_account: bool = False, forwarded: Iterable[str] = ()) -> bool:
    return up((name.encode("latin-1"), b"x"), own_account=own_account, forwarded=forwarded) == [name]


def test_the_callers_headers_go_up() -> None:
    """Headers are sent in order, repeated ones as often as received."""
    assert RequestHeaders().going_up(PLAIN, own_account=False) == list(PLAIN)


@pytest.mark.parametrize("client", SENT_BY_CLIENTS)
def test_what_known_clients_send_goes_up(client: str) -> None:
    """All headers of known clients are sent, so that a provider sees the client as without the gateway."""
    assert [name for name in SENT_BY_CLIENTS[client].split() if not goes(name)] == []


@pytest.mark.parametrize("name", ["anthropic-next-beta", "openai-new-thing", "x-stainless-new", "x-codex-tomorrow"])
def test_families_are_open(name: str) -> None:
    """New headers in the families of vendors and agents are sent without a new release of the gateway."""
    assert goes(name)


NEVER = """authorization x-api-key api-key x-goog-api-key cookie cookie2 proxy-authorization x-aibridge-token
    x-aibridge-actor-id x-aibridge-anything host content-length accept-encoding connection keep-alive proxy-connection
    te trailer transfer-encoding upgrade expect via forwarded x-forwarded-for x-forwarded-host x-forwarded-proto
    x-real-ip x-forwarded-user x-forwarded-email x-forwarded-access-token x-forwarded-client-cert
    x-http-method-override x-http-method x-method-override x-original-url x-rewrite-url
    x-goog-iap-jwt-assertion x-goog-authenticated-user-email x-goog-authenticated-user-id
    x-amzn-oidc-data x-amzn-oidc-identity x-amzn-oidc-accesstoken x-amz-security-token x-amzn-mtls-clientcert
    cf-access-jwt-assertion cf-access-authenticated-user-email cf-access-client-secret cf-connecting-ip cf-ipcountry
    true-client-ip x-client-ip x-auth-request-email x-auth-request-user x-auth-request-access-token
    x-auth-request-groups x-ms-token-aad-access-token x-ms-token-aad-id-token x-ms-client-principal
    x-ms-client-principal-name x-authentik-jwt x-pomerium-jwt-assertion x-vouch-idp-accesstoken x-consumer-username
    x-webauth-user remote-user tailscale-user-login oidc-claim-email x-id-token x-access-token ssl-client-s-dn
    referer origin baggage sec-fetch-site sec-fetch-mode sec-ch-ua sec-websocket-key sec-gpc dnt
    access-control-request-method""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", NEVER)
def test_what_is_meant_for_us_stays(name: str) -> None:
    """Credentials, cookies, hop-by-hop headers, data of proxies and browsers about the caller, and headers that change
    the request are never sent, whatever the settings say and in either spelling.
    """
    forms = {name, name.replace("-", "_"), name.replace("-", "_", 1)}
    for form, own_account, forwarded in product(forms, (False, True), ((), ("*",), (name,), (name.upper(), "x-*"))):
        assert not goes(form, own_account=own_account, forwarded=forwarded), (form, own_account, forwarded)


@pytest.mark.parametrize(
    "name", ["x-user-token", "x-team", "x-employee-number", "tracestate", "x-amzn-trace-id", "x_stainless_lang", "x-a"]
)
def test_what_nobody_knows_stays(name: str) -> None:
    """Unknown headers are not sent, because an unknown proxy may name its users in them."""
    assert not goes(name)
    assert not goes(name, own_account=True)


def test_the_settings_name_more() -> None:
    """The settings allow more headers: by name in any case, by prefix, or all that are not forbidden."""
    headers = [(b"x-team", b"1"), (b"x-house-a", b"2"), (b"x-house-b", b"3"), (b"x-other", b"4"), (b"origin", b"5")]
    assert up(*headers, forwarded=["X-Team"]) == ["x-team"]
    assert up(*headers, forwarded=["X-House-*"]) == ["x-house-a", "x-house-b"]
    assert up(*headers, forwarded=["*"]) == ["x-team", "x-house-a", "x-house-b", "x-other"]


def test_secrets_go_up_by_name_only() -> None:
    """Headers that look like secrets need their exact name in the settings, or a known family if the caller pays."""
    assert not goes("x-gitlab-token", forwarded=["*"])
    assert not goes("x-gitlab-token", forwarded=["x-gitlab-*"])
    assert goes("x-gitlab-token", forwarded=["x-gitlab-token"])
    assert not goes("x-openai-actor-authorization")
    assert goes("x-openai-actor-authorization", own_account=True)


def test_a_star_lets_no_second_spelling_through() -> None:
    """A star does not allow `content_type` and the like: some servers would read it as `content-type`."""
    for name in ("content_type", "content_encoding", "anthropic_beta", "x_request_id"):
        assert not goes(name, forwarded=["*"])
    assert goes("session_id", forwarded=["*"])


def test_a_setting_without_effect_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A forbidden header in the settings is logged with the reason for which it is not sent."""
    RequestHeaders(forwarded=["Cookie", "x-team"])
    assert [record.getMessage() for record in caplog.records] == ["FORWARD_HEADERS: cookie never goes to a provider"]


def test_headers_that_a_connection_names_stay() -> None:
    """Headers named by the request's `Connection` header are hop-by-hop (RFC 9110, section 7.6.1)."""
    headers = [(b"x-a", b"1"), (b"connection", b"close, X-A"), (b"x-b", b"2"), (b"connection", b"x-c"), (b"x-c", b"3")]
    assert up(*headers, forwarded=["*"]) == ["x-b"]
    assert up((b"connection", b"keep-alive"), (b"x-app", b"1")) == ["x-app"]


def test_private_headers_stay() -> None:
    """Headers for the app's own authentication, or private by the settings, are not sent in either spelling."""
    private = [b"X-Session", b"x-app", b"x_tenant"]
    headers = [(b"x-session", b"s"), (b"x_session", b"s"), (b"x-app", b"1"), (b"x-tenant", b"t"), (b"x-a", b"1")]
    assert up(*headers, private=private, forwarded=["*"]) == ["x-a"]


def test_whose_account_pays_is_the_payers_choice() -> None:
    """Headers for organization, project and account are sent only if the caller's own credential pays."""
    headers = [(name, b"x") for name in (b"openai-organization", b"openai-project", b"chatgpt-account-id")]
    assert up(*headers, (b"openai-beta", b"b")) == ["openai-beta"]
    assert len(up(*headers, (b"openai-beta", b"b"), own_account=True)) == 4


@pytest.mark.parametrize("value", [b"na\xc3\xafve", b"na\xefve", b"", b"\xe2\x82\xac"])
def test_values_beyond_ascii_are_the_same_bytes_upstream(value: bytes) -> None:
    """Bytes beyond ASCII are sent unchanged, whether they are UTF-8 or not."""
    assert RequestHeaders().going_up([(b"x-app", value)], own_account=False) == [(b"x-app", value)]


@pytest.mark.parametrize(
    "name", [b"x-codex-a b", b"x-codex-a:b", b"x-codex-\xe9", b"x-codex-(", b"x-codex-" + b"a" * 200]
)
def test_what_is_no_name_stays(name: bytes) -> None:
    """A header with an invalid name is not sent: a caller in process might send one, though HTTP servers refuse it."""
    assert up((name, b"x"), forwarded=["*"]) == []


def test_invented_names_fill_no_memory() -> None:
    """The cache of judged names is bounded, however many names callers invent."""
    rule = RequestHeaders(forwarded=["*"])
    for number in range(5000):
        rule.going_up([(b"x-codex-%d-" % number + b"a" * (number % 200), b"x")], own_account=bool(number % 2))
    for judged in (rule._central, rule._own):
        assert judged.cache_info().currsize <= 512
    assert rule.going_up([(b"x-app", b"x")], own_account=False) == [(b"x-app", b"x")]


@pytest.mark.parametrize("byte", [*range(9), *range(10, 32), 127])
def test_control_characters_are_refused(byte: int) -> None:
    """A control character in a name or value is refused with 400; the error names the header without the character."""
    for header in ((b"x-app", b"a" + bytes([byte]) + b"b"), (b"x-" + bytes([byte]) + b"app", b"ab")):
        with pytest.raises(GatewayError, match="'x-app'") as refused:
            check_headers([(b"host", b"x"), header])
        assert (refused.value.status, refused.value.code) == (400, "invalid_header")


def test_what_headers_may_have_passes() -> None:
    """Tabs and bytes beyond ASCII are allowed in values."""
    check_headers([(b"x-app", b"a\tb"), (b"x-b", bytes(range(128, 256))), (b"c", b"")])


def test_headers_have_a_size() -> None:
    """The total size of names and values is limited."""
    check_headers([(b"a", b"x" * (MAX_HEADERS - 1))])
    with pytest.raises(GatewayError) as refused:
        check_headers([(b"ab", b"x" * (MAX_HEADERS - 1))])
    assert refused.value.status == 431
    assert sys.getsizeof(str(refused.value)) < 1000
