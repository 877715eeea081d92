"""Runs an admitted request, in any format, streamed or not: records its start, runs its rounds, records its end."""

from __future__ import annotations

import asyncio
import logging

from opentelemetry.trace import Tracer
from starlette.types import Send

from ..cluster.rate_limits import Ticket
from ..errors import GatewayError
from ..formats.input_size import SMALL, input_tokens
from ..formats.responses.message import ResponseMessage
from ..formats.scanner import finish
from ..money.account import Account
from ..recorder import Status
from ..upstream.keys import BYOK
from .admission import Admitted
from .background import Waiting
from .costs import Costs
from .engine import Engine
from .fair_queue import Share
from .interception_log import InterceptionLog
from .interruption import ClientGone, Interruption
from .loop import Loop
from .opening import Opening
from .response_writer import ResponseWriter
from .steps import in_steps
from .tool_runs import ToolRuns
from .toolset import Toolset
from .upstream_calls import UpstreamCalls

logger = logging.getLogger(__name__)


class Exchange:
    """One admitted request and its response."""

    __slots__ = ("_admitted", "_calls", "_costs", "_engine", "_log", "_loop", "_share", "_toolset", "_writer")

    def __init__(
        self,
        engine: Engine,
        share: Share,
        admitted: Admitted,
        send: Send,
        tracer: Tracer | None = None,
        toolset: Toolset | None = None,
    ) -> None:
        self._admitted = admitted
        self._engine = engine
        interception = admitted.interception()
        self._costs = None
        if engine.prices is not None:
            self._costs = Costs(
                engine.prices, admitted.provider, admitted.request, admitted.format.name, interception.started_at
            )
        self._log = InterceptionLog(
            engine.recorder,
            engine.metrics,
            engine.lines,
            interception,
            admitted.request,
            admitted.ticket,
            self._costs,
        )
        self._writer = ResponseWriter(send, self._log.id)
        self._calls = UpstreamCalls(engine, admitted, tracer)
        self._share = share
        self._toolset = toolset
        self._loop = self._new_loop()

    def _new_loop(self) -> Loop:
        engine, admitted = self._engine, self._admitted
        memory = engine.tool_memory.of((*admitted.principal.key, admitted.provider.name))
        opening = Opening(engine.refusals, engine.metrics, admitted, self._toolset, memory, engine.max_text)
        tools = opening.toolset
        return Loop(
            opening,
            self._calls,
            memory,
            self._writer,
            self._share,
            self._log,
            None if tools is None else ToolRuns(tools, engine.metrics, engine.max_text),
            admitted.headers.get(b"accept-encoding", b""),
            self._costs,
        )

    async def run(self, interruption: Interruption) -> None:
        """Run everything from the record's start to its end. Errors become responses in the provider's shape.

        Raises only `CancelledError`, if the task is cancelled from outside.
        """
        engine, admitted = self._engine, self._admitted
        account = None
        try:
            await self._loop.prepare()
            if engine.budgets.is_on or admitted.principal.budgets:
                account = await self._start_within_budgets()
            else:
                await self._log.start()
        except GatewayError as problem:
            engine.metrics.refused(problem.code)
            await self._writer.fail(admitted.provider, problem, None)
            return
        status, error = Status.CANCELLED, None
        try:
            with interruption:
                if account is not None:
                    self._writer.add_headers(account.headers())
                    if account.fallback is not None:
                        await self._fall_back(account.fallback)
                if self._admitted.ticket is not None:
                    await self._pass_limits(self._admitted.ticket)
                await self._loop.run(interruption)
            status, error = self._outcome()
        except ClientGone:
            pass
        except asyncio.CancelledError:
            # The server ends the request, mostly because it shuts down; the client may still be connected.
            error = "the server ended the request"
            await self._fail(_given_up())
            raise
        except OSError:
            logger.debug("interception %s: the client cannot be written to", self._log.id)
        except GatewayError as problem:
            problem.message = self._calls.masker().text(problem.message)
            status, error = Status.FAILED, problem.for_record
            await self._fail(problem)
        except Exception:
            logger.exception("interception %s failed", self._log.id)
            status, error = Status.FAILED, "internal error of the gateway"
            await self._fail(GatewayError(500, "internal_error", "the gateway failed"))
        finally:
            if not (self._admitted.request.background and await self._goes_on()):
                await self._log.end(
                    status,
                    error,
                    self._loop.facts(),
                    message_id=self._loop.rounds.message.id,
                    upstream_status=self._calls.status,
                    credential_hint=self._calls.credential.hint,
                    masker=self._calls.masker(),
                )

    async def _pass_limits(self, ticket: Ticket) -> None:
        """Wait until the rate limits admit the request. They were asked before the start was recorded, so this rarely
        waits. Raises `GatewayError`.
        """
        try:
            await ticket.admitted()
        except GatewayError as error:
            self._engine.metrics.refused(error.code)
            raise
        finally:
            self._writer.add_headers(ticket.headers)

    async def _start_within_budgets(self) -> Account | None:
        """Record the start with a reservation for the first call. Return the account, None if no budget applies.

        Raises `GatewayError`.
        """
        admitted = self._admitted
        account = None
        if admitted.credential.kind != BYOK:  # callers with their own key pay for themselves
            account = await self._engine.budgets.account(
                admitted.principal, admitted.provider, admitted.request, self._log.started_at
            )
        if account is None:
            await self._log.start()
            return None
        steps = input_tokens(self._loop.rounds.body)
        given = finish(steps) if len(self._loop.rounds.body) <= SMALL else await in_steps(steps, self._share)
        await self._log.start(account, given)
        return account

    async def _fall_back(self, model: str) -> None:
        """Change to the fallback model of a budget. Raises `GatewayError`."""
        await in_steps(self._admitted.use_model(model), self._share)
        loop = self._new_loop()
        await loop.prepare()
        self._loop = loop

    async def _goes_on(self) -> bool:
        """Hand the interception of a background response over, if the provider goes on with it.

        Return whether the record's end now waits for the outcome.
        """
        message = self._loop.rounds.message
        if not isinstance(message, ResponseMessage) or not message.pending:
            return False
        admitted = self._admitted
        waiting = Waiting(
            log=self._log,
            principal=admitted.principal,
            provider=admitted.provider,
            credential=self._calls.credential,
            response_id=message.id,
            upstream_status=self._calls.status,
            max_text=self._engine.max_text,
        )
        facts = message.facts()
        if self._costs is not None and self._engine.background.has_room:
            self._costs.wait(facts)
        goes_on = await self._engine.background.wait_for(waiting, facts)
        if admitted.ticket is not None:
            admitted.ticket.goes_on = goes_on
        return goes_on

    def _outcome(self) -> tuple[Status, str | None]:
        status = self._calls.status or 0
        error = self._loop.rounds.message.error or self._loop.problem
        if self._calls.problem:
            error = f"{self._calls.problem}: {error or status}"
        if error or not 200 <= status < 300:
            return Status.FAILED, error or f"the upstream answered with status {status}"
        return Status.COMPLETED, None

    async def _fail(self, error: GatewayError) -> None:
        failed = self._admitted.client.ignores_error_events
        await self._writer.fail(self._admitted.provider, error, self._loop.rounds, failed=failed)


def _given_up() -> GatewayError:
    return GatewayError(503, "shutting_down", "the server ended the request; try again", headers={"retry-after": "1"})
