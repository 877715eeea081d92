"""Relays requests that the gateway does not interpret: model lists, token counts, stored responses.

Requests that change something at the provider are recorded. Objects stored there under the organisation's key can be
reached by their owner only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.types import Message, Receive, Scope, Send

from ..credentials import byok_key
from ..errors import GatewayError
from ..formats import responses
from ..formats.large_text import BodyText, Steps, contains
from ..formats.references import Reference, made_in, references_in
from ..formats.relayed_text import RelayedText
from ..formats.request import ModelRequest
from ..formats.responses.message import ResponseMessage
from ..formats.rounds import Memory
from ..formats.single import SingleRound
from ..principal import Principal
from ..providers.provider import Provider
from ..providers.routes import SAFE_METHODS, Route, Target
from ..recorder import Facts, Status
from ..sse import Framer
from ..upstream.keys import BYOK, Credential
from ..upstream.response import UpstreamResponse
from .background import ANSWER_SIZE, Waiting
from .body import plain_body, read_body
from .body_budget import Holding
from .calls import UpstreamRequest
from .client import client_of, header_of
from .encoding import DecodedTooLarge, UnsupportedEncoding, decode
from .engine import Engine
from .fair_queue import Share
from .interception_log import InterceptionLog, new_interception
from .interruption import Interruption
from .model_access import MODELS_SIZE, check_passed, filtered
from .ownership import Account
from .relay import answer_headers, encoding_of
from .response_writer import INTERCEPTION_ID, send_rest
from .steps import in_steps

READ_SIZE = 1024 * 1024
"""Bytes of a response that are read for the ids of new objects; larger responses are relayed all the same."""


class PassThrough:
    """One request and its response, byte for byte in both directions. `account` is the provider's."""

    __slots__ = (
        "_account",
        "_begun",
        "_engine",
        "_holding",
        "_id",
        "_own_account",
        "_principal",
        "_provider",
        "_route",
        "_scope",
        "_send",
        "_share",
        "_status",
        "_target",
        "added",
    )

    def __init__(
        self,
        engine: Engine,
        principal: Principal,
        share: Share,
        provider: Provider,
        account: Account,
        target: Target,
        route: Route,
        scope: Scope,
        send: Send,
    ) -> None:
        self._engine = engine
        self._principal = principal
        self._share = share
        self._provider = provider
        self._account = account
        self._target = target
        self._route = route
        self._scope = scope
        self._send = send
        self._own_account = False
        self._begun = False
        self._id = ""
        self._status = 0
        self.added: dict[str, str] = {}
        """The gateway's own headers for the response, in lower case."""

    async def admit(self, receive: Receive, holding: Holding, interruption: Interruption) -> UpstreamRequest:
        """Read and check the request, in a block of `interruption`; its body is held until the request is over.

        Raises `GatewayError` and `ClientGone`.
        """
        engine, provider, method = self._engine, self._provider, self._scope["method"]
        self._holding = holding
        headers = dict(self._scope["headers"])
        credential = provider.credential(byok_key(headers), self._principal)
        self._own_account = credential.kind == BYOK
        if not self._own_account:
            await self._check_path(method)
        body = await read_body(self._scope, receive, engine.max_body_size, holding, interruption)
        if not self._own_account and self._route.names_objects and method == "POST":
            await self._check_body(body, holding)
        if self._principal.models is not None:
            await self._check_models(body, holding)
        kept = engine.request_headers.going_up(self._scope["headers"], own_account=self._own_account)
        accepted = headers.get(b"accept-encoding", b"identity")
        if self._filters:
            # The list is rewritten, so the provider's encoding and validators do not apply to it.
            accepted = b"identity"
            kept = [pair for pair in kept if not pair[0].startswith(b"if-")]
        kept.append((b"accept-encoding", accepted))
        memory = engine.tool_memory.of((*self._principal.key, provider.name))
        if memory.is_shared:
            await memory.recall_path(self._target.raw_path)
        if self._route.names_objects and b"content-encoding" not in headers:
            if memory.is_shared:
                await memory.recall(partial(_aliased, body), self._share)
            body = await in_steps(_aliased(body, memory), self._share)
        target = provider.target(memory.path(self._target.raw_path), self._scope["query_string"])
        # A request that broke off is retried only if its method cannot have changed anything upstream.
        return UpstreamRequest(method, target, kept, body, credential, repeatable=method in SAFE_METHODS)

    @property
    def _filters(self) -> bool:
        """Whether the response is a list of models that has to be reduced to those of the principal."""
        return self._route.models == "list" and self._principal.models is not None

    async def _check_models(self, body: BodyText, holding: Holding) -> None:
        """Check that the principal may use all models that the request names."""
        if self._route.models in ("body", "anywhere"):
            body = await plain_body(self._scope, body, self._engine.max_body_size, holding, self._share)
        method = self._scope["method"]
        await check_passed(self._principal, self._route, method, self._target.path, body, self._share)

    async def _check_path(self, method: str) -> None:
        """Check that the caller may use this method and path with the organisation's key."""
        provider, route = self._provider, self._route
        if method in route.organisation_methods and not provider.settings.allow_organisation_changes:
            raise _concerns_everybody(provider, method)
        if id_ := route.object_id(self._target.path):
            await self._check([Reference(route.kind, id_)])

    async def _check_body(self, body: BodyText, holding: Holding) -> None:
        """Check that the caller owns all objects that the body names."""
        body = await plain_body(self._scope, body, self._engine.max_body_size, holding, self._share)
        await self._check(await in_steps(references_in(body), self._share))

    async def _check(self, references: list[Reference]) -> None:
        await self._engine.ownership.check(self._principal.initiator_id, self._account, references)

    async def run(self, request: UpstreamRequest, interruption: Interruption) -> None:
        """Call the provider and relay the response.

        Raises `GatewayError` while nothing has been sent, `ClientGone`, and `OSError` if the response breaks off: the
        server must then close the connection, so that the client does not take the response for complete.
        """
        try:
            if self._route.changes(request.method):
                await self._run_recorded(request, interruption)
            else:
                await self._call(request, interruption)
        except GatewayError as error:
            if self._begun:
                raise ConnectionAbortedError(error.message) from error
            raise

    async def _run_recorded(self, request: UpstreamRequest, interruption: Interruption) -> None:
        """Run with a record of who changed what, when, and how it ended, durable before the provider is called."""
        engine = self._engine
        empty = ModelRequest(model="", streaming=False, body=b"")
        client = client_of(header_of(dict(self._scope["headers"])), None)
        route = f"{request.method} {self._route.path}"
        begun = new_interception(self._principal, self._provider, route, client, request.credential, empty)
        log = InterceptionLog(engine.recorder, engine.metrics, engine.lines, begun, empty)
        await log.start()
        self._id = log.id
        status, error = Status.CANCELLED, None
        try:
            await self._call(request, interruption)
            good = 200 <= self._status < 300
            status = Status.COMPLETED if good else Status.FAILED
            error = None if good else f"the upstream answered with status {self._status}"
        except GatewayError as problem:
            status, error = Status.FAILED, problem.message
            problem.headers[INTERCEPTION_ID] = log.id
            raise
        finally:
            await log.end(
                status,
                error,
                Facts(),
                message_id="",
                upstream_status=self._status or None,
                credential_hint=request.credential.hint,
                masker=self._provider.masker(request.credential),
            )

    async def _call(self, request: UpstreamRequest, interruption: Interruption) -> None:
        engine = self._engine
        with interruption:
            if request.method == "DELETE" and self._route.kind == "response":
                await self._ask_before_deletion(request.credential)
            response = await engine.caller.call(self._provider, self._principal, request)
            self._status = response.status
            engine.metrics.passed_through(self._provider.name, self._route.path, response.status)
            try:
                if self._filters and 200 <= response.status < 300:
                    await self._relay_models(response, interruption)
                elif self._route.creates and request.method == "POST" and 200 <= response.status < 300:
                    await self._relay_made(response, interruption)
                elif self._route.kind == "response" and (
                    waiting := await self._waiting(request.credential, response.status)
                ):
                    await self._relay_outcome(waiting, request.method, response, interruption)
                else:
                    await self._relay(response, interruption)
            finally:
                response.close()

    async def _relay(
        self,
        response: UpstreamResponse,
        interruption: Interruption,
        begun: bytes = b"",
        see: Callable[[bytes], None] | None = None,
    ) -> None:
        chunk = begun or await response.read_some()
        # A 204 or 304 may have the length that the body would have; servers take it for the actual one.
        dropped = (b"content-length",) if response.status in (204, 304) else ()
        head = self._head(response, *dropped)
        await self._tell({"type": "http.response.start", "status": response.status, "headers": head})
        while chunk:
            if see is not None:
                see(chunk)
            await self._tell({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk = await response.read_some()
        interruption.settle()
        await self._tell({"type": "http.response.body", "body": b"", "more_body": False})

    def _head(self, response: UpstreamResponse, *dropped: bytes) -> list[tuple[bytes, bytes]]:
        """Return the headers for the client: the upstream's, and the gateway's own."""
        head = answer_headers(response, *dropped, *(name.encode() for name in self.added))
        head += [(name.encode(), value.encode()) for name, value in self.added.items()]
        if self._id:
            head.append((INTERCEPTION_ID.encode(), self._id.encode()))
        return head

    async def _relay_models(self, response: UpstreamResponse, interruption: Interruption) -> None:
        body = b""
        if self._scope["method"] != "HEAD":
            answer = _decoded(response, await response.read_up_to(MODELS_SIZE, self._holding.hold_answer), MODELS_SIZE)
            body = await in_steps(filtered(answer, self._principal), self._share)
        head = self._head(response, b"content-length", b"content-encoding", b"etag", b"last-modified")
        if body:
            head.append((b"content-length", str(len(body)).encode()))
        interruption.settle()
        await self._tell({"type": "http.response.start", "status": response.status, "headers": head})
        await send_rest(self._tell, body)

    async def _waiting(self, credential: Credential, status: int) -> Waiting | None:
        """Find the interception whose outcome this response may tell. It must have used the same account."""
        segments = self._target.path.split("/")
        if len(segments) != 4 and segments[4:] != ["cancel"]:
            return None
        id_ = self._route.object_id(self._target.path)
        one = self._engine.background.waiting(self._account, id_)
        if one is None and credential.kind != BYOK and 200 <= status < 300:
            resume = self._engine.resumption.resume
            return await resume(self._principal, self._provider, self._account, credential, id_)
        if one is None or one.credential.kind != credential.kind:
            return None
        return one if credential.kind != BYOK or one.credential == credential else None

    async def _ask_before_deletion(self, credential: Credential) -> None:
        """Ask for the outcome of a background response, because afterwards nobody can tell what it cost.

        Raises `GatewayError` 503 if there is no memory for it: nothing is deleted then.
        """
        if (waiting := await self._waiting(credential, 200)) is not None:
            self._holding.hold_answer(min(ANSWER_SIZE, self._holding.limit))
            await self._engine.background.ask(waiting)
            self._holding.hold_answer(0)

    async def _relay_outcome(
        self, waiting: Waiting, method: str, response: UpstreamResponse, interruption: Interruption
    ) -> None:
        """Relay an upstream response about a background response, and read the outcome from it."""
        background = self._engine.background
        good = 200 <= response.status < 300
        if not good or method == "HEAD":
            await self._relay(response, interruption)
        elif method == "DELETE":
            await self._relay(response, interruption)
            await background.end(waiting, Status.CANCELLED, "the response was deleted before its outcome was known")
        elif response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            await self._relay_watched(waiting, response, interruption)
        else:
            body = await response.read_up_to(ANSWER_SIZE, self._holding.hold_answer)
            observer = waiting.observer()
            if observer.blocking(_decoded(response, body, ANSWER_SIZE)):
                await self._learn(waiting, observer)
            await self._relay(response, interruption, body)

    async def _relay_watched(self, waiting: Waiting, response: UpstreamResponse, interruption: Interruption) -> None:
        """Relay the stream of a background response, and read the outcome from it."""
        observer, framer, text = waiting.observer(), Framer(), RelayedText("responses")
        readable = encoding_of(response) == "identity"

        def see(chunk: bytes) -> None:
            nonlocal readable
            try:
                if readable and (block := framer.feed(chunk)):
                    observer.stream(block)
                    text.add(block)
            except ValueError:
                readable = False

        try:
            await self._relay(response, interruption, see=see)
        finally:
            waiting.log.saw(text.tokens())
        await self._learn(waiting, observer)

    async def _learn(self, waiting: Waiting, observer: SingleRound) -> None:
        message = observer.message
        if isinstance(message, ResponseMessage):
            await self._engine.background.learn(waiting, message)

    async def _relay_made(self, response: UpstreamResponse, interruption: Interruption) -> None:
        """Relay a response that names a new object, after its owner has been recorded."""
        body = await response.read_up_to(READ_SIZE, self._holding.hold_answer)
        if not self._own_account:
            made = made_in(_decoded(response, body, READ_SIZE), self._route.creates)
            await self._engine.ownership.note(self._principal.initiator_id, self._provider.name, made, self._id or None)
        await self._relay(response, interruption, body)

    async def _tell(self, message: Message) -> None:
        self._begun = True
        await self._send(message)


def _decoded(response: UpstreamResponse, body: bytes, limit: int) -> bytes:
    """Return the body without its content encoding; empty if it cannot be decoded."""
    try:
        return body if encoding_of(response) == "identity" else decode(body, encoding_of(response), limit)
    except (UnsupportedEncoding, DecodedTooLarge, ValueError):
        return b""


def _aliased(body: BodyText, memory: Memory) -> Steps[BodyText]:
    """Replace the previous response's id by the id that the provider knows. Invalid JSON is left to the provider."""
    if memory.empty or not (yield from contains(body, (b'"previous_response_id"',), 0, len(body))):
        return body
    try:
        return (yield from responses.aliased(body, memory))
    except ValueError:
        return body


def _concerns_everybody(provider: Provider, method: str) -> GatewayError:
    message = (
        f"{method} here would change something for everybody who uses provider {provider.name!r}; "
        "the gateway's operator can allow it with ALLOW_ORGANISATION_CHANGES"
    )
    return GatewayError(403, "organisation_change", message)
