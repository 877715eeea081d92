"""Every error that this package raises on purpose.

AIBridgeError
├── ConfigurationError        the app is set up wrongly; the text names the remedy
│   ├── SettingsError         a setting does not validate; the text names its variable
│   └── PrincipalError        a principal that cannot be recorded; also a ValueError
├── BuildTimeout              a bridge took too long to start; the next acquire tries again
├── PoolShutdown              the pool hands out no more bridges
├── RecorderUnavailable       a record could not be written or read
├── RedisUnavailable          Redis cannot be reached; callers go on without it
└── GatewayError              an error response to the client, in the provider's error shape
    ├── UpstreamUnreachable   502
    └── UpstreamTimeout       504
"""

from __future__ import annotations

from collections.abc import Mapping


class AIBridgeError(Exception):
    pass


class ConfigurationError(AIBridgeError):
    pass


class SettingsError(ConfigurationError):
    pass


class PrincipalError(ConfigurationError, ValueError):
    """An invalid principal. `by_caller` says that the caller may have chosen the value, rather than the app's code."""

    def __init__(self, message: str, *, by_caller: bool = False) -> None:
        super().__init__(message)
        self.by_caller = by_caller


class BuildTimeout(AIBridgeError):
    def __init__(self, seconds: float) -> None:
        super().__init__(f"the bridge was not ready within {seconds:g} s; the next request tries again")


class PoolShutdown(AIBridgeError):
    def __init__(self) -> None:
        super().__init__("the bridge pool is shutting down and hands out no more bridges")


class RecorderUnavailable(AIBridgeError):
    pass


class RedisUnavailable(AIBridgeError):
    pass


class GatewayError(AIBridgeError):
    """An error that the client gets as a response. `code` is for programs, `message` for people."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.upstream_status: int | None = None
        """The status of the upstream's response, if that broke off after its head."""
        self.cause = ""
        """Details for log and record only, such as host names, which the client must not learn."""
        self.is_final = False
        """Whether a retry cannot help."""

    @property
    def for_record(self) -> str:
        """The message, followed by the cause if there is one."""
        return f"{self.message} ({self.cause})" if self.cause else self.message


class UpstreamUnreachable(GatewayError):
    """No usable response from the upstream. `sent` says whether the upstream may have received the request."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(502, "upstream_unreachable", message)
        self.sent = sent


class UpstreamTimeout(GatewayError):
    """No response from the upstream in time. `sent` says whether the upstream may have received the request."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(504, "upstream_timeout", message)
        self.sent = sent
