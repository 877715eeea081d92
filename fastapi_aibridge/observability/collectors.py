"""Metrics that are read from the gateway's parts (pool, recorder, Redis, providers, worker) at each scrape."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..upstream.breaker import CircuitState

if TYPE_CHECKING:
    from ..cluster.redis import SharedRedis
    from ..pool.metrics import PoolMetrics
    from ..providers.provider import Provider


class AtScrape(Collector):
    """Metrics that a function yields at each scrape."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that the registration does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def pool_metrics(counts: PoolMetrics) -> Iterator[Metric]:
    """Yield the pool's own counters."""
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


def recorder_metrics(recorder: object) -> Iterator[Metric]:
    """Yield the rows that the recorder could not write or has yet to write; zero if it does not count them."""
    stats = getattr(recorder, "stats", None)
    for name, words in (
        ("failures", "Attempts to write that the database did not take."),
        ("refused", "Rows that the database will never take."),
        ("set_aside", "Those of them that are kept in a table of their own."),
    ):
        yield CounterMetricFamily(f"aibridge_recorder_{name}", words, value=getattr(stats, name, 0))
    pending = getattr(recorder, "pending", 0)
    yield GaugeMetricFamily("aibridge_recorder_pending", "Records that wait to be written.", value=pending)


def redis_metrics(redis: SharedRedis) -> Iterator[Metric]:
    """Yield the availability of the workers' shared Redis."""
    up = float(redis.available)
    yield GaugeMetricFamily("aibridge_redis_up", "Whether Redis answered when it was last asked.", value=up)
    yield CounterMetricFamily("aibridge_redis_outages", "How often Redis was lost.", value=redis.failures)


def provider_metrics(providers: Iterable[Provider]) -> Iterator[Metric]:
    """Yield the state of the providers' circuit breakers and keys."""
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
    for provider in providers:
        name, breakers = provider.name, provider.breakers
        states = breakers.count()
        for route in provider.intercepted:
            for state in (CircuitState.OPEN, CircuitState.HALF_OPEN):
                circuits.add_metric((name, route, state), states.get((route, state), 0))
            trips.add_metric((name, route), breakers.trips[route])
            rejections.add_metric((name, route), breakers.rejections[route])
        # Short keys share one hint.
        ready = Tally(key.hint for key in provider.keys if not key.resting_for)
        for hint, number in Tally(key.hint for key in provider.keys).items():
            keys.add_metric((name, hint, "ready"), ready[hint])
            keys.add_metric((name, hint, "resting"), number - ready[hint])
        for status in (401, 429):
            rests.add_metric((name, str(status)), provider.keys.rests[status])
    yield from (circuits, trips, rejections, keys, rests)


def worker_metrics(config_version: int, unseen_for: float, *, keeps_old_settings: bool) -> Iterator[Metric]:
    """Yield whether this worker is up to date with the shared settings."""
    for name, words, value in (
        ("config_version", "The version of the settings that is in force.", config_version),
        ("config_refused", "1 while newer settings did not validate here.", int(keeps_old_settings)),
        (
            "changes_unseen_seconds",
            "For how long it has not been possible to look for changes made by other workers.",
            unseen_for,
        ),
    ):
        yield GaugeMetricFamily(f"aibridge_{name}", words, value=value)
