"""What goes wrong between the gateway and an upstream, and what it means to the client and to the operator."""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import GatewayError, UpstreamTimeout, UpstreamUnreachable
from .proxy import TunnelRefused

_CAUSES = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "the network is unreachable",
    errno.ETIMEDOUT: "the connection timed out",
    errno.EMFILE: "this process has too many open files",
    errno.ENFILE: "this machine has too many open files",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A connection or an answer that failed. A value, not an exception: an exception that is kept and raised refers to
    the frames it went through, and those to whoever keeps it.
    """

    text: str
    """For the client: says nothing of hosts and addresses."""
    cause: str = ""
    """For log and record: the cause, and who it was."""
    timed_out: bool = False
    sent: bool = True
    """Whether the upstream may have got the request."""
    answered: bool = False
    """Whether it has answered, and been paid for it: to ask again would only cost more."""

    def error(self) -> GatewayError:
        error = UpstreamTimeout(self.text) if self.timed_out else UpstreamUnreachable(self.text, sent=self.sent)
        error.cause = self.cause
        error.is_final = self.answered
        return error


BROKEN_OFF = Failure("the upstream broke the connection off")
SILENT = Failure("the upstream did not answer in time", timed_out=True)


def refused(why: str, *, answered: bool = False) -> Failure:
    """An answer that is no HTTP, or not what may be relayed."""
    return Failure(f"the upstream's answer cannot be read: {why}", answered=answered)


def redirected(status: int, location: str) -> GatewayError:
    """A redirect, which nobody follows: the request carries a credential and what the caller said."""
    text = f"the provider answered with a redirect (status {status}), which is not followed; its base URL may be wrong"
    error = GatewayError(502, "upstream_redirect", text)
    try:
        parts = urlsplit(location)
        host = parts.hostname or "a path of its own"
    except ValueError:
        host = "what is no URL"
    error.cause = f"to {host[:256]}"
    error.upstream_status = status
    error.is_final = True
    return error


def not_connected(error: Exception, who: str) -> Failure:
    """Why no connection came about; `who` is the origin, and the proxy where there is one."""
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or "handshake failed"
        return Failure(
            "the upstream's TLS certificate or handshake is not acceptable", f"TLS to {who}: {why}", sent=False
        )
    if isinstance(error, TimeoutError) and not getattr(error, "errno", None):
        text = "the upstream did not answer in time"
        return Failure(text, f"no connection to {who} in time", timed_out=True, sent=False)
    if isinstance(error, TunnelRefused):
        return Failure("the upstream cannot be reached through the proxy", f"{who}: {error}", sent=False)
    if isinstance(error, socket.gaierror):
        cause = "the name is not known"
    else:
        number = getattr(error, "errno", None)
        cause = _CAUSES.get(number or 0) or type(error).__name__
    return Failure(f"the upstream cannot be reached: {cause}", f"{who}: {cause}", sent=False)
