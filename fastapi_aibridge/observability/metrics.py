"""Prometheus metrics. Labels are bounded: never principals, and a limited number of values that clients choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..recorder.records import Interception, Status, TokenUsage
from .bounded_labels import BoundedLabels

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Metric
    from prometheus_client.registry import Collector

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600)
_KINDS = ("input", "output", "cache_read", "cache_write")


class Metrics:
    """The metrics of one app, in a registry of their own unless one is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        # Imported late, because it loads HTTP and WSGI servers.
        from prometheus_client import CollectorRegistry, Counter, Histogram
        from prometheus_client.core import GaugeMetricFamily

        self.registry = CollectorRegistry() if registry is None else registry
        self.collectors: list[Collector] = []
        """The collectors of metrics that are read only at a scrape."""
        self.in_flight = 0
        running = "aibridge_interceptions_in_flight", "Interceptions that run."
        self.add(lambda: [GaugeMetricFamily(*running, value=self.in_flight)])

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(name, words, labels, registry=self.registry)

        def times(name: str, words: str, *labels: str) -> Histogram:
            return Histogram(name, words, labels, buckets=_SECONDS, registry=self.registry)

        # Metrics with labels that clients, providers or tool servers choose.
        self._interceptions = BoundedLabels(
            counter("aibridge_interceptions", "Interceptions that have ended.",
                    "provider", "route", "status", "client", "streaming"),
            chosen=(1, 3), limit=2000,
        )  # fmt: skip
        self._duration = BoundedLabels(
            times("aibridge_interception_duration_seconds", "From the request's last byte to the response's.",
                  "provider", "route"),
            chosen=(1,), limit=200,
        )  # fmt: skip
        self._tokens = BoundedLabels(counter("aibridge_tokens", "Tokens by kind.", "provider", "kind"), chosen=())
        self._cost = BoundedLabels(
            counter("aibridge_cost_usd", "What interceptions cost, in US dollars.", "provider", "model"),
            chosen=(1,), limit=500,
        )  # fmt: skip
        self._passed = BoundedLabels(
            counter("aibridge_passed_through", "Requests that were passed through.", "provider", "route", "code"),
            chosen=(1, 2),
        )
        self._refused = BoundedLabels(
            counter("aibridge_refused", "Requests that the gateway itself refused.", "code"), chosen=(0,), limit=200
        )
        self._tools = BoundedLabels(
            times("aibridge_tool_duration_seconds", "Calls of injected tools.", "server", "tool", "outcome"),
            chosen=(1,), limit=500,
        )  # fmt: skip
        self._retries = BoundedLabels(
            counter("aibridge_upstream_retries", "Further attempts, by why the one before was not the last.",
                    "provider", "reason"),
            chosen=(1,), limit=500,
        )  # fmt: skip
        # Metrics whose labels have few values.
        self._unpriced = counter(
            "aibridge_unpriced", "Interceptions whose cost is not known, because a model has no price.", "provider"
        )
        self._decided_alone = counter(
            "aibridge_limits_without_redis",
            "Requests whose limits one process counted by itself, because Redis was away.",
        )
        self._wrong_keys = counter("aibridge_wrong_keys", "Client keys and admin tokens that nobody has.", "kind")
        self._guessing = counter(
            "aibridge_key_guessing", "How often one address sent ten wrong keys within a minute.", "kind"
        )
        self._reloads = counter("aibridge_reloads", "Reloads of the providers.", "outcome")
        self._without = counter(
            "aibridge_additions_refused",
            "Requests that a provider refused with what the gateway adds, and took without.", "provider", "what",
        )  # fmt: skip
        self._builds = times(
            "aibridge_pool_build_duration_seconds",
            "From the first request that needed a bridge until it was ready, or was not.", "outcome",
        )  # fmt: skip
        self._over_budget = counter(
            "aibridge_over_budget",
            "Upstream calls that were refused because they did not fit a budget.", "scope", "period",
        )  # fmt: skip
        self._budgets_reached = counter(
            "aibridge_budget_warnings",
            "Budgets of which so many percent were spent; each counts once in its period.", "scope", "percent",
        )  # fmt: skip
        # The four token counters by provider, so that one look-up finds them all.
        self._token_kinds: dict[str, tuple[Counter, ...]] = {}

    def add(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Add metrics that are collected at each scrape."""
        from .collectors import AtScrape

        collector = AtScrape(collect)
        self.registry.register(collector)
        self.collectors.append(collector)

    def started(self) -> None:
        self.in_flight += 1

    def ended(self, interception: Interception, status: Status, seconds: float) -> None:
        self.in_flight -= 1
        provider, route = interception.provider, interception.route
        streaming = "true" if interception.streaming else "false"
        self._interceptions(provider, route, status, interception.client, streaming).inc()
        self._duration(provider, route).observe(seconds)

    def built(self, seconds: float, outcome: str) -> None:
        """Count the build of a pool's bridge. `outcome` is `ok`, `degraded`, `failed`, `timeout` or `shutdown`."""
        self._builds.labels(outcome).observe(seconds)

    def tokens(self, provider: str, usage: TokenUsage) -> None:
        kinds = self._token_kinds.get(provider)
        if kinds is None:
            kinds = self._token_kinds[provider] = tuple(self._tokens(provider, kind) for kind in _KINDS)
        for counter, number in zip(
            kinds,
            (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens),
            strict=True,
        ):
            if number:
                counter.inc(number)

    def cost(self, provider: str, model: str, micro_dollars: int) -> None:
        self._cost(provider, model).inc(micro_dollars / 1_000_000)

    def unpriced(self, provider: str) -> None:
        self._unpriced.labels(provider).inc()

    def tool_called(self, server: str, tool: str, seconds: float, *, is_error: bool) -> None:
        self._tools(server, tool, "error" if is_error else "ok").observe(seconds)

    def passed_through(self, provider: str, route: str, status: int) -> None:
        """Count a request that was passed through. `route` is the listed route's path, not the request's."""
        self._passed(provider, route, str(status)).inc()

    def retried(self, provider: str, reason: str) -> None:
        """Count a retry. `reason` is a status, `timeout`, `unreachable`, or `key` if another key was tried at once."""
        self._retries(provider, reason).inc()

    def went_without(self, provider: str, what: str) -> None:
        """Count a request that the provider refused with the gateway's additions `what` (`tools` or `usage`), and
        accepted without them.
        """
        self._without.labels(provider, what).inc()

    def refused(self, code: str) -> None:
        self._refused(code).inc()

    def decided_alone(self) -> None:
        """Count a request whose limits were checked by this process alone, without Redis."""
        self._decided_alone.inc()

    def over_budget(self, scope: str, period: str) -> None:
        self._over_budget.labels(scope, period).inc()

    def budget_reached(self, scope: str, percent: int) -> None:
        """Count a budget that has reached `percent` of its limit, 80 or 100."""
        self._budgets_reached.labels(scope, str(percent)).inc()

    def wrong_key(self, kind: str, *, many: bool) -> None:
        """Count a wrong key. `kind` is `client` or `admin`; `many` says that its address has just reached
        `wrong_keys.MANY`.
        """
        self._wrong_keys.labels(kind).inc()
        if many:
            self._guessing.labels(kind).inc()

    def reloaded(self, outcome: str) -> None:
        """Count a reload. `outcome` is `applied` or `refused`."""
        self._reloads.labels(outcome).inc()
