"""Every error that this package raises on purpose.

AIBridgeError
├── ConfigurationError        the app is put together wrongly; the text names the cure
│   ├── SettingsError         a setting does not validate; the text names its variable
│   └── PrincipalError        a principal that no record could name; also a ValueError
├── BuildTimeout              a bridge took too long to connect; the next acquire tries again
├── PoolShutdown              the pool hands out no more bridges
├── RecorderUnavailable       a record could not be made durable
├── RedisUnavailable          Redis cannot be asked now; its callers go on without
└── GatewayError              an answer to the client, in the provider's error shape
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
    """`by_caller` says that the caller may have chosen the value; otherwise it is the app's code that is wrong."""

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
    """An error of the gateway itself. `code` is a short word for programs, `message` a sentence for people."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.upstream_status: int | None = None
        """What the upstream had answered, where its answer then broke off."""
        self.cause = ""
        """More for log and record, where there is more to say than the client may know: names of hosts above all."""
        self.is_final = False
        """Whether another try cannot help."""

    @property
    def for_record(self) -> str:
        """The message, and the cause where there is one."""
        return f"{self.message} ({self.cause})" if self.cause else self.message


class UpstreamUnreachable(GatewayError):
    """`sent` tells whether the upstream may have got the request."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(502, "upstream_unreachable", message)
        self.sent = sent


class UpstreamTimeout(GatewayError):
    def __init__(self, message: str) -> None:
        super().__init__(504, "upstream_timeout", message)
