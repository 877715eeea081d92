"""Measure how long one principal's small requests take, and how much memory the gateway uses, while another principal
sends expensive requests.

    python -m tests.e2e.bounds.hostile --minutes 60
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.e2e.gateway.process import ROOT, UvicornProcess

from .attack import CHAT
from .timed import LOOP_TIME

MIB = 1024 * 1024
QUESTION = b'{"model":"gpt-5","messages":[{"role":"user","content":"Hello"}]}'
PATIENCE = 30.0
"""Seconds that a response may take."""
PAUSE = 0.005
"""Seconds between a response and the next question."""


@dataclass
class Seen:
    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    """Seconds that each question took: `alone` without the attack, `beside` during it."""
    loop_alone: list[float] = field(default_factory=list)
    loop_beside: list[float] = field(default_factory=list)
    """Seconds of the event loop's processor time between each question and its response, spent on all requests."""
    resident: int = 0
    """The most resident memory of the gateway at any time, in bytes."""
    before: int = 0
    """The gateway's resident memory before the first attack, in bytes."""
    failures: list[str] = field(default_factory=list)

    def p99(self, times: list[float]) -> float:
        return sorted(times)[int(len(times) * 0.99)] if times else 0.0

    def __str__(self) -> str:
        rows = [
            f"{name}: {len(times)} questions, p50 {sorted(times)[len(times) // 2] * 1000:.1f} ms, "
            f"p99 {self.p99(times) * 1000:.1f} ms, longest {max(times) * 1000:.1f} ms"
            for name, times in (
                ("alone", self.alone),
                ("beside the attack", self.beside),
                ("event loop, alone", self.loop_alone),
                ("event loop, beside the attack", self.loop_beside),
            )
            if times
        ]
        memory = f"memory: {self.before / MIB:.0f} MiB before, {self.resident / MIB:.0f} MiB at most"
        return "\n".join([*rows, memory, f"failures: {self.failures[:5] or 'none'}"])


class Honest:
    """A client with one connection and one question at a time."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self) -> tuple[bytes, float]:
        """Return the response's status line, and the seconds of processor time that the event loop spent until then."""
        head = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer key-of-bob\r\n"
        self._writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(QUESTION) + QUESTION)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        lines = answer.lower().split(b"\r\n")
        headers = {name: value for name, _, value in (line.partition(b":") for line in lines)}
        await self._reader.readexactly(int(headers[b"content-length"]))
        return answer.partition(b"\r\n")[0], int(headers.get(LOOP_TIME, b"0")) / 1e6


def gateway(directory: Path, upstream: str, *, recorded: bool) -> UvicornProcess:
    environment = {
        "AIBRIDGE_PROVIDERS__OPENAI__BASE_URL": upstream,
        "AIBRIDGE_PROVIDERS__OPENAI__API_KEY": "sk-0123456789abcdef",
        "AIBRIDGE_PROVIDERS__ANTHROPIC__BASE_URL": upstream.removesuffix("/v1"),
        "AIBRIDGE_PROVIDERS__ANTHROPIC__API_KEY": "sk-ant-0123456789",
        "AIBRIDGE_CLIENT_KEYS__BOB": "key-of-bob",
        "AIBRIDGE_CLIENT_KEYS__MALLORY": "key-of-mallory",
        "AIBRIDGE_RECORDER__URL": f"sqlite+aiosqlite:///{directory}/records.db",
        "AIBRIDGE_RECORDER__ENABLED": str(recorded).lower(),
        "AIBRIDGE_MEMORY__BODIES": str(256 * MIB),
        "AIBRIDGE_SHUTDOWN_GRACE": "0.5",
    }
    return UvicornProcess(directory, environment, "--log-level", "error", app="tests.e2e.bounds.timed:app")


@asynccontextmanager
async def _upstream() -> AsyncIterator[str]:
    options = ("-m", "tests.e2e.bounds.quiet_upstream")
    process = await asyncio.create_subprocess_exec(sys.executable, *options, cwd=ROOT, stdout=PIPE)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}/v1"
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def attacked(port: int) -> AsyncIterator[None]:
    options = ("-m", "tests.e2e.bounds.attack", str(port))
    process = await asyncio.create_subprocess_exec(sys.executable, *options, cwd=ROOT, stdout=PIPE)
    try:
        assert process.stdout is not None
        await process.stdout.readline()  # it has built its requests
        await asyncio.sleep(0.5)
        yield
    finally:
        process.kill()
        await process.wait()


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def watch(seconds: float, phase: float = 5.0, *, recorded: bool = True) -> Seen:
    """Alternate phases without and with the attack, for `seconds` in all."""
    seen = Seen()
    with tempfile.TemporaryDirectory() as name:
        async with (
            _upstream() as base_url,
            gateway(Path(name), base_url, recorded=recorded) as server,
        ):
            process, port = server.process, server.port
            await _phase(port, Seen(), [], [], process.pid, 1)  # warm up
            seen.before = resident(process.pid)
            end = time.monotonic() + seconds
            told, alone, beside = time.monotonic(), 0, 0
            while time.monotonic() < end and process.returncode is None:
                if time.monotonic() > told + TOLD_AFTER:
                    ours, theirs = (seen.p99(times) * 1000 for times in (seen.alone[alone:], seen.beside[beside:]))
                    told, alone, beside = time.monotonic(), len(seen.alone), len(seen.beside)
                    print(f"{time.strftime('%H:%M')} p99 since the last line: {ours:.1f} ms alone, {theirs:.1f} beside")
                    print(seen, flush=True)
                await _phase(port, seen, seen.alone, seen.loop_alone, process.pid, phase)
                async with attacked(port):
                    await _phase(port, seen, seen.beside, seen.loop_beside, process.pid, phase)
                await asyncio.sleep(1)
            if process.returncode is not None:
                seen.failures.append(f"the gateway ended with {process.returncode}")
    return seen


async def _phase(port: int, seen: Seen, times: list[float], loop_times: list[float], pid: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            async with Honest(port) as honest, asyncio.timeout(PATIENCE + seconds):
                while time.monotonic() < end:
                    begun = time.perf_counter()
                    status, loop_time = await honest.ask()
                    times.append(time.perf_counter() - begun)
                    loop_times.append(loop_time)
                    if b" 200" not in status:
                        seen.failures.append(status.decode())
                    seen.resident = max(seen.resident, resident(pid))
                    await asyncio.sleep(PAUSE)
        except (OSError, EOFError) as error:  # includes TimeoutError
            seen.failures.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.5)


TOLD_AFTER = 300.0
"""Seconds between the progress lines of a long run."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--unrecorded", action="store_true", help="without a recorder, whose commits take their time")
    options = parser.parse_args()
    seen = asyncio.run(watch(options.minutes * 60, recorded=not options.unrecorded))
    print(seen)
    return 1 if seen.failures else 0


if __name__ == "__main__":
    sys.exit(main())
