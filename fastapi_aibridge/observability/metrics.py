"""Prometheus metrics. Labels are bounded: no principals, no models, nothing else that clients choose."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..pool import PoolMetrics
from ..providers import Provider
from ..recorder.records import Interception, Status, TokenUsage
from ..upstream.breaker import CircuitState

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600)
_KINDS = ("input", "output", "cache_read", "cache_write")


class Metrics:
    """The metrics of one app, in a registry of its own unless one is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._interceptions = Counter(
            "aibridge_interceptions",
            "Interceptions that have ended.",
            ("provider", "route", "status", "client", "streaming"),
            registry=self.registry,
        )
        self.in_flight = 0
        Gauge("aibridge_interceptions_in_flight", "Interceptions that run.", registry=self.registry).set_function(
            lambda: self.in_flight
        )
        self._duration = Histogram(
            "aibridge_interception_duration_seconds",
            "From the request's last byte to the response's.",
            ("provider", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter("aibridge_tokens", "Tokens by kind.", ("provider", "kind"), registry=self.registry)
        self._passed = Counter(
            "aibridge_passed_through",
            "Requests that were passed through.",
            ("provider", "route", "code"),
            registry=self.registry,
        )
        self._refused = Counter(
            "aibridge_refused", "Requests that the gateway itself refused.", ("code",), registry=self.registry
        )
        self._wrong_keys = Counter(
            "aibridge_wrong_keys", "Client keys and admin tokens that nobody has.", ("kind",), registry=self.registry
        )
        self._guessing = Counter(
            "aibridge_key_guessing",
            "How often one address sent ten wrong keys within a minute.",
            ("kind",),
            registry=self.registry,
        )
        self._reloads = Counter("aibridge_reloads", "Reloads of the providers.", ("outcome",), registry=self.registry)
        self._tools = Histogram(
            "aibridge_tool_duration_seconds",
            "Calls of injected tools.",
            ("server", "tool", "outcome"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._retries = Counter(
            "aibridge_upstream_retries",
            "Further attempts, by why the one before was not the last.",
            ("provider", "reason"),
            registry=self.registry,
        )
        self._without = Counter(
            "aibridge_additions_refused",
            "Requests that a provider refused with what the gateway adds, and took without.",
            ("provider", "what"),
            registry=self.registry,
        )
        self._builds = Histogram(
            "aibridge_pool_build_duration_seconds",
            "From the first request that needed a bridge until it was ready, or was not.",
            ("outcome",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        # `labels()` costs more than `inc()`; the children are few.
        self._ended: dict[tuple[str, str, Status, str, bool], Counter] = {}
        self._durations: dict[tuple[str, str], Histogram] = {}
        self._token_kinds: dict[str, tuple[Counter, ...]] = {}

    def started(self) -> None:
        self.in_flight += 1

    def ended(self, interception: Interception, status: Status, seconds: float) -> None:
        self.in_flight -= 1
        key = (interception.provider, interception.route, status, interception.client, interception.streaming)
        counter = self._ended.get(key)
        if counter is None:
            *names, streaming = key
            counter = self._ended[key] = self._interceptions.labels(*names, str(streaming).lower())
        counter.inc()
        duration = self._durations.get(key[:2])
        if duration is None:
            duration = self._durations[key[:2]] = self._duration.labels(*key[:2])
        duration.observe(seconds)

    def built(self, seconds: float, outcome: str) -> None:
        """A bridge of the pool: `outcome` is `ok`, `degraded`, `failed`, `timeout` or `shutdown`."""
        self._builds.labels(outcome).observe(seconds)

    def tokens(self, provider: str, usage: TokenUsage) -> None:
        kinds = self._token_kinds.get(provider)
        if kinds is None:
            kinds = self._token_kinds[provider] = tuple(self._tokens.labels(provider, kind) for kind in _KINDS)
        for counter, number in zip(
            kinds,
            (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens),
            strict=True,
        ):
            if number:
                counter.inc(number)

    def tool_called(self, server: str, tool: str, seconds: float, *, is_error: bool) -> None:
        self._tools.labels(server, tool, "error" if is_error else "ok").observe(seconds)

    def passed_through(self, provider: str, route: str, status: int) -> None:
        """`route` is how the path is listed."""
        self._passed.labels(provider, route, str(status)).inc()

    def retried(self, provider: str, reason: str) -> None:
        """`reason` is a status, `timeout` or `unreachable`; `key` where another key was tried at once."""
        self._retries.labels(provider, reason).inc()

    def went_without(self, provider: str, what: str) -> None:
        """A request was refused with what the gateway adds, `tools` or `usage`, and has succeeded without."""
        self._without.labels(provider, what).inc()

    def refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def wrong_key(self, kind: str, *, many: bool) -> None:
        """`kind` is `client` or `admin`; `many` says that an address has just sent as many as are told."""
        self._wrong_keys.labels(kind).inc()
        if many:
            self._guessing.labels(kind).inc()

    def reloaded(self, outcome: str) -> None:
        """`outcome` is `applied` or `refused`."""
        self._reloads.labels(outcome).inc()


class PoolCollector(Collector):
    """The pool's own counters, read when they are scraped."""

    def __init__(self, counts: Callable[[], PoolMetrics | None]) -> None:
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        if counts is None:
            return
        for name, words in (
            ("hits", "Acquires that found a bridge in the cache."),
            ("misses", "Acquires that found none."),
            ("keys_added", "Bridges that were cached."),
            ("keys_evicted", "Bridges that capacity or expiry removed."),
        ):
            yield CounterMetricFamily(f"aibridge_pool_{name}", words, value=getattr(counts, name))
        for name, words in (
            ("size", "Bridges in the cache."),
            ("builds_in_flight", "Bridges that are being built."),
            ("leases", "Leases that are held."),
            ("draining", "Retired bridges that are still leased."),
            ("provider_version", "How often the providers have been replaced."),
        ):
            yield GaugeMetricFamily(f"aibridge_pool_{name}", words, value=getattr(counts, name))


class ProviderCollector(Collector):
    """The state of the providers' circuit breakers and keys, read when it is scraped."""

    def __init__(self, providers: Callable[[], Iterable[Provider]]) -> None:
        self._providers = providers

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        circuits = GaugeMetricFamily(
            "aibridge_circuits", "Circuit breakers that are not closed.", labels=("provider", "route", "state")
        )
        trips = CounterMetricFamily(
            "aibridge_circuit_trips", "How often a circuit breaker has opened.", labels=("provider", "route")
        )
        rejections = CounterMetricFamily(
            "aibridge_circuit_rejections", "Attempts that a circuit breaker refused.", labels=("provider", "route")
        )
        keys = GaugeMetricFamily("aibridge_keys", "Keys by masked hint.", labels=("provider", "key", "state"))
        rests = CounterMetricFamily(
            "aibridge_key_rests", "How often a key was sent to rest.", labels=("provider", "status")
        )
        for provider in self._providers():
            name, breakers = provider.name, provider.breakers
            states = breakers.count()
            for route in provider.intercepted:
                for state in (CircuitState.OPEN, CircuitState.HALF_OPEN):
                    circuits.add_metric((name, route, state), states.get((route, state), 0))
                trips.add_metric((name, route), breakers.trips[route])
                rejections.add_metric((name, route), breakers.rejections[route])
            # Short keys have the same hint.
            ready = Tally(key.hint for key in provider.keys if not key.resting_for)
            for hint, number in Tally(key.hint for key in provider.keys).items():
                keys.add_metric((name, hint, "ready"), ready[hint])
                keys.add_metric((name, hint, "resting"), number - ready[hint])
            for status in (401, 429):
                rests.add_metric((name, str(status)), provider.keys.rests[status])
        yield from (circuits, trips, rejections, keys, rests)
