"""The metrics of all workers of one server."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import until

from ..gateway.process import UvicornProcess

pytestmark = pytest.mark.anyio

ADMIN = {"Authorization": "Bearer t-admin"}


def served(directory: Path, environment: Mapping[str, str]) -> UvicornProcess:
    """Return `uvicorn --workers 2`."""
    values = {
        "TMPDIR": str(directory),
        "AIBRIDGE_PROVIDERS__OPENAI__API_KEY": "sk-x",
        "AIBRIDGE_PROVIDERS__OPENAI__BASE_URL": "http://127.0.0.1:9/v1",
        "AIBRIDGE_CLIENT_KEYS__ALICE": "k-alice",
        "AIBRIDGE_ADMIN_TOKEN": "t-admin",
        **environment,
    }
    options = ("--workers", "2", "--log-level", "warning")
    return UvicornProcess(directory, values, *options, app="tests.e2e.workers.app:app")


async def pids(url: str) -> set[int]:
    """Return the ids of the workers that respond; each request opens a connection of its own."""
    async with httpx.AsyncClient() as client:
        seen = set()
        for _ in range(40):
            try:
                seen.add((await client.get(f"{url}/pid", headers={"Connection": "close"})).json())
            except httpx.TransportError:
                continue
        return seen


async def workers(url: str) -> list[str]:
    async with httpx.AsyncClient() as client:
        items = (await client.get(f"{url}/ai/admin/workers", headers=ADMIN)).json()["items"]
    return [item["id"] for item in items]


async def scrape(url: str, worker: str = "") -> dict[str, float]:
    """Return the sum of each metric over all labels."""
    async with httpx.AsyncClient() as client:
        query = {"worker": worker} if worker else {}
        headers = ADMIN | {"Connection": "close"}
        response = await client.get(f"{url}/ai/admin/metrics", params=query, headers=headers)
    assert response.status_code == 200, response.text
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


async def refuse(url: str, times: int) -> None:
    """Send requests that a worker refuses and counts."""
    async with httpx.AsyncClient() as client:
        for _ in range(times):
            headers = {"Authorization": "Bearer k-alice", "Connection": "close"}
            response = await client.post(f"{url}/ai/openai/v1/chat/completions", content=b"{", headers=headers)
            assert response.status_code == 400


@pytest.mark.parametrize("how", ["setting", "variable of prometheus-client"])
async def test_a_scrape_tells_of_all_workers(tmp_path: Path, how: str) -> None:
    """A scrape covers all workers, whichever responds; a dead worker's counters stay, and its gauges go."""
    shared = tmp_path / "shared"
    shared.mkdir()
    environment = (
        {"AIBRIDGE_METRICS__MULTIPROCESS": "true"} if how == "setting" else {"PROMETHEUS_MULTIPROC_DIR": str(shared)}
    )
    async with served(tmp_path, environment) as server:
        url = server.url

        async def both() -> bool:
            return len(await pids(url)) == 2

        await until(both, 60)
        before = (await scrape(url)).get("aibridge_refused_total", 0)
        await refuse(url, 20)
        for _ in range(6):
            assert (await scrape(url))["aibridge_refused_total"] == before + 20

        async with httpx.AsyncClient() as client:
            reloaded = await client.post(f"{url}/ai/admin/reload", headers=ADMIN)
            assert reloaded.json()["workers"]["applied"] == 2

        async def mirrored() -> bool:
            # The least of both versions, and not their sum.
            found = await scrape(url)
            return (found["aibridge_config_version"], found["aibridge_pool_provider_version"]) == (1.0, 2.0)

        await until(mirrored)
        each = [await scrape(url, worker) for worker in await workers(url)]
        assert sum(one.get("aibridge_refused_total", 0) for one in each) == before + 20
        assert [one["aibridge_pool_provider_version"] for one in each] == [2.0, 2.0]
        dying, *_ = await pids(url)
        os.kill(dying, signal.SIGKILL)

        async def replaced() -> bool:
            return len(found := await pids(url)) == 2 and dying not in found

        await until(replaced, 60)

        async def is_known() -> bool:
            # The replacement has replaced its providers once, and is in the least of both.
            return (await scrape(url))["aibridge_pool_provider_version"] == 1.0

        await until(is_known)
        assert (await scrape(url))["aibridge_refused_total"] == before + 20


async def test_each_worker_tells_its_own_otherwise(tmp_path: Path) -> None:
    async with served(tmp_path, {}) as server:
        url = server.url

        async def both() -> bool:
            return len(await pids(url)) == 2

        await until(both, 60)
        async with httpx.AsyncClient() as client:
            for worker in ("nobody", ""):
                asked = await client.get(f"{url}/ai/admin/metrics?worker={worker}", headers=ADMIN)
                assert asked.status_code == (404 if worker else 200)
        refused = 0

        async def apart() -> bool:
            # The kernel may give many connections in a row to one worker.
            nonlocal refused
            await refuse(url, 5)
            refused += 5
            told = {(await scrape(url)).get("aibridge_refused_total", 0) for _ in range(10)}
            return len(told) == 2 and sum(told) == refused

        await until(apart, 60)
