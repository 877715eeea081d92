"""The credentials of one principal for one MCP server."""

from __future__ import annotations

import asyncio
import re
import time

from pydantic import SecretStr

from ..errors import ConfigurationError
from ..masking import Masker, secrets_in_headers
from ..principal import Principal
from .problems import MCPProblem
from .server import MCPServer

_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_SESSION_KEY = "{session_key}"
_SECRET_NAME = re.compile("auth|cookie|credential|key|passw|secret|token")
"""Names of headers with secret values. Others may hold words, such as a tenant's name, that tools may repeat."""

TOKEN_TIMEOUT = 10.0
"""Seconds that a token provider may take."""
RENEW_EVERY = 5.0
"""Seconds for which a provider is not asked again, so that a server that refuses all tokens does not flood it."""


class Credentials:
    """The headers of every request. Only `_token` and `_renewed_at` change, while `_asking` is held."""

    __slots__ = ("_asking", "_headers", "_masker", "_provider", "_renewed_at", "_token", "left_out")

    def __init__(self, server: MCPServer, principal: Principal) -> None:
        key = _plain(principal.session_key or "")
        self.left_out = () if key else tuple(name for name, value in server.headers.items() if _SESSION_KEY in value)
        """Headers that need a session key which the principal does not have: an empty key would be a wrong one."""
        self._headers = {
            name.lower(): value.replace(_SESSION_KEY, key)
            for name, value in server.headers.items()
            if name not in self.left_out
        }
        secret = [value for name, value in self._headers.items() if _SECRET_NAME.search(name)]
        self._masker = Masker(secrets_in_headers([*secret, key]))
        self._provider = server.token_provider
        self._token: str | None = None
        self._renewed_at = -RENEW_EVERY
        self._asking: asyncio.Lock | None = None

    @property
    def masker(self) -> Masker:
        """Masks these credentials in texts in which the server repeats them."""
        return self._masker.including(self._token) if self._token else self._masker

    @property
    def renewable(self) -> bool:
        """Whether a refused token can be replaced by another."""
        return self._provider is not None

    async def headers(self) -> dict[str, str]:
        """Return the headers, names in lower case. Raises `MCPProblem` without a token, or for an invalid value."""
        headers = dict(self._headers)
        if self._provider is not None:
            headers["authorization"] = f"Bearer {self._token or await self._ask(None)}"
        if not all(_HEADER_VALUE.fullmatch(value) for value in headers.values()):
            raise MCPProblem("its headers have characters that no header may have")
        return headers

    async def renew(self, refused: dict[str, str]) -> bool:
        """Whether a request refused with 401 is worth a retry: its headers have changed. Raises `MCPProblem`."""
        if self._provider is None:
            return False
        return f"Bearer {await self._ask(refused['authorization'])}" != refused["authorization"]

    async def _ask(self, refused: str | None) -> str:
        assert self._provider is not None  # noqa: S101 - for the type checker
        self._asking = self._asking or asyncio.Lock()
        async with self._asking:
            is_refused = f"Bearer {self._token}" == refused
            if self._token is None or (is_refused and time.monotonic() - self._renewed_at >= RENEW_EVERY):
                if is_refused:
                    self._renewed_at = time.monotonic()
                try:
                    async with asyncio.timeout(TOKEN_TIMEOUT):
                        token = _plain(await self._provider())
                except ConfigurationError as error:  # our own words
                    raise MCPProblem(f"its token provider failed: {error}") from None
                except Exception as error:  # noqa: BLE001 - the app's code: whatever it raises costs this server only
                    raise MCPProblem(f"its token provider failed with {type(error).__name__}") from None
                if not token:
                    raise MCPProblem("its token provider gave no token")
                self._token = token
            return self._token


def _plain(secret: SecretStr | str) -> str:
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret
