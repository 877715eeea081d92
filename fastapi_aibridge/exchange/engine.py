"""What outlives an exchange."""

from __future__ import annotations

from ..observability import InterceptionLines, Metrics
from ..providers.request_headers import RequestHeaders
from ..recorder import Recorder
from ..settings import LimitSettings
from ..upstream.client import UpstreamClient
from .calls import UpstreamCaller
from .fair_queue import FairQueue
from .limits import Limits
from .tool_memory import ToolMemory


class Engine:
    """What the exchanges of all bridges of an app share."""

    def __init__(
        self,
        *,
        client: UpstreamClient,
        recorder: Recorder,
        metrics: Metrics,
        limits: Limits | None = None,
        max_body_size: int,
        lines: InterceptionLines | None = None,
        request_headers: RequestHeaders | None = None,
    ) -> None:
        self.caller = UpstreamCaller(client, metrics)
        self.recorder = recorder
        self.metrics = metrics
        self.lines = lines or InterceptionLines()
        self.limits = limits or Limits(LimitSettings())
        self.max_body_size = max_body_size
        self.request_headers = request_headers or RequestHeaders()
        self.tool_memory = ToolMemory()
        self.queue = FairQueue()
