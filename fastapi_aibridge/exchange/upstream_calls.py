"""The upstream calls of one interception, one for each round, which differ only in their bodies."""

from __future__ import annotations

from opentelemetry.trace import Tracer

from ..errors import GatewayError
from ..formats.large_text import BodyText
from ..masking import Masker
from ..observability.tracing import fail
from ..upstream.keys import BYOK
from ..upstream.response import UpstreamResponse
from .admission import Admitted
from .calls import UpstreamRequest
from .encoding import accepts
from .engine import Engine


class UpstreamCalls:
    __slots__ = ("_admitted", "_engine", "_headers", "_target", "_tracer", "credential", "problem", "status")

    def __init__(self, engine: Engine, admitted: Admitted, tracer: Tracer | None) -> None:
        self._engine = engine
        self._admitted = admitted
        self._tracer = tracer
        self.credential = admitted.credential
        """The credential of the last call, which may be another key than the first."""
        self.status: int | None = None
        """The status of the upstream's last response."""
        self.problem = ""
        """A problem of the last response that the response itself does not tell."""
        own_account = self.credential.kind == BYOK
        headers = engine.request_headers.going_up(admitted.scope["headers"], own_account=own_account)
        # A stream is requested uncompressed, because events can be cut and added only in plain text.
        accepted = b"" if admitted.request.streaming else admitted.headers.get(b"accept-encoding", b"")
        compressed = bool(accepted) and accepts(accepted.decode("latin-1"), "gzip")
        headers.append((b"accept-encoding", b"gzip" if compressed else b"identity"))
        if b"content-encoding" in admitted.headers:
            headers = [pair for pair in headers if pair[0] != b"content-encoding"]
        self._headers = headers
        self._target = admitted.provider.target(admitted.raw_path, admitted.scope["query_string"])

    def masker(self) -> Masker:
        """Make a masker of the secrets that a provider may repeat: some quote the key that they refuse."""
        return self._admitted.provider.masker(self.credential)

    async def call(self, body: BodyText) -> UpstreamResponse:
        """Send this body and return the response. Raises `GatewayError`."""
        request, provider = self._admitted.request, self._admitted.provider
        outgoing = UpstreamRequest(
            "POST",
            self._target,
            self._headers,
            body,
            self.credential,
            self._admitted.route,
            request.model,
            streaming=request.streaming,
            holding=self._admitted.holding,
        )
        if self._tracer is None:
            return await self._call(outgoing)
        with self._tracer.start_as_current_span(
            "Intercept.ProcessRequest.Upstream",
            attributes={"aibridge.provider": provider.name, "gen_ai.request.model": request.model},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                response = await self._call(outgoing)
            except GatewayError as error:
                fail(span, error)
                raise
            span.set_attribute("http.response.status_code", response.status)
            return response

    async def _call(self, outgoing: UpstreamRequest) -> UpstreamResponse:
        admitted = self._admitted
        try:
            response = await self._engine.caller.call(admitted.provider, admitted.principal, outgoing)
        except GatewayError as error:
            self.status = error.upstream_status or self.status
            raise
        finally:
            self.credential = outgoing.credential
        self.status = response.status
        self.problem = response.problem
        return response
