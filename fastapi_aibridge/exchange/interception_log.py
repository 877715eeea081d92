"""Records an interception: its start, the facts of each round, its end; and counts it in the metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from datetime import UTC, datetime

from ..cancellation import is_cancelled
from ..cluster.rate_limits import Ticket
from ..errors import GatewayError, RecorderUnavailable
from ..formats.input_size import input_tokens
from ..formats.large_text import BodyText
from ..formats.request import ModelRequest
from ..masking import Masker
from ..money.account import Account
from ..observability import InterceptionLines, Metrics
from ..principal import Principal
from ..providers.provider import Provider
from ..recorder import Ending, Facts, Interception, Prompt, ProviderObject, Recorder, Status, TokenUsage
from ..recorder.identifier import new_id
from ..upstream.keys import Credential
from .client import Client
from .costs import Costs
from .fair_queue import Share
from .steps import in_steps

logger = logging.getLogger(__name__)


def new_interception(
    principal: Principal, provider: Provider, route: str, client: Client, credential: Credential, request: ModelRequest
) -> Interception:
    """Make the start of a request's record."""
    return Interception(
        id=new_id(),
        initiator_id=principal.initiator_id,
        api_key_id=principal.api_key_id,
        provider=provider.name,
        provider_type=provider.type,
        route=route,
        model=request.model,
        streaming=request.streaming,
        client=client.name,
        user_agent=client.user_agent,
        session_id=client.session_id,
        correlating_tool_call_id=request.correlating_tool_call_id,
        credential_kind=credential.kind,
        credential_hint=credential.hint,
        metadata=principal.metadata,
        started_at=datetime.now(UTC),
        agent_id=client.agent_id,
        parent_agent_id=client.parent_agent_id,
        truncated=client.truncated,
        groups=tuple(principal.groups),
    )


class InterceptionLog:
    """The record and the metrics of one interception."""

    __slots__ = (
        "_account",
        "_began",
        "_costs",
        "_interception",
        "_lines",
        "_metrics",
        "_prompts",
        "_recorder",
        "_ticket",
        "_usages",
        "id",
    )

    def __init__(
        self,
        recorder: Recorder,
        metrics: Metrics,
        lines: InterceptionLines,
        interception: Interception,
        request: ModelRequest,
        ticket: Ticket | None = None,
        costs: Costs | None = None,
    ) -> None:
        self.id = interception.id
        self._recorder = recorder
        self._metrics = metrics
        self._interception = interception
        self._prompts = request.prompts
        self._lines = lines
        self._ticket = ticket
        self._costs = costs
        self._usages: list[TokenUsage] = []
        self._began = 0.0
        self._account: Account | None = None

    @property
    def started_at(self) -> datetime:
        return self._interception.started_at

    async def start(self, account: Account | None = None, given: int = 0) -> None:
        """Record the start durably, together with the reservation of `account` for `given` input tokens.

        Raises `GatewayError`: 503 if it cannot be recorded, and what the account raises.
        """
        if self._costs is not None:
            await self._costs.ready()
        try:
            if account is None:
                await self._recorder.start(self._interception)
            else:
                self._account = account
                await account.start(self._interception, given)
        except asyncio.CancelledError as problem:
            if is_cancelled():
                # The start may have been recorded all the same, and then it needs an end.
                ending = Ending(status=Status.CANCELLED, ended_at=datetime.now(UTC))
                await self._recorded(self._recorder.end(self.id, ending, Facts()), "the end")
                raise
            raise self._refused(problem) from None
        except GatewayError:
            raise
        except Exception as problem:  # noqa: BLE001 - whatever a recorder raises
            # The recorder has logged its `RecorderUnavailable`; an outage needs no traceback for each request.
            raise self._refused(None if isinstance(problem, RecorderUnavailable) else problem) from None
        self._metrics.started()
        self._began = time.monotonic()

    def go_on(self) -> None:
        """Continue an interception whose start was recorded by a run of the app that has stopped since."""
        self._metrics.started()
        passed = datetime.now(UTC) - self._interception.started_at
        self._began = time.monotonic() - passed.total_seconds()

    def _refused(self, problem: BaseException | None) -> GatewayError:
        logger.error("interception %s could not be recorded and is refused", self.id, exc_info=problem)
        message = "the gateway cannot record requests now; try again"
        return GatewayError(503, "recorder_unavailable", message, headers={"retry-after": "5"})

    async def reserve(self, body: BodyText, share: Share) -> None:
        """Reserve the possible cost of a further call. Raises `GatewayError`."""
        if self._account is not None:
            spent = 0 if self._costs is None else self._costs.total or 0
            given = await in_steps(input_tokens(body), share)
            await self._account.reserve(self._interception.model, given, spent)

    async def made(self, objects: list[ProviderObject]) -> None:
        """Record the owner of objects that later requests may name."""
        await self._recorded(self._recorder.observe(self.id, Facts(objects=objects)), "a round")

    async def round_ended(self, facts: Facts, message_id: str, masker: Masker) -> None:
        """Record the facts of a round, so that a crash in the next one does not lose them."""
        self._complete(facts, message_id, masker)
        await self._recorded(self._recorder.observe(self.id, facts), "a round")

    def saw(self, tokens: int) -> None:
        """Note further output of a response in the background, which its client has read."""
        if self._costs is not None:
            self._costs.saw(tokens)

    async def _recorded(self, work: Awaitable[None], what: str) -> None:
        """Await a recorder. Its errors are logged."""
        try:
            await work
        except asyncio.CancelledError as problem:
            if is_cancelled():
                raise
            logger.error("%s of interception %s could not be recorded", what, self.id, exc_info=problem)  # noqa: TRY400
        except Exception:
            logger.exception("%s of interception %s could not be recorded", what, self.id)

    async def end(
        self,
        status: Status,
        error: str | None,
        facts: Facts,
        *,
        message_id: str,
        upstream_status: int | None,
        credential_hint: str | None,
        masker: Masker,
    ) -> None:
        """Record the end. Call it once. The errors of a recorder are logged."""
        interception = self._interception
        seconds = time.monotonic() - self._began
        self._metrics.ended(interception, status, seconds)
        self._complete(facts, message_id, masker, status)
        ending = Ending(
            status=status,
            ended_at=datetime.now(UTC),
            upstream_status=upstream_status,
            error=error and masker.text(error),
            credential_hint=credential_hint,
        )
        if self._costs is not None:
            self._tell_costs(self._costs, ending)
        self._lines.ended(interception, ending, seconds, self._usages)
        await self._recorded(self._recorder.end(self.id, ending, facts), "the end")

    def _tell_costs(self, costs: Costs, ending: Ending) -> None:
        begun = self._interception
        provider, model = begun.provider, begun.upstream_model or begun.model
        ending.cost, ending.cost_estimated = costs.total, costs.estimated
        if costs.total:
            self._metrics.cost(provider, model, costs.total)
        elif costs.unpriced:
            self._metrics.unpriced(provider)

    def _complete(self, facts: Facts, message_id: str, masker: Masker, outcome: Status | None = None) -> None:
        """Complete the facts with prompts (once) and costs, count their tokens, and mask secrets in them."""
        for text, source, truncated in self._prompts:
            facts.prompts.append(Prompt(message_id=message_id, text=text, source=source, truncated=truncated))
        self._prompts = []
        if self._costs is not None:
            self._costs.settle(facts, outcome)
        self._usages += facts.token_usages
        for usage in facts.token_usages:
            self._metrics.tokens(self._interception.provider, usage)
        if self._ticket is not None:
            self._ticket.count(sum(map(_counted, facts.token_usages)))
        # A provider or a tool may have repeated a secret.
        for call in facts.tool_usages:
            call.arguments = masker.json(call.arguments)
            call.error = call.error and masker.text(call.error)


def _counted(usage: TokenUsage) -> int:
    """Return the tokens that limits count, without those read from a cache, which are not computed again."""
    return usage.input_tokens + usage.cache_write_tokens + usage.output_tokens
