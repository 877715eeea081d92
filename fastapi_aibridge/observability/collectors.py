"""Metrics that are read from the gateway's parts (pool, recorder, Redis, providers, worker) at each scrape."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..upstream.breaker import CircuitState

if TYPE_CHECKING:
    from ..pool.metrics import PoolMetrics
    from ..providers.provider import Provider


class InFlightCollector(Collector):
    """The number of running interceptions."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self._in_flight = in_flight

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("aibridge_interceptions_in_flight", "Interceptions that run.", value=self._in_flight())


class PoolCollector(Collector):
    """The pool's own counters."""

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


class RecorderCollector(Collector):
    """Rows that the recorder could not write or has yet to write; zero for recorders that do not count them."""

    def __init__(self, recorder: Callable[[], object]) -> None:
        self._recorder = recorder

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        recorder = self._recorder()
        stats = getattr(recorder, "stats", None)
        for name, member, words in (
            ("failures", "failures", "Attempts to write that the database did not take."),
            ("refused", "refused", "Rows that the database will never take."),
            ("set_aside", "set_aside", "Those of them that are kept in a table of their own."),
        ):
            yield CounterMetricFamily(f"aibridge_recorder_{name}", words, value=getattr(stats, member, 0))
        pending = getattr(recorder, "pending", 0)
        yield GaugeMetricFamily("aibridge_recorder_pending", "Records that wait to be written.", value=pending)


class RedisCollector(Collector):
    """The availability of the workers' shared Redis; no metrics if none is configured."""

    def __init__(self, redis: Callable[[], object]) -> None:
        self._redis = redis

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        redis = self._redis()
        if redis is None:
            return
        up = float(getattr(redis, "available", False))
        yield GaugeMetricFamily("aibridge_redis_up", "Whether Redis answered when it was last asked.", value=up)
        failures = getattr(redis, "failures", 0)
        yield CounterMetricFamily("aibridge_redis_outages", "How often Redis was lost.", value=failures)


class ProviderCollector(Collector):
    """The state of the providers' circuit breakers and keys."""

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
            # Short keys share one hint.
            ready = Tally(key.hint for key in provider.keys if not key.resting_for)
            for hint, number in Tally(key.hint for key in provider.keys).items():
                keys.add_metric((name, hint, "ready"), ready[hint])
                keys.add_metric((name, hint, "resting"), number - ready[hint])
            for status in (401, 429):
                rests.add_metric((name, str(status)), provider.keys.rests[status])
        yield from (circuits, trips, rejections, keys, rests)


class FollowedSettings(Protocol):
    """The worker's state in following shared settings."""

    @property
    def config_version(self) -> int: ...

    @property
    def keeps_old_settings(self) -> bool: ...

    @property
    def changes_unseen_for(self) -> float: ...


class WorkerCollector(Collector):
    """Whether this worker is up to date with the shared settings."""

    def __init__(self, worker: Callable[[], FollowedSettings | None]) -> None:
        self._worker = worker

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        if (worker := self._worker()) is None:
            return
        for name, words, value in (
            ("config_version", "The version of the settings that is in force.", worker.config_version),
            ("config_refused", "1 while newer settings did not validate here.", int(worker.keeps_old_settings)),
            (
                "changes_unseen_seconds",
                "For how long it has not been possible to look for changes made by other workers.",
                worker.changes_unseen_for,
            ),
        ):
            yield GaugeMetricFamily(f"aibridge_{name}", words, value=value)
