"""The gateway's additions to a request, and the fallback without them if the provider refuses them.

Injection must never make a request fail that would succeed without it. So a request that is refused with an addition is
sent once more without it, and if that succeeds, the refusal is remembered for a while.
"""

from __future__ import annotations

import logging
import re

from ..formats.large_text import BodyText, Steps, contains
from ..formats.rounds import Memory, Rounds
from ..observability import Metrics
from .admission import Admitted
from .body_budget import Holding
from .refused_additions import REMEMBERED, RefusedAdditions, ToolsKey
from .toolset import Toolset

logger = logging.getLogger(__name__)

_OTHER_REASONS = frozenset({401, 402, 403, 407, 408, 409, 429})
"""4xx statuses about the caller, the account or the moment, not about the content of the request."""
_FAILURES = frozenset({500, 501})
"""Statuses with which some servers, such as llama.cpp, refuse tools that their model does not support."""
_SPEAKS_OF_TOOLS = re.compile(rb"\btools?\b|\btool_|function.?call|--jinja", re.IGNORECASE)
_USAGE_NAMES = (b"stream_options", b"include_usage")


class Opening:
    """Makes the first request of an interception: with all additions, then with fewer if they are refused."""

    __slots__ = (
        "_admitted", "_max_text", "_memory", "_metrics", "_plain", "_refusals", "_refused", "_toolset", "_usage",
        "_usage_key", "_without",
    )  # fmt: skip

    def __init__(
        self,
        refusals: RefusedAdditions,
        metrics: Metrics,
        admitted: Admitted,
        toolset: Toolset | None,
        memory: Memory,
        max_text: int,
    ) -> None:
        request = admitted.request
        self._refusals = refusals
        self._metrics = metrics
        self._admitted = admitted
        self._memory = memory
        self._max_text = max_text
        self._plain = False
        self._without: list[str] = []
        self._refused: ToolsKey | None = None
        self._usage_key = (admitted.provider.name, request.model)
        self._usage = not request.usage_asked and not refusals.usage_refused(self._usage_key)
        self._toolset = toolset if toolset is not None and request.takes_tools and self._wants_tools() else None
        if self._toolset is not None and refusals.tools_refused(self._tools_key(self._toolset), admitted.body):
            self._toolset = None

    def _tools_key(self, toolset: Toolset) -> ToolsKey:
        admitted = self._admitted
        return (admitted.principal.key, admitted.provider.name, admitted.request.model, toolset.names)

    def _wants_tools(self) -> bool:
        """Whether to inject tools at all. Coding agents also send requests for titles and summaries, without tools of
        their own; tools injected there would run twice.
        """
        return not (self._admitted.client.is_agent and self._admitted.request.offers_no_tools)

    @property
    def holding(self) -> Holding:
        """The bytes that the request holds."""
        return self._admitted.holding

    @property
    def toolset(self) -> Toolset | None:
        """The tools that are injected; None if there are none, or after they have been refused."""
        return self._toolset

    def rounds(self) -> Steps[Rounds]:
        """Make the request with the current additions, as the rounds that begin with it."""
        admitted, format_, toolset = self._admitted, self._admitted.format, self._toolset
        asked = admitted.request.usage_asked
        body = admitted.request.body if self._usage else admitted.body
        if toolset is not None:
            definitions = toolset.definitions(format_)
            rounds = yield from format_.woven(
                body, toolset.names, definitions, self._memory, self._max_text, usage_asked=asked
            )
            toolset.offered(rounds.names, format_)
            return rounds
        # Earlier requests may have had tools, even if this one has none.
        body = yield from (format_.aliased if self._plain else format_.restored)(body, self._memory)
        return format_.single(body, self._max_text, usage_asked=asked or not self._usage)

    def hold(self, body: BodyText) -> None:
        """Count the upstream body's memory in addition to the client's own body. Raises `GatewayError` 503."""
        admitted = self._admitted
        if body is not admitted.request.body:
            admitted.holding.hold(admitted.body, admitted.request.body, body)

    def can_go_without(self, status: int) -> bool:
        """Whether a request refused with this status had additions that can be left out."""
        if not 400 <= status < 500 or status in _OTHER_REASONS:
            return False
        return self._toolset is not None or (self._usage and not self._refusals.usage_taken(self._usage_key))

    def fails_for_tools(self, status: int, reason: bytes) -> Steps[bool]:
        """Whether the provider failed because of tools, all of which were injected."""
        if status not in _FAILURES or self._toolset is None or not _SPEAKS_OF_TOOLS.search(reason):
            return False
        body = self._admitted.body
        return not (yield from contains(body, (b'"tools"',), 0, len(body)))

    def go_without(self, refusal: bytes) -> None:
        """Leave out the addition that the refusal names, or else all additions, which leaves the client's request."""
        if self._usage and any(name in refusal for name in _USAGE_NAMES):
            self._without.append("usage")
            self._usage = False
            return
        if self._toolset is None:
            self._without.append("usage")
        else:
            self._without.append("tools")
            self._refused = self._tools_key(self._toolset)
        self._toolset = None
        self._usage = False
        self._plain = True

    def taken(self) -> None:
        """Note that the provider has accepted the request as it is now, and remember what it refused before."""
        if self._usage and not self._refusals.usage_taken(self._usage_key):
            self._refusals.take_usage(self._usage_key)
        provider, model = self._admitted.provider.name, self._admitted.request.model
        for what in self._without:
            if what == "usage":
                self._refusals.refuse_usage(self._usage_key)
            elif self._refused is not None:
                self._refusals.refuse_tools(self._refused, self._admitted.body)
            self._metrics.went_without(provider, what)
            logger.warning(
                "provider %s refuses model %.100r with the gateway's own %s, and takes it without: "
                "it gets none for %d minutes",
                provider, model, "tools" if what == "tools" else "stream_options", REMEMBERED // 60,
            )  # fmt: skip
        self._without = []
