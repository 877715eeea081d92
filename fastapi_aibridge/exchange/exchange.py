"""The one engine for all formats, streamed or not: admit, record the start, call upstream, relay and observe, run
injected tools and go round, record the end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from functools import partial

from opentelemetry.trace import Tracer
from starlette.types import Receive, Scope, Send

from ..credentials import own_key
from ..errors import GatewayError, RecorderUnavailable
from ..formats import Format, ModelRequest, Observer
from ..formats.rounds import Rounds
from ..observability.tracing import fail
from ..principal import Principal
from ..providers import Credential, Provider
from ..recorder import Ending, Facts, Interception, Prompt, Status, TokenUsage
from ..recorder.identifier import new_id
from ..upstream.response import UpstreamResponse
from .admission import read_request
from .calls import UpstreamRequest
from .client import Client, client_of
from .encoding import accepts_gzip
from .engine import Engine
from .fair_queue import Share
from .interruption import ClientGone, Interruption
from .masked_facts import mask_facts
from .memory import Holding
from .relay import relay_answer, relay_stream
from .reply import Reply
from .tool_loop import ToolLoop, WovenObserver
from .tool_memory import OwnMemory
from .toolset import Toolset

logger = logging.getLogger(__name__)


class Exchange:
    """One intercepted request and its response."""

    __slots__ = (
        "_client",
        "_credential",
        "_engine",
        "_format",
        "_headers",
        "_id",
        "_loop",
        "_observer",
        "_principal",
        "_problem",
        "_prompted",
        "_provider",
        "_raw_path",
        "_recorded",
        "_reply",
        "_route",
        "_scope",
        "_send",
        "_share",
        "_toolset",
        "_tracer",
        "_upstream_status",
        "_usages",
    )

    _client: Client
    _credential: Credential
    _observer: Observer
    _reply: Reply

    def __init__(
        self,
        engine: Engine,
        principal: Principal,
        share: Share,
        provider: Provider,
        route: str,
        raw_path: str,
        scope: Scope,
        send: Send,
        tracer: Tracer | None = None,
        toolset: Toolset | None = None,
    ) -> None:
        self._engine = engine
        self._principal = principal
        self._share = share
        self._provider = provider
        self._format: Format = provider.intercepted[route]
        self._route = route
        self._raw_path = raw_path
        self._scope = scope
        self._send = send
        self._tracer = tracer
        self._toolset = toolset
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._id = ""
        self._loop: ToolLoop | None = None
        self._problem = ""
        self._prompted = False
        self._usages: list[TokenUsage] = []
        self._recorded = False
        self._upstream_status: int | None = None

    def _header(self, name: str) -> str:
        return self._headers.get(name.encode(), b"").decode("latin-1")

    async def admit(self, receive: Receive, holding: Holding) -> tuple[ModelRequest, Credential]:
        """Read and check the request, whose body is held until it is over. Raises `GatewayError` and `ClientGone`."""
        request = await read_request(self._engine, self._format, self._scope, receive, self._share, holding)
        self._client = client_of(self._header, request.user_id if self._engine.capture_content else None)
        return request, self._provider.credential(own_key(self._headers), self._principal)

    async def run(self, request: ModelRequest, credential: Credential, interruption: Interruption) -> None:
        """Everything from the record's start to its end; errors become answers, in the provider's shape.

        Raises nothing but what cancels the task from outside.
        """
        engine = self._engine
        interception = self._interception(request, credential)
        self._id = interception.id
        self._credential = credential
        self._reply = Reply(self._send, self._id)
        try:
            await engine.recorder.start(interception)
        except asyncio.CancelledError:
            # It may have been written all the same, and what has begun must end.
            await self._record_end(Ending(status=Status.CANCELLED, ended_at=datetime.now(UTC)), Facts())
            raise
        except Exception as problem:
            # A recorder that says so has said why, once: an outage is no reason for a traceback a request.
            trace = None if isinstance(problem, RecorderUnavailable) else problem
            logger.error("interception %s could not be recorded and is refused", self._id, exc_info=trace)  # noqa: TRY400
            await self._reply.fail(self._provider, _not_recorded(), None)
            return
        engine.metrics.started()
        started = time.monotonic()
        self._observer = self._format.observer(request)
        status, error = Status.CANCELLED, None
        try:
            with interruption:
                await self._relay(request, credential, interruption)
            status, error = self._outcome()
        except ClientGone:
            pass
        except asyncio.CancelledError:
            # The server gives the request up, at its own end above all; the client may well be there.
            error = "the server ended the request"
            await self._reply.fail(self._provider, _given_up(), self._observer)
            raise
        except OSError:
            logger.debug("interception %s: the client cannot be written to", self._id)
        except GatewayError as problem:
            problem.message = self._masked(problem.message)
            status, error = Status.FAILED, problem.for_record
            await self._reply.fail(self._provider, problem, self._observer)
        except Exception:
            logger.exception("interception %s failed", self._id)
            status, error = Status.FAILED, "internal error of the gateway"
            await self._reply.fail(
                self._provider, GatewayError(500, "internal_error", "the gateway failed"), self._observer
            )
        finally:
            await self._end(interception, request, status, error, time.monotonic() - started)

    def _outcome(self) -> tuple[Status, str | None]:
        status, error = self._upstream_status or 0, self._observer.error
        if self._problem:
            error = f"{self._problem}: {error or status}"
        if error or not 200 <= status < 300:
            return Status.FAILED, error or f"the upstream answered with status {status}"
        return Status.COMPLETED, None

    async def _end(
        self, interception: Interception, request: ModelRequest, status: Status, error: str | None, seconds: float
    ) -> None:
        self._engine.metrics.ended(interception, status, seconds)
        loop, self._loop = self._loop, None  # the two hold each other, and would be left to the garbage collector
        facts = Facts()
        if not self._recorded:
            facts = self._observer.facts() if loop is None else loop.facts(self._observer)
        self._complete(request, facts)
        mask_facts(facts, self._provider.masker(self._credential))
        ending = Ending(
            status=status,
            ended_at=datetime.now(UTC),
            upstream_status=self._upstream_status,
            error=error and self._masked(error),
            credential_hint=self._credential.hint,
        )
        self._engine.lines.ended(interception, ending, seconds, self._usages)
        await self._record_end(ending, facts)

    def _masked(self, text: str) -> str:
        """Some providers repeat the key that they refuse."""
        return self._provider.masker(self._credential).text(text)

    async def _record_end(self, ending: Ending, facts: Facts) -> None:
        try:
            await self._engine.recorder.end(self._id, ending, facts)
        except Exception:
            logger.exception("the end of interception %s could not be recorded", self._id)

    def _interception(self, request: ModelRequest, credential: Credential) -> Interception:
        client = self._client
        return Interception(
            id=new_id(),
            initiator_id=self._principal.initiator_id,
            api_key_id=self._principal.api_key_id,
            provider=self._provider.name,
            provider_type=self._provider.type,
            route=self._route,
            model=request.model,
            streaming=request.streaming,
            client=client.name,
            user_agent=client.user_agent,
            session_id=client.session_id,
            correlating_tool_call_id=request.correlating_tool_call_id,
            credential_kind=credential.kind,
            credential_hint=credential.hint,
            metadata=self._principal.metadata,
            started_at=datetime.now(UTC),
            agent_id=client.agent_id,
            parent_agent_id=client.parent_agent_id,
            truncated=client.truncated,
        )

    async def _relay(self, request: ModelRequest, credential: Credential, interruption: Interruption) -> None:
        accept_encoding = self._headers.get(b"accept-encoding", b"")
        # Agents write titles and summaries beside their work, and bring no tools for that: there is nothing to call.
        aside = self._client.is_agent and request.offers_no_tools
        if self._toolset is not None and request.takes_tools and not aside:
            await self._go_round(self._toolset, request, credential, accept_encoding, interruption)
            return
        # Without tools, now: earlier requests may have had some.
        body = self._format.rounds.restored(request.body, self._memory())
        response = await self._call_upstream(request, credential, body)
        observer, reply = self._observer, self._reply
        try:
            if response.streams:
                await relay_stream(response, observer, reply, self._share)
                interruption.settle()
                await reply.finish()
            else:
                await relay_answer(response, observer, accept_encoding, reply, interruption)
        finally:
            response.close()

    async def _go_round(
        self,
        toolset: Toolset,
        request: ModelRequest,
        credential: Credential,
        accept_encoding: bytes,
        interruption: Interruption,
    ) -> None:
        memory = self._memory()
        rounds = self._format.rounds.begin(
            request.body,
            toolset.names,
            toolset.definitions(self._format),
            memory,
            usage_asked=request.usage_asked,
        )
        loop = self._loop = ToolLoop(
            rounds,
            toolset,
            self._reply,
            self._share,
            self._engine.metrics,
            new_observer=partial(self._observe_anew, request, rounds),
            call_upstream=partial(self._call_upstream, request, credential),
            round_ended=partial(self._round_ended, request),
            accept_encoding=accept_encoding,
        )
        await loop.run(memory, interruption)

    def _memory(self) -> OwnMemory:
        return self._engine.tool_memory.of((*self._principal.key, self._provider.name))

    def _observe_anew(self, request: ModelRequest, rounds: Rounds) -> Observer:
        self._observer, self._recorded = WovenObserver(self._format.observer(request), rounds), False
        return self._observer

    async def _round_ended(self, request: ModelRequest, facts: Facts) -> None:
        """Write down what a round showed, so that a crash in the next one does not lose it."""
        self._recorded = True
        self._complete(request, facts)
        mask_facts(facts, self._provider.masker(self._credential))
        try:
            await self._engine.recorder.observe(self._id, facts)
        except Exception:
            logger.exception("a round of interception %s could not be recorded", self._id)

    def _complete(self, request: ModelRequest, facts: Facts) -> None:
        """Add the prompts, once, and count the tokens."""
        if not self._prompted:
            self._prompted = True
            message_id = self._observer.message_id
            for text, source, truncated in request.prompts:
                prompt = Prompt(message_id=message_id, text=text, source=source, truncated=truncated)
                facts.prompts.append(prompt)
        self._usages += facts.token_usages
        for usage in facts.token_usages:
            self._engine.metrics.tokens(self._provider.name, usage)

    async def _call_upstream(self, request: ModelRequest, credential: Credential, body: bytes) -> UpstreamResponse:
        provider = self._provider
        headers = self._engine.request_headers.going_up(self._scope["headers"], own_account=credential.kind == "byok")
        # A stream comes as it is: whole events can be cut, and an error event added, only where nothing is compressed.
        compressed = not request.streaming and accepts_gzip(self._header("accept-encoding"))
        headers.append((b"accept-encoding", b"gzip" if compressed else b"identity"))
        if b"content-encoding" in self._headers:
            headers = [pair for pair in headers if pair[0] != b"content-encoding"]
        target = provider.target(self._raw_path, self._scope["query_string"])
        outgoing = UpstreamRequest(
            "POST", target, headers, body, credential, self._route, request.model, streaming=request.streaming
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
        try:
            response = await self._engine.caller.call(self._provider, self._principal, outgoing)
        except GatewayError as error:
            self._upstream_status = error.upstream_status or self._upstream_status
            raise
        finally:
            self._credential = outgoing.credential
        self._upstream_status = response.status
        self._problem = response.problem
        return response


def _given_up() -> GatewayError:
    return GatewayError(503, "shutting_down", "the server ended the request; try again", headers={"retry-after": "1"})


def _not_recorded() -> GatewayError:
    message = "the gateway cannot record requests now; try again"
    return GatewayError(503, "recorder_unavailable", message, headers={"retry-after": "5"})
