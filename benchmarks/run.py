"""Runs the benchmarks, prints their tables and, with `--write`, puts them into `docs/performance.md`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from . import (
    budgets,
    burst,
    events,
    fairness,
    imports,
    in_process,
    load,
    machine,
    memory,
    plot,
    pool_hits,
    shared,
    throughput,
    workers,
)
from .server import ServerError
from .stage import StageError, set_stage
from .table import Table

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PICTURE = PAGE.with_name("performance.svg")
ON_STAGE = ("blocking", "streamed", "events", "memory", "burst", "fairness")
ALONE = ("budgets", "pool_hits", "in_process", "imports", "workers", "shared")
ONCE = ("memory", "burst", "fairness")
"""Measured in a single round, whatever `--rounds` says."""
BUSY = 0.1
"""The share of a core used by other processes above which a warning is printed."""


def main() -> int:
    """Run the command. Returns 1 if something is missing or a server did not respond as expected."""
    options = _options()
    try:
        conditions = machine.description()
        print(f"{conditions}\n", flush=True)
        if (busy := machine.load_by_others(machine.cores())) > BUSY:
            print(f"warning: something else takes {busy:.0%} of a core; trust CPU time before rates\n", file=sys.stderr)
        tables = []
        for table in _tables(options):
            print(f"{table.name}\n\n{table.markdown()}\n", flush=True)
            tables.append(table)
    except (load.LoadError, machine.MachineError, ServerError, StageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.write:
        for table in tables:
            length = f" of {options.seconds} s" if table.name in (*ON_STAGE, "budgets", "workers", "shared") else ""
            rounds = "one round" if table.name in ONCE else f"medians of {options.rounds} rounds{length}"
            note = f"{conditions}; {rounds}."
            Table(table.name, table.columns, table.rows, note).write(PAGE)
        if drawn := [table for table in tables if table.name in ("blocking", "streamed")]:
            plot.draw(drawn, PICTURE)
    return 0


def _tables(options: argparse.Namespace) -> Iterator[Table]:
    cores = machine.cores()
    if set(options.only) & set(ON_STAGE):
        load.require_wrk()
        with set_stage(cores, options.recorder) as stage:
            timing = {"seconds": options.seconds, "rounds": options.rounds}
            if "blocking" in options.only:
                yield throughput.measure(stage, stream=False, clients=options.clients, **timing)
            if "streamed" in options.only:
                yield throughput.measure(stage, stream=True, clients=options.clients, **timing)
            if "events" in options.only:
                yield events.measure(stage, streams=32, **timing)
            if "memory" in options.only:
                yield memory.measure(stage)
            if "burst" in options.only:
                yield burst.measure(stage, streams=2000)
            if "fairness" in options.only and "on" in options.recorder:
                yield fairness.measure(stage)
    if "imports" in options.only:
        yield imports.measure(rounds=options.rounds)
    if "shared" in options.only:
        yield shared.measure(cores, clients=(32,), seconds=options.seconds, rounds=options.rounds)
    if "workers" in options.only:
        yield workers.measure(cores, clients=32, seconds=options.seconds, rounds=options.rounds)
    if "budgets" in options.only:
        yield budgets.measure(cores, clients=32, seconds=options.seconds, rounds=options.rounds)
    if "pool_hits" in options.only:
        os.sched_setaffinity(0, {cores[0]})
        yield pool_hits.measure(rounds=options.rounds)
    if "in_process" in options.only:
        os.sched_setaffinity(0, {cores[0]})
        yield in_process.measure(cores, rounds=options.rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="how long one round lasts (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how many rounds the medians are of (default: %(default)s)"
    )
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 32], metavar="N", help="default: 1 32; try 256 too"
    )
    parser.add_argument("--only", nargs="+", choices=ON_STAGE + ALONE, default=ON_STAGE + ALONE, help="default: all")
    parser.add_argument(
        "--recorder", nargs="+", choices=("off", "on"), default=("off", "on"), help="gateways to measure; default: both"
    )
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.parent.name}/{PAGE.name}")
    return parser.parse_args()
