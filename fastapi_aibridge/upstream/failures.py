"""Failures between the gateway and an upstream: their texts for the client, and their causes for the operator."""

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
    """A failed connection or response.

    It is a value, not an exception: an exception that is kept and raised refers to the frames it went through, and
    those to its holder.
    """

    text: str
    """Text for the client, without hosts and addresses."""
    cause: str = ""
    """Text for log and record: the cause, and the origin."""
    timed_out: bool = False
    sent: bool = True
    """Whether the upstream may have received the request."""
    answered: bool = False
    """Whether the upstream has responded, and will bill for it: a retry would only cost more."""

    def error(self) -> GatewayError:
        kind = UpstreamTimeout if self.timed_out else UpstreamUnreachable
        error = kind(self.text, sent=self.sent)
        error.cause = self.cause
        error.is_final = self.answered
        return error


BROKEN_OFF = Failure("the upstream broke the connection off")
SILENT = Failure("the upstream did not answer in time", timed_out=True)


def refused(why: str, *, answered: bool = False) -> Failure:
    """Return the failure of a response that is not HTTP, or not one that may be relayed."""
    return Failure(f"the upstream's answer cannot be read: {why}", answered=answered)


def redirected(status: int, location: str) -> GatewayError:
    """Return the error for a redirect, which is not followed: the request has a credential and the caller's prompts."""
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
    """Return the failure to connect; `who` is the origin, and the proxy where there is one."""
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
