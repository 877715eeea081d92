"""Metrics of all worker processes of a server in one scrape, with prometheus-client's multiprocess mode.

Each worker keeps its counters in files of a shared directory. Metrics that are read only at a scrape (pool, providers,
recorder) are copied into these files every few seconds.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Literal

from ..errors import SettingsError
from ..settings import Settings
from ..settings.sources import variable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
    from prometheus_client.registry import Collector

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that prometheus-client reads when it is imported."""
MIRROR_EVERY = 2.0
"""Seconds between two copies of the metrics that are read only at a scrape."""

_LEAST = {"aibridge_redis_up", "aibridge_config_version", "aibridge_pool_provider_version"}
"""Gauges of which a scrape tells the least value of all workers, because their sum has no meaning."""
_GREATEST = {"aibridge_config_refused", "aibridge_changes_unseen_seconds"}
_FILE = re.compile(r"_(\d+)\.db$")


def multiprocess_wanted(settings: object) -> bool:
    """Return whether multiprocess mode is wanted, before prometheus-client is imported: by `settings` if these are a
    `Settings`, else by the environment.
    """
    if isinstance(settings, Settings):
        return settings.metrics.multiprocess
    return (variable("METRICS__MULTIPROCESS") or "").lower() in ("1", "true", "yes", "on", "t", "y")


def check_multiprocess(settings: Settings, directory: Path | None) -> None:
    """Raise `SettingsError` if multiprocess mode is wanted too late: by a file or by the app's own function."""
    if settings.metrics.multiprocess and directory is None:
        raise SettingsError("AIBRIDGE_METRICS__MULTIPROCESS must be in the environment: files are read too late for it")


def set_up(*, wanted: bool) -> Path | None:
    """Create the directory that this server's workers share, and return it; None without multiprocess mode.

    Must be called before prometheus-client is imported. Raises `SettingsError` if it is too late, or if the directory
    cannot be used.
    """
    named = os.environ.get(DIRECTORY)
    if not named and not wanted:
        return None
    path = Path(named) if named else Path(gettempdir()) / f"aibridge-metrics-{os.getuid()}-{_server()}"
    try:
        path.mkdir(mode=0o700, parents=bool(named), exist_ok=True)
        about = path.lstat()
    except OSError as error:
        raise SettingsError(f"{DIRECTORY}: {path} cannot be used: {error.strerror}") from None
    if not named and (not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid()):
        # The name can be guessed, so another user may have created the directory.
        raise SettingsError(f"AIBRIDGE_METRICS__MULTIPROCESS: {path} is another user's; set {DIRECTORY} to a directory")
    os.environ[DIRECTORY] = str(path)
    if "prometheus_client" in sys.modules and not _counts_in_files():
        raise SettingsError(
            f"AIBRIDGE_METRICS__MULTIPROCESS: prometheus_client was imported before AIBridge was made, and counts in "
            f"memory; set {DIRECTORY} in the environment of the server instead"
        )
    return path


def _server() -> int:
    """Return the pid that identifies the server: the parent's if that is a server, else this process's."""
    import multiprocessing  # late, because it loads pickle

    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        return parent.pid  # uvicorn --workers
    return os.getppid() if "gunicorn" in sys.modules else os.getpid()


def _counts_in_files() -> bool:
    from prometheus_client import values

    return str(values.ValueClass.__name__) == "MmapedValue"


def registry_of_one(directory: Path, pid: int) -> CollectorRegistry:
    """Return a registry with the metrics of one worker."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector
    from prometheus_client.registry import Collector

    class OneProcess(Collector):
        def collect(self) -> Iterable[Metric]:
            files = [str(path) for path in directory.glob(f"*_{pid}.db")]
            return MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-any-return, no-untyped-call]

    registry = CollectorRegistry()
    registry.register(OneProcess())
    return registry


def registry_of_all(directory: Path) -> CollectorRegistry:
    """Return a registry with the metrics of all workers, without the gauges of dead ones."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

    for pid in {int(found[1]) for path in directory.glob("gauge_live*.db") if (found := _FILE.search(path.name))}:
        if not _lives(pid):
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    return registry


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _mode(name: str) -> Literal["livemin", "livemax", "livesum"]:
    return "livemin" if name in _LEAST else "livemax" if name in _GREATEST else "livesum"


class Mirror:
    """A copier of the collectors' metrics into this worker's files, so that scrapes of other workers find them.

    Fields that change: `_metrics`, with an item for each metric, and `_counted`, with one for each counter sample.
    """

    def __init__(self, collectors: Iterable[Collector]) -> None:
        self._collectors = tuple(collectors)
        self._metrics: dict[str, Gauge | Counter] = {}
        self._counted: dict[tuple[str, tuple[str, ...]], float] = {}

    def look(self) -> None:
        for collector in self._collectors:
            for family in collector.collect():
                for sample in family.samples:
                    self._bring(family.name, family.documentation, family.type, sample.labels, sample.value)

    def _bring(self, name: str, words: str, kind: str, labels: dict[str, str], value: float) -> None:
        from prometheus_client import Counter, Gauge

        names, values = tuple(labels), tuple(labels.values())
        metric = self._metrics.get(name)
        if metric is None:
            metric = self._metrics[name] = (
                Counter(name, words, names, registry=None)
                if kind == "counter"
                else Gauge(name, words, names, registry=None, multiprocess_mode=_mode(name))
            )
        child = metric.labels(*values) if names else metric
        if isinstance(child, Counter):
            before = self._counted.get((name, values), 0.0)
            # A lower value means that the counter was reset, such as a pool's after a restart of the lifespan.
            child.inc(value - before if value >= before else value)
            self._counted[name, values] = value
        else:
            child.set(value)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Copy at once, every few seconds while the block runs, and at its end."""
        self.look()
        task = asyncio.create_task(self._look_again(), name="aibridge-metrics-mirror")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.look()

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(MIRROR_EVERY)
            self.look()
