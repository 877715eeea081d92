"""The one engine for all formats, streamed or not: admit, record the start, call upstream, relay and observe, record
the end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

import aiohttp
from opentelemetry.trace import Tracer
from starlette.types import Receive, Scope, Send

from .body import ClientGone, decode_body, read_body
from .client import guess_client, guess_session
from .credentials import own_key
from .encoding import Inflater, UnsupportedEncoding, accepts_gzip, decode
from .errors import GatewayError, UpstreamUnreachable
from .formats import Format, ModelRequest, Observer
from .formats.sse import Framer
from .interruption import Interruption
from .observability import Metrics
from .observability.tracing import fail
from .principal import Principal
from .providers import Credential, Provider
from .providers.headers import client_headers, upstream_headers
from .recorder import Ending, Interception, Prompt, Recorder, Status
from .recorder.identifier import new_id
from .refusal import send_error
from .upstream.client import UpstreamClient, leftovers, read_some

logger = logging.getLogger(__name__)

OBSERVED_SIZE = 64 * 1024 * 1024
"""Bytes of an answer that is no stream: so much is read before any is relayed; a larger one is not observed."""
FAREWELL = 2.0
"""Seconds that a slow client has to take the error that ends its response."""
INTERCEPTION_ID = b"x-aibridge-interception-id"


class Engine:
    """What the exchanges of all bridges of an app share."""

    def __init__(
        self,
        *,
        client: UpstreamClient,
        recorder: Recorder,
        metrics: Metrics,
        max_body_size: int,
        private_headers: frozenset[bytes] = frozenset(),
    ) -> None:
        self.client = client
        self.recorder = recorder
        self.metrics = metrics
        self.max_body_size = max_body_size
        self.private_headers = private_headers


class Exchange:
    """One intercepted request and its response."""

    __slots__ = (
        "_engine",
        "_format",
        "_head_sent",
        "_headers",
        "_id",
        "_interruption",
        "_principal",
        "_provider",
        "_raw_path",
        "_route",
        "_scope",
        "_send",
        "_streaming",
        "_tracer",
        "_upstream_status",
    )

    def __init__(
        self,
        engine: Engine,
        principal: Principal,
        provider: Provider,
        route: str,
        raw_path: str,
        scope: Scope,
        send: Send,
        tracer: Tracer | None,
    ) -> None:
        self._engine = engine
        self._principal = principal
        self._provider = provider
        self._format: Format = provider.intercepted[route]
        self._route = route
        self._raw_path = raw_path
        self._scope = scope
        self._send = send
        self._tracer = tracer
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._id = ""
        self._head_sent = False
        self._streaming = False
        self._upstream_status: int | None = None

    def _header(self, name: str) -> str:
        return self._headers.get(name.encode(), b"").decode("latin-1")

    async def admit(self, receive: Receive) -> tuple[ModelRequest, Credential]:
        """Read and check the request. Raises `GatewayError` and `ClientGone`."""
        engine = self._engine
        body = await read_body(self._scope, receive, engine.max_body_size)
        if encoding := self._header("content-encoding"):
            body = decode_body(body, encoding, engine.max_body_size)
        request = self._format.parse(body)
        return request, self._provider.credential(own_key(self._headers))

    async def run(self, request: ModelRequest, credential: Credential, interruption: Interruption) -> None:
        """Everything from the record's start to its end; errors become answers, in the provider's shape.

        Raises nothing but what cancels the task from outside.
        """
        engine = self._engine
        interception = self._interception(request, credential)
        self._id = interception.id
        try:
            await engine.recorder.start(interception)
        except Exception:
            logger.exception("interception %s could not be recorded and is refused", self._id)
            await self._fail(
                GatewayError(503, "recorder_unavailable", "the gateway cannot record requests now; try again",
                             headers={"retry-after": "5"}), None)  # fmt: skip
            return
        engine.metrics.started()
        started = time.monotonic()
        observer = self._format.observer(request)
        status, error = Status.CANCELLED, None
        try:
            with interruption:
                await self._relay(request, credential, observer, interruption)
            status, error = self._outcome(observer)
        except ClientGone:
            pass
        except OSError:
            logger.debug("interception %s: the client cannot be written to", self._id)
        except GatewayError as problem:
            status, error = Status.FAILED, problem.message
            await self._fail(problem, observer)
        except Exception:
            logger.exception("interception %s failed", self._id)
            status, error = Status.FAILED, "internal error of the gateway"
            await self._fail(GatewayError(500, "internal_error", "the gateway failed"), observer)
        finally:
            await self._end(interception, request, observer, status, error, started)

    def _outcome(self, observer: Observer) -> tuple[Status, str | None]:
        status = self._upstream_status or 0
        if observer.error or not 200 <= status < 300:
            return Status.FAILED, observer.error or f"the upstream answered with status {status}"
        return Status.COMPLETED, None

    async def _end(
        self,
        interception: Interception,
        request: ModelRequest,
        observer: Observer,
        status: Status,
        error: str | None,
        started: float,
    ) -> None:
        metrics = self._engine.metrics
        metrics.ended(interception, status, time.monotonic() - started)
        facts = observer.facts()
        for usage in facts.token_usages:
            metrics.tokens(interception.provider, usage)
        if request.prompt is not None:
            facts.prompts.append(Prompt(message_id=observer.message_id, text=request.prompt))
        ending = Ending(status=status, ended_at=datetime.now(UTC), upstream_status=self._upstream_status, error=error)
        logger.info(
            "interception %s %s: %s %s, upstream status %s",
            interception.id, status, interception.provider, interception.route, self._upstream_status,
        )  # fmt: skip
        try:
            await self._engine.recorder.end(interception.id, ending, facts)
        except Exception:
            logger.exception("the end of interception %s could not be recorded", interception.id)

    def _interception(self, request: ModelRequest, credential: Credential) -> Interception:
        client = guess_client(self._header)
        return Interception(
            id=new_id(),
            initiator_id=self._principal.initiator_id,
            api_key_id=self._principal.api_key_id,
            provider=self._provider.name,
            provider_type=self._provider.type,
            route=self._route,
            model=request.model,
            streaming=request.streaming,
            client=client,
            user_agent=self._header("user-agent") or None,
            session_id=guess_session(client, self._header, request.user_id),
            correlating_tool_call_id=request.correlating_tool_call_id,
            credential_kind=credential.kind,
            credential_hint=credential.hint,
            metadata=self._principal.metadata,
            started_at=datetime.now(UTC),
        )

    async def _relay(
        self, request: ModelRequest, credential: Credential, observer: Observer, interruption: Interruption
    ) -> None:
        response = await self._call_upstream(request, credential)
        self._upstream_status = response.status
        try:
            if response.status == 200 and response.headers.get("content-type", "").startswith("text/event-stream"):
                await self._stream(response, observer, interruption)
            else:
                await self._answer(response, observer, interruption)
        finally:
            response.close()

    async def _call_upstream(self, request: ModelRequest, credential: Credential) -> aiohttp.ClientResponse:
        provider = self._provider
        headers = upstream_headers(
            self._scope["headers"], self._engine.private_headers, own_account=credential.kind == "byok"
        )
        headers += provider.own_headers(credential, self._principal)
        # A stream comes as it is: whole events can be cut, and an error event added, only where nothing is compressed.
        compressed = not request.streaming and accepts_gzip(self._header("accept-encoding"))
        headers.append(("accept-encoding", "gzip" if compressed else "identity"))
        if b"content-encoding" in self._headers:
            headers = [pair for pair in headers if pair[0] != "content-encoding"]
        url = provider.url(self._raw_path, self._scope["query_string"])
        if self._tracer is None:
            return await self._engine.client.send("POST", url, headers, request.body, provider.timeout)
        with self._tracer.start_as_current_span(
            "Intercept.ProcessRequest.Upstream",
            attributes={"aibridge.provider": provider.name, "gen_ai.request.model": request.model},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                response = await self._engine.client.send("POST", url, headers, request.body, provider.timeout)
            except GatewayError as error:
                fail(span, error)
                raise
            span.set_attribute("http.response.status_code", response.status)
            return response

    async def _stream(self, response: aiohttp.ClientResponse, observer: Observer, interruption: Interruption) -> None:
        """Relay whole events as they come. Raises `GatewayError` where the stream breaks off."""
        encoding = response.headers.get("content-encoding", "identity")
        inflater: Inflater | None = None
        if encoding != "identity":
            try:
                inflater = Inflater(encoding, 2**63)
            except UnsupportedEncoding:
                await self._opaque(response, b"", interruption)
                return
        self._streaming = True
        head = client_headers(response.raw_headers, b"content-length", b"content-encoding")
        framer = Framer()

        async def relay(chunk: bytes) -> None:
            try:
                block = framer.feed(inflater.feed(chunk) if inflater else chunk)
            except ValueError as error:
                raise UpstreamUnreachable(f"the upstream's stream cannot be read: {error}") from error
            if block and (kept := observer.stream(block)):
                await self._send_piece(response.status, head, kept)

        try:
            while chunk := await read_some(response):
                await relay(chunk)
        except GatewayError:
            await relay(leftovers(response))
            raise
        if rest := framer.rest:
            # Some providers leave the last empty line out.
            kept = observer.stream(rest + b"\n\n")
            if kept and (observer.finished or observer.error):
                await self._send_piece(response.status, head, rest)
        if not observer.finished and observer.error is None:
            raise UpstreamUnreachable("the upstream's stream ended before its last event")
        interruption.settle()
        await self._send_piece(response.status, head, b"", more=False)

    async def _answer(self, response: aiohttp.ClientResponse, observer: Observer, interruption: Interruption) -> None:
        """Relay an answer that is no stream, whole: one that breaks off becomes an error that can be read."""
        pieces: list[bytes] = []
        size = 0
        while chunk := await read_some(response):
            pieces.append(chunk)
            size += len(chunk)
            if size > OBSERVED_SIZE:
                await self._opaque(response, b"".join(pieces), interruption)
                return
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        dropped = [b"content-length"]
        encoding = response.headers.get("content-encoding", "identity")
        decoded: bytes | None = body
        if encoding != "identity":
            try:
                decoded = decode(body, encoding, OBSERVED_SIZE)
            except ValueError:
                decoded = None
        if decoded is not None:
            observer.blocking(decoded)
            if encoding != "identity" and encoding.encode("latin-1") not in self._headers.get(b"accept-encoding", b""):
                body = decoded
                dropped.append(b"content-encoding")
        head = client_headers(response.raw_headers, *dropped)
        if response.status not in (204, 304):
            head.append((b"content-length", str(len(body)).encode()))
        interruption.settle()
        await self._send_head(response.status, head)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _opaque(self, response: aiohttp.ClientResponse, start: bytes, interruption: Interruption) -> None:
        """Relay what cannot be observed, as it comes."""
        await self._send_head(response.status, client_headers(response.raw_headers))
        chunk = start
        while True:
            if chunk:
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk = await read_some(response)
            if not chunk:
                break
        interruption.settle()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_piece(
        self, status: int, head: list[tuple[bytes, bytes]], piece: bytes, *, more: bool = True
    ) -> None:
        if not self._head_sent:
            await self._send_head(status, head)
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _send_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._head_sent = True
        headers.append((INTERCEPTION_ID, self._id.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _fail(self, error: GatewayError, observer: Observer | None) -> None:
        """Tell the client, as far as it can still be told."""
        try:
            async with asyncio.timeout(FAREWELL):
                if not self._head_sent:
                    headers = {"x-aibridge-interception-id": self._id} if observer else {}
                    await send_error(self._send, self._provider, error, headers)
                elif self._streaming and observer is not None:
                    last = observer.error_event(error)
                    await self._send({"type": "http.response.body", "body": last, "more_body": False})
        except (OSError, TimeoutError):
            logger.debug("interception %s: the client did not take the error", self._id)
