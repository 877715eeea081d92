"""Requests that are relayed without being understood: model lists, token counts, stored responses."""

from __future__ import annotations

from starlette.types import Message, Receive, Scope, Send

from ..credentials import own_key
from ..errors import GatewayError
from ..principal import Principal
from ..providers import Provider
from ..providers.routes import SAFE_METHODS, Route, Target
from ..upstream.keys import BYOK
from ..upstream.response import UpstreamResponse
from .body import read_body
from .calls import UpstreamRequest
from .engine import Engine
from .interruption import Interruption
from .memory import Holding
from .relay import answer_headers


class PassThrough:
    """One request and its answer, byte for byte in both directions."""

    __slots__ = ("_begun", "_engine", "_principal", "_provider", "_route", "_scope", "_send", "_target")

    def __init__(
        self,
        engine: Engine,
        principal: Principal,
        provider: Provider,
        target: Target,
        route: Route,
        scope: Scope,
        send: Send,
    ) -> None:
        self._engine = engine
        self._principal = principal
        self._provider = provider
        self._target = target
        self._route = route
        self._scope = scope
        self._send = send
        self._begun = False

    async def admit(self, receive: Receive, holding: Holding) -> UpstreamRequest:
        """Read and check the request, whose body is held until it is over. Raises `GatewayError` and `ClientGone`."""
        engine, provider, method = self._engine, self._provider, self._scope["method"]
        headers = dict(self._scope["headers"])
        credential = provider.credential(own_key(headers), self._principal)
        own = credential.kind == BYOK
        if method in self._route.organisation and not own and not provider.settings.allow_organisation_changes:
            raise _concerns_everybody(provider, method)
        body = await read_body(self._scope, receive, engine.max_body_size, holding)
        kept = engine.request_headers.going_up(self._scope["headers"], own_account=own)
        kept.append((b"accept-encoding", headers.get(b"accept-encoding", b"identity")))
        memory = engine.tool_memory.of((*self._principal.key, provider.name))
        target = provider.target(memory.path(self._target.raw_path), self._scope["query_string"])
        # Others may have changed something upstream when they break off, and are not sent again.
        return UpstreamRequest(method, target, kept, body, credential, repeatable=method in SAFE_METHODS)

    async def run(self, request: UpstreamRequest, interruption: Interruption) -> None:
        """Raises `GatewayError` while nothing has been sent, `ClientGone`, and `OSError` where the answer breaks off:
        then the server must close the connection, so that the client does not take the piece for the whole.
        """
        engine = self._engine
        try:
            with interruption:
                response = await engine.caller.call(self._provider, self._principal, request)
                engine.metrics.passed_through(self._provider.name, self._route.path, response.status)
                try:
                    await self._relay(response, interruption)
                finally:
                    response.close()
        except GatewayError as error:
            if self._begun:
                raise ConnectionAbortedError(error.message) from error
            raise

    async def _relay(self, response: UpstreamResponse, interruption: Interruption) -> None:
        chunk = await response.read_some()
        head = answer_headers(response)
        await self._tell({"type": "http.response.start", "status": response.status, "headers": head})
        while chunk:
            await self._tell({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk = await response.read_some()
        interruption.settle()
        await self._tell({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, message: Message) -> None:
        self._begun = True
        await self._send(message)


def _concerns_everybody(provider: Provider, method: str) -> GatewayError:
    message = (
        f"{method} here would change something for everybody who uses provider {provider.name!r}; "
        "the gateway's operator can allow it with ALLOW_ORGANISATION_CHANGES"
    )
    return GatewayError(403, "organisation_change", message)
