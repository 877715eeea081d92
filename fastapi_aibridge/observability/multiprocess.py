"""The metrics of all worker processes of one server in one scrape: prometheus-client's multiprocess mode.

Each worker's counters lie in files of a directory that all share. What is read only when it is scraped (the pool, the
providers, the recorder) is brought into those files every few seconds.
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
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..settings import Settings
from ..settings.sources import variable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
    from prometheus_client.registry import Collector

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that prometheus-client itself reads, when it is imported."""
MIRROR_EVERY = 2.0
"""Seconds between two copies of the metrics that are read only when they are scraped."""

_FILE = re.compile(r"_(\d+)\.db$")


def multiprocess_wanted(settings: object) -> bool:
    """Whether the settings say so, as far as they are known before prometheus-client is imported: `settings` where the
    app gives them, else the variable.
    """
    if isinstance(settings, Settings):
        return settings.metrics.multiprocess
    return (variable("METRICS__MULTIPROCESS") or "").lower() in ("1", "true", "yes", "on", "t", "y")


def check_multiprocess(settings: Settings, directory: Path | None) -> None:
    """Raises `SettingsError` where it is wanted too late, by a file or the app's own function."""
    if settings.metrics.multiprocess and directory is None:
        raise SettingsError("AIBRIDGE_METRICS__MULTIPROCESS must be in the environment: files are read too late for it")


def set_up(*, wanted: bool) -> Path | None:
    """The directory that this server's workers share; None where each tells its own metrics.

    Must be called before prometheus-client is imported. Raises `SettingsError` where it is too late, or where the
    directory cannot be used.
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
        # Its name can be guessed, and anybody may make it.
        raise SettingsError(f"AIBRIDGE_METRICS__MULTIPROCESS: {path} is another user's; set {DIRECTORY} to a directory")
    os.environ[DIRECTORY] = str(path)
    if "prometheus_client" in sys.modules and not _counts_in_files():
        raise SettingsError(
            f"AIBRIDGE_METRICS__MULTIPROCESS: prometheus_client was imported before AIBridge was made, and counts in "
            f"memory; set {DIRECTORY} in the environment of the server instead"
        )
    return path


def _server() -> int:
    """The process whose workers share the directory: the one that started this one, if that is a server."""
    import multiprocessing  # with pickle, which others need not load

    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        return parent.pid  # uvicorn --workers
    return os.getppid() if "gunicorn" in sys.modules else os.getpid()


def _counts_in_files() -> bool:
    from prometheus_client import values

    return str(values.ValueClass.__name__) == "MmapedValue"


def registry_of_one(directory: Path, pid: int) -> CollectorRegistry:
    """What one worker has counted."""
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
    """What all workers have counted, without the gauges of those that are gone."""
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


class Mirror:
    """Brings what collectors tell into this worker's files, where the others' scrapes find it.

    Fields that change: `_metrics` and `_counted`, which have a member for each sample that the collectors tell.
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
                else Gauge(name, words, names, registry=None, multiprocess_mode="livesum")
            )
        child = metric.labels(*values) if names else metric
        if isinstance(child, Counter):
            before = self._counted.get((name, values), 0.0)
            # Less than before is a new beginning, such as a pool's after a restart of the lifespan.
            child.inc(value - before if value >= before else value)
            self._counted[name, values] = value
        else:
            child.set(value)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Look now, and every few seconds."""
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
