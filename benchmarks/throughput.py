"""Requests per second and latency of the gateway, measured alternately with a bare relay."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from . import load
from .stage import RECORDING, RELAY, TOOLS, UPSTREAM, Actor, Stage
from .table import Table

COLUMNS = ("clients", "server", "requests/s", "of the relay", "p50 ms", "p99 ms", "CPU µs/request", "RSS MB")


@dataclass(frozen=True, slots=True)
class Round:
    """One server's figures in one round. Times are in seconds."""

    rate: float
    p50: float
    p99: float
    cpu: float


def measure(stage: Stage, *, stream: bool, clients: Sequence[int], seconds: int, rounds: int) -> Table:
    """Alternate between the servers, so that noise on the machine hits all of them."""
    rows: list[tuple[str, ...]] = []
    recorded = 0
    actors = stage.without(TOOLS)
    for actor in actors:
        load.run(actor.chat, stream=stream, clients=8, seconds=1, core=stage.load_core)
    for number in clients:
        done: dict[str, list[Round]] = {actor.name: [] for actor in actors}
        for turn in range(rounds):
            shift = turn % len(actors)
            for actor in [*actors[shift:], *actors[:shift]]:
                outcome, one = _round(stage, actor, stream=stream, clients=number, seconds=seconds)
                done[actor.name].append(one)
                recorded += outcome.requests if actor.name == RECORDING else 0
        rows += [_row(number, actor, done[actor.name], done[RELAY]) for actor in actors]
    stage.check(recorded)
    return Table("streamed" if stream else "blocking", COLUMNS, rows)


def _round(stage: Stage, actor: Actor, *, stream: bool, clients: int, seconds: int) -> tuple[load.Outcome, Round]:
    before = actor.server.cpu_seconds
    outcome = load.run(actor.chat, stream=stream, clients=clients, seconds=seconds, core=stage.load_core)
    actor.server.settle()
    cpu = (actor.server.cpu_seconds - before) / outcome.requests
    return outcome, Round(outcome.rate, outcome.p50, outcome.p99, cpu)


def _row(clients: int, actor: Actor, rounds: Sequence[Round], relay: Sequence[Round]) -> tuple[str, ...]:
    ratios = [one.rate / yardstick.rate for one, yardstick in zip(rounds, relay, strict=True)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return (
        str(clients),
        actor.name,
        f"{statistics.median(one.rate for one in rounds):,.0f}",
        {RELAY: "1", UPSTREAM: "-"}.get(actor.name, ratio),
        f"{statistics.median(one.p50 for one in rounds) * 1e3:.2f}",
        f"{statistics.median(one.p99 for one in rounds) * 1e3:.2f}",
        f"{statistics.median(one.cpu for one in rounds) * 1e6:.0f}",
        f"{actor.server.rss / 1e6:.0f}",
    )
