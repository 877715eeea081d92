"""Admits a request: reads and checks it, and finds the credential that pays for it."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from starlette.types import Receive, Scope

from ..cluster.rate_limits import Ticket
from ..credentials import byok_key
from ..formats.edits import with_member
from ..formats.format import Format
from ..formats.large_text import BodyText, Steps
from ..formats.members import SMALL
from ..formats.request import ModelRequest
from ..formats.scanner import finish
from ..principal import Principal
from ..providers.provider import Provider
from ..providers.routes import Target
from ..recorder import Interception
from ..upstream.keys import Credential
from .body import plain_body, read_body
from .body_budget import Holding
from .client import Client, client_of, header_of
from .engine import Engine
from .fair_queue import Share
from .interception_log import new_interception
from .interruption import Interruption
from .model_access import check_request
from .steps import in_steps


@dataclass(slots=True, kw_only=True)
class Admitted:
    """An admitted request. Not frozen, because freezing costs more than everything else here."""

    principal: Principal
    provider: Provider
    format: Format
    route: str
    raw_path: str
    scope: Scope
    headers: dict[bytes, bytes]
    body: BodyText
    """The client's body, without its content encoding."""
    request: ModelRequest
    credential: Credential
    client: Client
    holding: Holding
    ticket: Ticket | None = None
    """The request's ticket from the rate limits; None if no limit applies."""

    def use_model(self, model: str) -> Steps[None]:
        """Replace the model that the client requested."""
        name = orjson.dumps(model)
        same = self.request.body is self.body
        self.body = yield from with_member(self.body, "model", name)
        self.request.body = self.body if same else (yield from with_member(self.request.body, "model", name))
        self.request.model = model

    def interception(self) -> Interception:
        """Make the start of the request's record."""
        return new_interception(self.principal, self.provider, self.route, self.client, self.credential, self.request)


async def admit(
    engine: Engine,
    principal: Principal,
    provider: Provider,
    target: Target,
    scope: Scope,
    receive: Receive,
    share: Share,
    holding: Holding,
    interruption: Interruption,
) -> Admitted:
    """Read, decode and parse a request, in a block of `interruption`. Raises `GatewayError` and `ClientGone`."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    body = await read_body(scope, receive, engine.max_body_size, holding, interruption)
    if b"content-encoding" in headers:
        body = await plain_body(scope, body, engine.max_body_size, holding, share)
    format_ = provider.intercepted[target.path]
    reading = format_.read(body, engine.max_text)
    request = finish(reading) if len(body) <= SMALL else await in_steps(reading, share)
    if principal.models is not None:
        await check_request(principal, body, share)
    if request.body is not body:
        holding.hold(body, request.body)

    return Admitted(
        principal=principal,
        provider=provider,
        format=format_,
        route=target.path,
        raw_path=target.raw_path,
        scope=scope,
        headers=headers,
        body=body,
        request=request,
        credential=provider.credential(byok_key(headers), principal),
        client=client_of(header_of(headers), request.user_id if engine.capture_content else None),
        holding=holding,
    )
