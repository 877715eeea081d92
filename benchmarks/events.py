"""The processor time of one stream event when events arrive one by one, as a model writes them."""

from __future__ import annotations

import statistics

from . import load
from .stage import PRINCIPAL, RELAY, UPSTREAM, Stage
from .table import Table

COLUMNS = ("streams at once", "server", "CPU µs/event", "beyond the relay", "events/s")


def measure(stage: Stage, *, streams: int, seconds: int, rounds: int) -> Table:
    """Measure streams of 50 text events, 10 ms apart.

    The cost of opening a stream is included, spread over its events.
    """
    actors = stage.without(UPSTREAM, PRINCIPAL)
    cost: dict[str, list[float]] = {actor.name: [] for actor in actors}
    rate: dict[str, list[float]] = {actor.name: [] for actor in actors}
    weight = {
        actor.name: load.weigh(actor.paced, stream=True) / load.ask(actor.paced, stream=True).count(b"\n\n")
        for actor in actors
    }
    for turn in range(rounds):
        shift = turn % len(actors)
        for actor in [*actors[shift:], *actors[:shift]]:
            before = actor.server.cpu_seconds
            outcome = load.run(actor.paced, stream=True, clients=streams, seconds=seconds, core=stage.load_core)
            actor.server.settle()
            events = outcome.bytes / weight[actor.name]
            cost[actor.name].append((actor.server.cpu_seconds - before) / events)
            rate[actor.name].append(events / outcome.seconds)
    stage.check(0)
    rows = []
    for actor in actors:
        beyond = [one - yardstick for one, yardstick in zip(cost[actor.name], cost[RELAY], strict=True)]
        rows.append(
            (
                str(streams),
                actor.name,
                f"{statistics.median(cost[actor.name]) * 1e6:.1f}",
                "-" if actor.name == RELAY else f"{statistics.median(beyond) * 1e6:.1f}",
                f"{statistics.median(rate[actor.name]):,.0f}",
            )
        )
    return Table("events", COLUMNS, rows)
