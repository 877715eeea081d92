"""Mixed load with faults, reloads and evictions for a given time, and a check of what is left over.

`python -m tests.e2e.chaos.soak --minutes 30` prints a report and the findings; its exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.gateway import client
from tests.e2e.gateway.bodies import WIRES
from tests.e2e.gateway.process import UvicornProcess
from tests.mcp.servers import ToolServer

from .faults import CASES, NO_MESSAGES, Outcome
from .model import Model
from .proxy import Fault, FaultProxy, no_fault
from .soak_app import USERS, has_tools

TOKEN = "t-soak"
WORKERS = 16
FAULTS, LEAVES = 0.25, 0.05
"""The shares of faulty responses, and of callers that leave before their response."""
POOL = 8
"""Bridges in the pool: few for 32 principals, so that evictions are frequent."""

_FAULTS = [case.fault for case in CASES if not case.greets and case.outcome is not Outcome.WHOLE]
_EXPECTED = {200, 502, 503, 504, *(case.status for case in CASES)}


@dataclass
class Report:
    seconds: float
    requests: int = 0
    left: int = 0
    reloads: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    records: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    beyond: int = 0
    """Records of requests whose callers left before they received the interception's id."""
    resident: list[tuple[float, int]] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    sessions: int = 0
    sessions_opened: int = 0
    log: str = ""

    @property
    def growth(self) -> float:
        """The relative growth of the median memory from the end of the warm-up, a third of the run, to its end."""
        third = self.seconds / 3
        middle = [size for at, size in self.resident if third <= at < third * 1.5]
        end = [size for at, size in self.resident if at >= self.seconds - third / 2]
        return statistics.median(end) / statistics.median(middle) - 1

    def findings(self, growth: float = 0.05) -> list[str]:
        """Return the problems found; memory may grow by the fraction `growth`."""
        found = list(self.unexpected[:10])
        if self.growth > growth:
            found.append(f"memory has grown by {self.growth:.1%}")
        if self.missing:
            found.append(f"{self.missing} requests have no record")
        if self.records["running"] or self.records["interrupted"]:
            found.append(f"records without an end: {self.records}")
        if self.beyond > self.left:
            found.append(f"{self.beyond} records of {self.left} callers that left")
        for name in ("leases", "draining"):
            if self.after[name]:
                found.append(f"{name}: {self.after[name]}")
        if tasks := Counter(self.after["tasks"]) - Counter(self.before["tasks"]):
            found.append(f"tasks left over: {tasks}")
        if self.after["descriptors"] > self.before["descriptors"]:
            found.append(f"file descriptors: {self.before['descriptors']} before, {self.after['descriptors']} after")
        if self.sessions:
            found.append(f"{self.sessions} MCP sessions are open")
        if "Traceback" in self.log or "ERROR" in self.log:
            found.append(f"the log has errors: {self.log[:3000]}")
        return found

    def __str__(self) -> str:
        memory = [size / 1e6 for _, size in self.resident]
        return (
            f"{self.seconds:.0f} s: {self.requests} requests, {self.left} callers left, {self.reloads} reloads, "
            f"evictions {self.after['evictions']}, {self.sessions_opened} MCP sessions, statuses "
            f"{dict(sorted(self.statuses.items()))}, records {dict(self.records)}; memory {memory[0]:.1f} MB at first, "
            f"{max(memory):.1f} at most, {memory[-1]:.1f} in the end, {self.growth:+.1%} after the warm-up; "
            f"descriptors {self.before['descriptors']} -> {self.after['descriptors']}, "
            f"tasks {sum(self.before['tasks'].values())} -> {sum(self.after['tasks'].values())}"
        )


class Soak:
    def __init__(self, proxy: FaultProxy, tools: ToolServer, file: Path, report: Report) -> None:
        self._port = 0
        self._proxy = proxy
        self._tools = tools
        self._file = file
        self._report = report
        self._dice = random.Random(4)
        self._over = False

    def configure(self, number: int = 0) -> None:
        """Write the settings file; consecutive numbers give different provider settings."""
        both = "max_retries = 1\nread_timeout = 0.3\nconnect_timeout = 0.3"
        breaker = "{ timeout = 0.2, max_requests = 10 }"
        extra = f"extra_headers = {{ x-reload = '{number % 2}' }}"
        lines = [
            f'admin_token = "{TOKEN}"',
            "[pool]",
            f"max_items = {POOL}",
            "ttl = 2",
            "[providers.openai]",
            f'base_url = "{self._proxy.url}/v1"\napi_key = "sk-soak"\n{both}\n{extra}\ncircuit_breaker = {breaker}',
            "[providers.anthropic]",
            f'base_url = "{self._proxy.url}"\napi_key = "sk-ant-soak"\n{both}\n{extra}\ncircuit_breaker = {breaker}',
            "[client_keys]",
            *(f'u{user} = "k-{user}"' for user in range(USERS)),
        ]
        self._file.write_text("\n".join(lines))

    async def held(self) -> dict[str, Any]:
        answer = await client.request(self._port, "GET", "/held")
        held: dict[str, Any] = json.loads(answer.body)
        return held

    async def run(self, port: int) -> None:
        self._port, report = port, self._report
        await self._warm()
        report.before = await self._at_rest()
        self._proxy.choose = self._choose
        began = time.monotonic()
        tasks = [asyncio.create_task(self._keep_asking()) for _ in range(WORKERS)]
        tasks.append(asyncio.create_task(self._keep_reloading()))
        while (gone := time.monotonic() - began) < report.seconds and not any(task.done() for task in tasks):
            report.resident.append((gone, (await self.held())["resident"]))
            await asyncio.sleep(min(1.0, report.seconds / 30))
        self._over = True
        await asyncio.gather(*tasks)
        report.after = await self._at_rest(report.before)
        report.sessions, report.sessions_opened = len(self._tools.open_sessions), self._tools.opened
        await self._count_records()

    async def _warm(self) -> None:
        """Open everything that a process opens once, with as many concurrent requests as the soak has."""

        async def ask(user: int) -> None:
            wire = WIRES[user % len(WIRES)]
            await client.request(self._port, "POST", wire.target, wire.ask(stream=True), key=f"k-{user}")

        for _ in range(3):
            await asyncio.gather(*(ask(user) for user in range(WORKERS)))
        self._report.left += 3 * WORKERS  # their ids are not read, so their records count as those of callers that left

    async def _at_rest(self, like: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the held resources once bridges have expired, connections are closed and the level of `like` is
        reached, or after 15 seconds.
        """
        deadline = time.monotonic() + 15
        while True:
            await self._proxy.hang_up()
            await asyncio.sleep(0.2)
            held = await self.held()
            rested = not (held["leases"] or held["draining"] or held["bridges"] or self._tools.open_sessions)
            if like is not None:
                rested = rested and held["descriptors"] <= like["descriptors"]
                rested = rested and not Counter(held["tasks"]) - Counter(like["tasks"])
            if rested or time.monotonic() > deadline:
                return held

    def _choose(self) -> Fault:
        return self._dice.choice(_FAULTS) if self._dice.random() < FAULTS else no_fault

    async def _keep_asking(self) -> None:
        report, dice = self._report, self._dice
        while not self._over:
            user, wire, stream = dice.randrange(USERS), dice.choice(WIRES), dice.random() < 0.6
            report.requests += 1
            if dice.random() < LEAVES:
                report.left += 1
                async with client.connected(self._port) as connection:
                    await connection.send("POST", wire.target, wire.ask(stream=stream), key=f"k-{user}")
                    await asyncio.sleep(dice.random() * 0.05)
                continue
            try:
                answer = await client.request(self._port, "POST", wire.target, wire.ask(stream=stream), key=f"k-{user}")
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                report.unexpected.append(f"no answer: {error!r}")
                continue
            report.statuses[answer.status] += 1
            if answer.status not in _EXPECTED or not answer.whole:
                report.unexpected.append(f"an answer that nobody expects: {answer}")
            elif answer.status == 200 and stream and not self._is_stream(answer.body, wire.events, user):
                report.unexpected.append(f"a stream that is none: {answer.body!r}")
            interception_id = answer.header("x-aibridge-interception-id")
            if interception_id is None:
                report.unexpected.append(f"an answer without a record: {answer}")
            else:
                report.ids.add(interception_id)

    def _is_stream(self, body: bytes, events: tuple[bytes, ...], user: int) -> bool:
        """Whether the body is a whole stream; without injected tools its events must be the upstream's own."""
        if body in NO_MESSAGES.values():  # passed on as it came
            return True
        if not body.endswith(b"\n\n"):
            return False
        return has_tools(user) or body == b"".join(events) or (body.startswith(events[0]) and b"error" in body)

    async def _keep_reloading(self) -> None:
        while not self._over:
            self._report.reloads += 1
            self.configure(self._report.reloads)
            answer = await client.request(self._port, "POST", "/ai/admin/reload", key=TOKEN)
            if answer.status != 200:
                self._report.unexpected.append(f"a reload: {answer}")
            self._tools.headers.clear()
            self._tools.methods.clear()
            await asyncio.sleep(1)

    async def _count_records(self) -> None:
        report, seen = self._report, set()
        async with client.connected(self._port) as connection:
            await connection.send("GET", "/ai/admin/interceptions/export", key=TOKEN)
            status, _ = await connection.head()
            assert status == 200
            rest = b""
            while piece := await connection.piece():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    record = json.loads(line)
                    report.records[record["status"]] += 1
                    seen.add(record["id"])
        assert not rest
        report.missing = len(report.ids - seen)
        report.beyond = len(seen - report.ids)


async def soak(seconds: float) -> Report:
    report = Report(seconds)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aibridge-soak-")))
        tools = stack.enter_context(ToolServer(handshake=True))
        model = await stack.enter_async_context(Model())
        proxy = await stack.enter_async_context(FaultProxy(model.port))
        file = directory / "aibridge.toml"
        one = Soak(proxy, tools, file, report)
        one.configure()
        environment = {
            "AIBRIDGE_CONFIG_FILE": str(file),
            "AIBRIDGE_RECORDER__URL": f"sqlite+aiosqlite:///{directory / 'records.db'}",
            "SOAK_MCP": tools.url,
        }
        options = ("--factory", "--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "1")
        server = UvicornProcess(directory, environment, *options, app="tests.e2e.chaos.soak_app:build")
        await one.run((await stack.enter_async_context(server)).port)
        report.log = server.log.read_text(errors="replace")
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    report = asyncio.run(soak(60 * parser.parse_args().minutes))
    print(report)
    findings = report.findings()
    print("\n".join(findings) or "nothing is left over")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
