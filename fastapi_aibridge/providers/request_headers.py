"""Decides which request headers go upstream: those that the vendors' SDKs and the known agents send.

It is a list of allowed headers, not of refused ones, because each proxy in front of a gateway has headers of its own in
which it identifies the user.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from functools import lru_cache, partial
from itertools import chain

from ..errors import GatewayError
from ..upstream.message import RawHeaders

logger = logging.getLogger(__name__)

MAX_HEADERS = 64 * 1024
"""Bytes of a request's headers, names and values. HTTP servers may accept far more, and providers far less."""
_CONTROLS = bytes([*range(9), *range(10, 32), 127])
"""Control characters that no header may have (RFC 9110, section 5.5); a tab is allowed."""

_SENT = frozenset(
    b"""accept accept-charset accept-language cache-control content-encoding content-language content-type
    idempotency-key if-match if-modified-since if-none-match pragma prefer range user-agent
    client-request-id request-id x-client-request-id x-correlation-id x-ms-client-request-id x-request-id traceparent
    conversation_id conversation-id session_id session-id thread_id thread-id
    x-conversation-id x-session-affinity x-session-id x-thread-id
    chatgpt-account-id editor-device-id editor-plugin-version editor-version http-referer originator version
    vscode-machineid vscode-sessionid x-agent-task-id x-app x-client-name x-client-session-id x-client-version
    x-github-api-version x-goog-api-client x-initiator x-onbehalf-extension-id x-parent-session-id x-title""".split()
)
"""Headers that are sent, beside the vendors' and agents' families. `http-referer` and `x-title` are how programs name
themselves to OpenRouter; no browser sends them.
"""

_FAMILIES = tuple(
    b"""anthropic- copilot- openai- x-anthropic- x-claude- x-cline- x-codex- x-copilot- x-crush- x-cursor- x-dashscope-
    x-factory- x-grok- x-interaction- x-kilocode- x-msh- x-mux- x-oai- x-openai- x-opencode- x-openrouter-
    x-responsesapi- x-roo- x-stainless- x-vscode- x-xai- x-zed-""".split()
)
"""Prefixes of the vendors' and the agents' headers: a new beta passes without a new release of the gateway."""

_ACCOUNT = frozenset({b"openai-organization", b"openai-project", b"chatgpt-account-id"})
"""Headers that choose whose account pays: with the gateway's credential the caller must not choose."""

_SECRET = re.compile(
    rb"(?:^|-)(?:authorization|tokens?|secret|password|jwt|cookie|assertion|credentials?|api-?key)(?:-|$)"
)
"""Matches names of headers that carry a secret. With the gateway's credential none is sent that the settings do not
name.
"""

_NEVER = frozenset(
    b"""connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer
    transfer-encoding upgrade accept-encoding content-length expect host http2-settings max-forwards via
    api-key authorization cookie cookie2 x-api-key x-goog-api-key
    x-http-method x-http-method-override x-method-override x-original-host x-original-method x-original-uri
    x-original-url x-rewrite-url x-host
    origin referer dnt baggage from forwarded client-ip true-client-ip fastly-client-ip x-client-ip
    x-cluster-client-ip x-real-ip x-remote-addr x-remote-ip x-azure-clientip x-azure-socketip
    x-appengine-user-ip x-envoy-external-address x-envoy-original-path
    remote-user x-remote-user x-remote-group x-remote-groups x-user x-user-id x-user-email x-user-name x-username
    x-email x-groups x-userinfo x-id-token x-access-token x-end-user x-client-cert x-client-dn x-client-verify
    x-anonymous-consumer x-credential-identifier x-csrf-token x-xsrf-token x-csrftoken""".split()
)
"""Headers that are never sent, whatever the settings say: hop-by-hop headers (RFC 9110, section 7.6.1), headers that
the gateway writes itself, credentials, headers that make a server take the request for another than the one checked
here, and claims of browsers and proxies about the caller.
"""

_NEVER_BEGINS = tuple(
    b"""x-aibridge- x-forwarded- sec- access-control-
    cf- x-goog-iap- x-goog-authenticated-user- x-amzn-oidc- x-amzn-mtls- x-amz-security- x-appengine- x-auth-
    x-authenticated- x-authentik- x-authelia- x-ms-client-principal x-ms-token- x-client-cert- x-ssl- ssl-client-
    x-consumer- x-jwt- x-oauth- x-oidc- oidc- x-okta- x-pomerium- x-tailscale- tailscale- x-vouch- x-webauth-
    x-saml- x-shib- shib-""".split()
)
"""Prefixes of headers that are never sent: Cloudflare Access, Google IAP, AWS load balancers, Azure App Service,
oauth2-proxy, Authelia, Authentik, Envoy, Kong, Pomerium, Tailscale, mod_auth_openidc, Shibboleth, and the gateway's.
"""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
"""Matches a header's name (RFC 9110, section 5.6.2), up to the longest that is plausible."""
_REMEMBERED, _REMEMBERED_LENGTH = 512, 64
"""Names whose verdict is cached, and the bytes of the longest; callers may invent more."""


def check_headers(headers: Collection[tuple[bytes, bytes]]) -> None:
    """Refuse headers that are too large or have control characters. Raises `GatewayError`, 400 or 431."""
    joined = b"".join(chain.from_iterable(headers))
    if len(joined) > MAX_HEADERS:
        raise GatewayError(431, "headers_too_large", f"the request's headers are over {MAX_HEADERS} bytes")
    if len(joined.translate(None, _CONTROLS)) == len(joined):
        return
    broken = next(name for name, value in headers if set(name + value) & set(_CONTROLS))
    name = broken.translate(None, _CONTROLS)[:64].decode("ascii", "replace")
    raise GatewayError(400, "invalid_header", f"the header {name!r} has a control character in it")


class RequestHeaders:
    """The rule of one app.

    `forwarded` names further headers to send, `private` further ones to keep back; both in any case. A `*` at the end
    of a forwarded name stands for any ending.
    """

    __slots__ = ("_central", "_families", "_names", "_own", "_private")

    def __init__(self, *, forwarded: Iterable[str] = (), private: Iterable[bytes] = ()) -> None:
        named = [name.strip().lower().encode("latin-1", "replace") for name in forwarded]
        self._names = frozenset(name for name in named if not name.endswith(b"*"))
        self._families = tuple(name[:-1] for name in named if name.endswith(b"*"))
        self._private = frozenset(plain_name(name) for name in private)
        for name in sorted(self._names):
            if _is_forbidden(plain_name(name)):
                logger.warning("FORWARD_HEADERS: %s never goes to a provider", name.decode("latin-1"))
        # Cached: the rule is asked for each header of each request, and few names ever occur.
        self._central = lru_cache(_REMEMBERED)(partial(self._judged, own_account=False))
        self._own = lru_cache(_REMEMBERED)(partial(self._judged, own_account=True))

    def going_up(self, headers: RawHeaders, *, own_account: bool) -> list[tuple[bytes, bytes]]:
        """Return the caller's headers that go upstream, in order; the provider's credential is not among them yet.

        Names must be in lower case, as ASGI has them. `own_account` says that the caller pays with their own key.
        """
        remembered = self._own if own_account else self._central
        named = b""
        kept: list[tuple[bytes, bytes]] = []
        for name, value in headers:
            if remembered(name) if len(name) <= _REMEMBERED_LENGTH else self._judged(name, own_account=own_account):
                kept.append((name, value))
            elif name == b"connection":
                named += b"," + value.lower()
        return _without(kept, named) if named else kept

    def _judged(self, name: bytes, *, own_account: bool) -> bool:
        return _TOKEN.fullmatch(name) is not None and self._goes(name.lower(), own_account=own_account)

    def _goes(self, name: bytes, *, own_account: bool) -> bool:
        plain = plain_name(name)
        if _is_forbidden(plain) or plain in self._private:
            return False
        if name in self._names:
            return True
        if not own_account and (plain in _ACCOUNT or _SECRET.search(plain)):
            return False
        if name in _SENT or name.startswith(_FAMILIES):
            return True
        is_second_spelling = plain in _SENT or plain.startswith(_FAMILIES)
        return name.startswith(self._families) and not is_second_spelling and not _SECRET.search(plain)


def plain_name(name: bytes) -> bytes:
    """Return the form in which names are compared: some servers take `x_a` for `x-a`."""
    return name.lower().replace(b"_", b"-")


def _is_forbidden(plain: bytes) -> bool:
    return plain in _NEVER or plain.startswith(_NEVER_BEGINS)


def _without(kept: list[tuple[bytes, bytes]], named: bytes) -> list[tuple[bytes, bytes]]:
    """Drop the headers that a `Connection` header names (RFC 9110, section 7.6.1)."""
    names = {name.strip() for name in named.split(b",")}
    return [pair for pair in kept if pair[0] not in names]
