"""Resumes interceptions of background responses that the end of the app interrupted: a later request for the response
shows the outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from cachetools import TTLCache

from ..errors import RecorderUnavailable
from ..formats.request import ModelRequest
from ..money.prices import Prices
from ..observability import InterceptionLines, Metrics
from ..principal import Principal
from ..providers.provider import Provider
from ..recorder import Facts, InterceptionRecord, Recorder, ResumableRecorder
from ..upstream.keys import Credential
from .background import BackgroundResponses, Waiting
from .costs import Costs
from .interception_log import InterceptionLog

logger = logging.getLogger(__name__)

_REMEMBERED, _SECONDS = 4096, 60.0
"""Number of responses remembered as having no interrupted interception, and the seconds for which they are."""


class Resumption:
    """Finds interrupted interceptions in the records, and lets them wait for their outcome again."""

    def __init__(
        self,
        recorder: Recorder,
        metrics: Metrics,
        lines: InterceptionLines,
        prices: Callable[[], Prices | None],
        background: BackgroundResponses,
        max_text: int,
    ) -> None:
        self._recorder = recorder
        self._metrics = metrics
        self._lines = lines
        self._prices = prices
        self._background = background
        self._max_text = max_text
        self._in_vain: TTLCache[tuple[str, str], bool] = TTLCache(_REMEMBERED, _SECONDS)

    async def resume(
        self, principal: Principal, provider: Provider, account: Iterable[str], credential: Credential, response_id: str
    ) -> Waiting | None:
        """Resume the caller's interrupted interception that made this response; None if there is none to resume."""
        recorder, key = self._recorder, (provider.name, response_id)
        if not isinstance(recorder, ResumableRecorder) or key in self._in_vain or not self._background.has_room:
            return None
        found = None
        try:
            for name in account:
                if found is None:
                    found = await recorder.resume(name, response_id, principal.initiator_id)
        except RecorderUnavailable as problem:
            logger.debug("an interrupted interception cannot be looked for: %s", problem)
            return None
        if found is None or found.interception.credential_kind != credential.kind:
            self._in_vain[key] = True
            return None
        log = self._log(found, provider)
        status = found.ending.upstream_status if found.ending else None
        one = Waiting(log, principal, provider, credential, response_id, status, self._max_text)
        return self._background.take_up(one)

    def _log(self, found: InterceptionRecord, provider: Provider) -> InterceptionLog:
        begun = found.interception
        request = ModelRequest(model=begun.model, streaming=begun.streaming, body=b"")
        costs = None
        if (prices := self._prices()) is not None:
            costs = Costs(prices, provider, request, "responses", begun.started_at)
            costs.wait(Facts())
        return InterceptionLog(self._recorder, self._metrics, self._lines, begun, request, costs=costs)
