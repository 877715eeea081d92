"""A request's body, read within the limit and decoded."""

from __future__ import annotations

from starlette.types import Receive, Scope

from ..errors import GatewayError
from .encoding import DecodedTooLarge, UnsupportedEncoding, decode


class ClientGone(Exception):
    """The client left before the exchange was over."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The body as it was sent. Raises `GatewayError` 413, early where the length was announced, and `ClientGone`."""
    for name, value in scope["headers"]:
        # 19 digits are more than any limit, and more than 4,300 are none that `int` takes.
        if name == b"content-length" and value.isdigit() and (len(value) > 18 or int(value) > limit):
            raise too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body", False) and len(body) <= limit:
        return body
    pieces, size = [body], len(body)
    while message["type"] == "http.request" and message.get("more_body", False):
        if size > limit:
            raise too_large(limit)
        message = await receive()
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
    if message["type"] == "http.disconnect":
        raise ClientGone
    if size > limit:
        raise too_large(limit)
    return b"".join(pieces)


def decode_body(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its content encoding. Raises `GatewayError` 400, 413 or 415."""
    try:
        return decode(body, encoding, limit)
    except UnsupportedEncoding as error:
        raise GatewayError(415, "unsupported_encoding", str(error)) from None
    except DecodedTooLarge:
        raise too_large(limit) from None
    except ValueError as error:
        raise GatewayError(400, "bad_encoding", str(error)) from None


def too_large(limit: int) -> GatewayError:
    return GatewayError(413, "request_too_large", f"the request body is larger than {limit} bytes")
