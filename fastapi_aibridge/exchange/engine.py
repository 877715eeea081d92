"""The engine: everything that exchanges share and that outlives them."""

from __future__ import annotations

from ..cluster.rate_limits import RateLimits
from ..formats.request import MAX_TEXT
from ..money.budgets import Budgets
from ..money.prices import Prices
from ..observability import InterceptionLines, Metrics
from ..providers.request_headers import RequestHeaders
from ..recorder import Recorder
from ..recorder.owners import owners_of
from ..settings import LimitSettings
from ..upstream.client import UpstreamClient
from .background import BackgroundResponses
from .body_budget import BodyBudget
from .calls import UpstreamCaller
from .fair_queue import FairQueue
from .interruption import Watches
from .limits import Limits
from .ownership import Ownership
from .refused_additions import RefusedAdditions
from .resumption import Resumption
from .tool_memory import SharedMemory, ToolMemory


class Engine:
    """The parts that the exchanges of all bridges of an app share."""

    def __init__(
        self,
        *,
        client: UpstreamClient,
        recorder: Recorder,
        metrics: Metrics,
        limits: Limits | None = None,
        rates: RateLimits | None = None,
        max_body_size: int,
        lines: InterceptionLines | None = None,
        max_bodies: int | None = None,
        max_text: int = MAX_TEXT,
        capture_content: bool = True,
        request_headers: RequestHeaders | None = None,
        refuse_foreign_ids: bool = False,
        prices: Prices | None = None,
        budgets: Budgets | None = None,
        shared_memory: SharedMemory | None = None,
    ) -> None:
        self.caller = UpstreamCaller(client, metrics)
        self.recorder = recorder
        self.metrics = metrics
        self.prices = prices
        """The prices of models; None if costs are not computed."""
        self.lines = lines or InterceptionLines()
        self.limits = limits or Limits(LimitSettings())
        self.rates = rates or RateLimits(LimitSettings())
        self.budgets = budgets or Budgets(None, None, metrics)
        self.max_body_size = max_body_size
        self.bodies = BodyBudget(max_bodies)
        self.max_text = max_text if capture_content else 0
        self.capture_content = capture_content
        self.request_headers = request_headers or RequestHeaders()
        self.ownership = Ownership(owners_of(recorder), refuse_foreign=refuse_foreign_ids)
        self.background = BackgroundResponses(self.caller)
        self.resumption = Resumption(recorder, metrics, self.lines, lambda: self.prices, self.background, self.max_text)
        self.tool_memory = ToolMemory(shared_memory)
        self.refusals = RefusedAdditions()
        self.queue = FairQueue(is_shared=lambda: self.limits.is_shared)
        self.watches = Watches()
