"""Upstream, relays and gateways as processes on two cores, checked to give equal responses before they are measured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import load
from .server import Server, asgi_server
from .upstream import PACED

UPSTREAM = "upstream alone"
RELAY = "bare relay"
CLIENT = "bare relay on the gateway's client"
GATEWAY = "gateway"
RECORDING = "gateway, recording"
PRINCIPAL = "gateway, the app's own principal"
TOOLS = "gateway, a tool injected"


_ASKED_FOR_USAGE = b',"usage":null'
"""The addition to each chunk of a chat when usage is requested, as the gateway always does."""


class StageError(Exception):
    """A server does not behave as its name says, so that its figures would be meaningless."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A server and the URLs of its chat route: at full speed, and with paced events."""

    name: str
    server: Server
    chat: str
    paced: str


@dataclass(frozen=True, slots=True)
class Stage:
    actors: Sequence[Actor]
    load_core: int
    records: Path

    def without(self, *names: str) -> list[Actor]:
        """The other actors, in their order."""
        return [actor for actor in self.actors if actor.name not in names]

    def check(self, requests_recorded: int) -> None:
        """Raise an error if a server has ended, or if the records are too small for `requests_recorded` requests."""
        for actor in self.actors:
            actor.server.check()
        written = sum(file.stat().st_size for file in self.records.iterdir())
        if written < requests_recorded * 100:
            raise StageError(f"{RECORDING}: {requests_recorded} requests left {written} bytes of records")


@contextmanager
def set_stage(cores: tuple[int, int], recorders: Sequence[str]) -> Iterator[Stage]:
    """Start everything and yield the stage. `recorders` selects the gateways: `off`, `on` or both.

    `off` includes two more gateways that record nothing: one whose principal is the app's own dependency, and one that
    injects a tool of an MCP server.
    """
    core, load_core = cores
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aibridge-bench-")))
        records = directory / "records"
        records.mkdir()

        def start(name: str, factory: str, chat: str, paced: str, **env: str) -> Actor:
            env["BENCH_UPSTREAM"] = upstream.url
            log = directory / f"{factory.partition(':')[0]}-{name}.log"
            server = stack.enter_context(asgi_server(name, factory, core=core, log=log, env=env))
            return Actor(name, server, server.url + chat, server.url + paced)

        upstream = stack.enter_context(
            Server(UPSTREAM, "benchmarks.upstream", core=load_core, log=directory / "upstream.log")
        )
        chat, paced = "/v1/chat/completions", f"{PACED}/v1/chat/completions"
        ours = "/ai/openai/v1/chat/completions", "/ai/paced/v1/chat/completions"
        actors = [
            Actor(UPSTREAM, upstream, upstream.url + chat, upstream.url + paced),
            start(RELAY, "benchmarks.relay:build", chat, paced),
            start(CLIENT, "benchmarks.client_relay:build", chat, paced),
        ]
        if "off" in recorders:
            actors.append(start(GATEWAY, "benchmarks.gateway:build", *ours))
            actors.append(start(PRINCIPAL, "benchmarks.gateway:build", *ours, BENCH_PRINCIPAL="1"))
            log = directory / "mcp.log"
            mcp = stack.enter_context(
                asgi_server("MCP", "benchmarks.mcp_server:build", core=load_core, log=log, env={})
            )
            actors.append(start(TOOLS, "benchmarks.gateway:build", *ours, BENCH_MCP=f"{mcp.url}/mcp"))
        if "on" in recorders:
            url = f"sqlite+aiosqlite:///{records / 'records.db'}"
            actors.append(start(RECORDING, "benchmarks.gateway:build", *ours, BENCH_RECORDER=url))
        _compare(actors)
        yield Stage(actors, load_core, records)


def _compare(actors: Sequence[Actor]) -> None:
    upstream, *others = actors
    for place, stream in ("chat", False), ("chat", True), ("paced", True):
        expected = load.ask(getattr(upstream, place), stream=stream)
        for actor in others:
            actor.server.check()
            if load.ask(getattr(actor, place), stream=stream).replace(_ASKED_FOR_USAGE, b"") != expected:
                raise StageError(f"{actor.name} does not pass the upstream's answer on byte for byte")
