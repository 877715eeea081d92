"""A provider's address, credentials, routes and error shape. Subclass `Provider` for a provider of your own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from ..errors import GatewayError
from ..formats.format import Format
from ..masking import Masker, secrets_in_headers
from ..principal import Principal
from ..settings import DEFAULT_BASE_URLS, ProviderSettings
from ..upstream.breaker import CircuitBreakers
from ..upstream.keys import BYOK, CENTRALIZED, Credential, KeyPool
from ..upstream.message import HeaderValue
from ..upstream.origin import TimeLimits, origin_of
from ..upstream.proxy import proxy_for
from .own_headers import OwnHeaders, actor_headers
from .routes import Route, Routes

_IN_QUERY = "!$%&'()*+,-./:;<=>?@[\\]^_`{|}~\""
"""Characters that are not encoded in a query: all visible ones but `#`, which would end it."""


class Provider(ABC):
    """One configured provider.

    A reload makes a new one where its settings changed; its mutable state, `breakers` and `keys`, is shared by all
    bridges.
    """

    type: ClassVar[str]
    intercepted: ClassVar[Mapping[str, Format]]
    """Wire formats, by the path below the provider's name."""
    passed_through: ClassVar[tuple[Route, ...]]
    """Routes that are relayed without being parsed; the first match counts."""
    slashes_below: ClassVar[tuple[str, ...]] = ("v1/models/",)
    """Paths below which names may have encoded slashes."""
    base_path: ClassVar[str] = ""
    """The part of the gateway's paths that the base URL already has."""
    list_headers: ClassVar[frozenset[str]] = frozenset()
    """Headers whose value is a list, in lower case: the gateway adds to the caller's value rather than replacing it."""

    def __init__(self, name: str, settings: ProviderSettings) -> None:
        self.name = name
        self.settings = settings
        self.enabled = settings.enabled
        self.byok = settings.byok
        self.base_url = str(settings.base_url or DEFAULT_BASE_URLS[self.type]).rstrip("/")
        host = next((value for name, value in settings.extra_headers.items() if name.lower() == "host"), None)
        self.origin, self._path = origin_of(
            self.base_url,
            ca_file=str(settings.ca_file) if settings.ca_file else None,
            client_cert=str(settings.client_cert) if settings.client_cert else None,
            proxy=proxy_for(settings.proxy.get_secret_value() if settings.proxy else None, self.base_url),
            authority=host.get_secret_value() if host else None,
        )
        self.limits = TimeLimits(
            settings.connect_timeout, settings.first_byte_timeout or settings.read_timeout, settings.read_timeout
        )
        self.keys = KeyPool(key.get_secret_value() for key in settings.keys)
        self.breakers = CircuitBreakers(settings.circuit_breaker)
        further = (Route(path=path, models="anywhere") for path in settings.pass_through)
        self.routes = Routes(
            name,
            self.intercepted,
            (*self.passed_through, *further),
            slashes_below=self.slashes_below,
        )
        self._targets = {path: self._target(path) for path in self.intercepted}
        self._own_headers: dict[Credential, OwnHeaders] = {}  # of centralized keys only
        self._masker = Masker(
            [key.get_secret_value() for key in settings.keys]
            + secrets_in_headers(value.get_secret_value() for value in settings.extra_headers.values())
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, base_url={self.base_url!r})"

    @property
    def status(self) -> str:
        return "enabled" if self.enabled else "disabled"

    def target(self, raw_path: str, query: bytes) -> bytes:
        """Return the upstream path and query for a path as the client wrote it.

        The query is passed on; only characters that no query may have are encoded.
        """
        if not query and (known := self._targets.get(raw_path)):
            return known
        return self._target(raw_path, query)

    def _target(self, raw_path: str, query: bytes = b"") -> bytes:
        path = self._path + raw_path.removeprefix(self.base_path)
        return (f"{path}?{quote(query, safe=_IN_QUERY)}" if query else path).encode("ascii")

    def credential(self, own: str | None, principal: Principal) -> Credential:
        """Choose a request's credential; `own` is the key that the caller brought.

        Raises `GatewayError`, 401 or 403.
        """
        if own is not None:
            if not self.byok:
                raise GatewayError(
                    403,
                    "byok_disabled",
                    f"provider {self.name!r} takes no key of the caller's own: "
                    f"AIBRIDGE_PROVIDERS__{self.name.upper()}__BYOK is not true",
                )
            return Credential(own, BYOK)
        if not len(self.keys):
            raise GatewayError(
                401, "key_required", f"provider {self.name!r} needs your own key beside X-AIBridge-Token"
            )
        return self.keys.choose(principal.initiator_id)

    def masker(self, credential: Credential) -> Masker:
        """Return a masker for the provider's keys, the secrets in its headers, and the key in use."""
        return self._masker if credential.kind == CENTRALIZED else self._masker.including(credential.key)

    def take_over(self, other: Provider) -> None:
        """Take over the state of the provider that this one replaces, if it has the same type and settings."""
        if type(other) is type(self) and other.settings == self.settings:
            self.keys, self.breakers = other.keys, other.breakers

    def with_own_headers(
        self, headers: list[tuple[bytes, bytes]], credential: Credential, principal: Principal
    ) -> list[tuple[bytes, HeaderValue]]:
        """Return a request's headers with the gateway's, which replace those of the same name; see `list_headers`."""
        own = self._own_headers.get(credential)
        if own is None:
            own = OwnHeaders(self.own_headers(credential), self.list_headers)
            if credential.kind == CENTRALIZED:
                self._own_headers[credential] = own
        added = own.added_to(headers)
        if self.settings.send_actor_headers:
            added += actor_headers(principal)
        return added

    def own_headers(self, credential: Credential) -> list[tuple[str, str]]:
        """Return the headers that the gateway adds to each request: credential and configured headers."""
        extra = self.settings.extra_headers.items()
        configured = [(name, value.get_secret_value()) for name, value in extra if name.lower() != "host"]
        return [*self.authorizations(credential.key), *configured]

    @abstractmethod
    def authorization(self, key: str) -> tuple[str, str]:
        """Return the header that carries a key."""

    def authorizations(self, key: str) -> list[tuple[str, str]]:
        """Return the header of the key, and others that the provider demands with it."""
        return [self.authorization(key)]

    @abstractmethod
    def error_body(self, error: GatewayError) -> dict[str, Any]:
        """Return the body of an error response in the provider's shape."""
