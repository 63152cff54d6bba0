# SPDX-License-Identifier: Apache-2.0
"""Measure what tracing costs: untraced and traced in turn, in one run, as ratios.

Untraced runs alternate with traced ones, and a ratio is taken against the two untraced
runs around it: a machine that gets slower or faster meanwhile does not show in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.bench import load, meters, report
from tests.bench.contenders import CONTENDERS, Contender, NotHere, Running, running

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTLE_SECONDS: Final = 0.5  # a namespace that ended is torn down behind our back
DRAIN_SECONDS: Final = 0.3  # a contender reads what is left
SOCKETS_PER_CONNECTION: Final = 2
ROUND_TRIPS: Final = ("--connections=4", "--threads=2", "--request=64", "--response=64")


@dataclass(slots=True)
class Figures:
    """Everything measured of one contender; one list item per round."""

    kept: list[float] = field(default_factory=list)  # connections/s, traced / untraced
    round_trip_p50: list[float] = field(default_factory=list)  # traced / untraced
    round_trip_p99: list[float] = field(default_factory=list)
    user_us_per_close: list[float] = field(default_factory=list)
    cpu_us_per_close: list[float] = field(default_factory=list)
    ready_seconds: list[float] = field(default_factory=list)
    memory_kb: list[dict[str, int]] = field(default_factory=list)
    closes_made: list[int] = field(default_factory=list)
    closes_written: list[int | None] = field(default_factory=list)
    accounts: list[dict[str, int]] = field(default_factory=list)
    bpf: list[meters.ProgramRuns] = field(default_factory=list)
    bpf_closes: int = 0  # closes during the run with statistics
    not_here: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for."""

    rounds: int
    load: tuple[str, ...]
    round_trips: int  # per connection; 0: none
    starts: int
    volume: int  # connections of the long run; 0: none
    scratch: Path


def measure_load(plan: Plan) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Run the load, then the round trips."""
    time.sleep(SETTLE_SECONDS)
    made = load.run(*plan.load)
    trips = None
    if plan.round_trips:
        trips = load.run(*ROUND_TRIPS, f"--requests={plan.round_trips}")["round_trip_us"]
    return made, trips


def measure_traced(
    plan: Plan, contender: Contender, figures: Figures
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Run the load under a contender and note its own cost; raises NotHere."""
    with running(contender, plan.scratch) as process:
        figures.ready_seconds.append(process.ready_seconds)
        time.sleep(SETTLE_SECONDS)
        before = meters.cpu_time(process.pid)
        made = load.run(*plan.load)
        time.sleep(DRAIN_SECONDS)
        spent = meters.cpu_time(process.pid) - before
        closes = made["connections"] * SOCKETS_PER_CONNECTION
        figures.user_us_per_close.append(spent.user_seconds / closes * 1e6)
        figures.cpu_us_per_close.append(spent.total_seconds / closes * 1e6)
        figures.memory_kb.append(meters.memory_kb(process.pid))
        trips = None
        if plan.round_trips:
            trips = load.run(*ROUND_TRIPS, f"--requests={plan.round_trips}")["round_trip_us"]
    note_output(process, figures, closes)
    return made, trips


def note_output(process: Running, figures: Figures, closes: int) -> None:
    """Note what the contender says it saw."""
    figures.closes_made.append(closes)
    figures.closes_written.append(process.closes_written())
    figures.accounts.append(process.accounts())


def compare_rounds(plan: Plan, contenders: Sequence[Contender], table: dict[str, Figures]) -> None:
    """Alternate untraced and traced runs, all contenders in each round."""
    before = measure_load(plan)
    for number in range(plan.rounds):
        for contender in contenders:
            figures = table[contender.name]
            if figures.not_here:
                continue
            report.progress(f"round {number + 1} of {plan.rounds}: {contender.name}")
            try:
                traced = measure_traced(plan, contender, figures)
            except NotHere as reason:
                figures.not_here = str(reason)
                continue
            after = measure_load(plan)
            note_ratios(figures, traced, (before, after))
            before = after


def note_ratios(
    figures: Figures,
    traced: tuple[dict[str, Any], dict[str, Any] | None],
    untraced: Sequence[tuple[dict[str, Any], dict[str, Any] | None]],
) -> None:
    """Append traced / untraced, against the mean of the runs around."""
    rate = statistics.mean(made["connections_per_second"] for made, _ in untraced)
    figures.kept.append(traced[0]["connections_per_second"] / rate)
    for name, ratios in (("p50", figures.round_trip_p50), ("p99", figures.round_trip_p99)):
        around = [trips[name] for _, trips in untraced if trips]
        if traced[1] and around:
            ratios.append(traced[1][name] / statistics.mean(around))


def measure_bpf(plan: Plan, contender: Contender, figures: Figures) -> None:
    """Run the load once more with the kernel's BPF statistics on: they cost time themselves."""
    report.progress(f"time in BPF: {contender.name}")
    with running(contender, plan.scratch) as process, meters.bpf_statistics():
        programs = sorted(meters.program_ids(process.pid))
        before = [meters.program_runs(number) for number in programs]
        figures.bpf_closes = load.run(*plan.load)["connections"] * SOCKETS_PER_CONNECTION
        after = [meters.program_runs(number) for number in programs]
    figures.bpf = [later - earlier for later, earlier in zip(after, before, strict=True)]


def measure_starts(plan: Plan, contender: Contender, figures: Figures) -> None:
    """Start it a few more times, only to see how soon it is attached."""
    report.progress(f"starts: {contender.name}")
    for _ in range(plan.starts):
        with running(contender, plan.scratch) as process:
            figures.ready_seconds.append(process.ready_seconds)


def measure_volume(plan: Plan, contender: Contender, figures: Figures) -> dict[str, Any]:
    """Make many closes and return what the tracer says of them: nothing may be lost."""
    report.progress(f"{plan.volume} connections: {contender.name}")
    volume = Figures()
    options = [option for option in plan.load if not option.startswith("--seconds")]
    many = Plan(1, (*options, f"--connections={plan.volume}"), 0, 0, 0, plan.scratch)
    made, _ = measure_traced(many, contender, volume)
    figures.memory_kb += volume.memory_kb
    return {
        "closes_made": volume.closes_made[0],
        "connections_per_second": made["connections_per_second"],
        "user_us_per_close": volume.user_us_per_close[0],
        "cpu_us_per_close": volume.cpu_us_per_close[0],
        "accounts": volume.accounts[0],
    }


def measure(plan: Plan, contenders: Sequence[Contender]) -> dict[str, Any]:
    """Do all of it and return what was measured."""
    table = {contender.name: Figures() for contender in contenders}
    compare_rounds(plan, contenders, table)
    volume = None
    for contender in contenders:
        figures = table[contender.name]
        if figures.not_here:
            continue
        measure_bpf(plan, contender, figures)
        if contender.ours:
            measure_starts(plan, contender, figures)
        if plan.volume and volume is None and contender.ours:
            volume = measure_volume(plan, contender, figures)
    return {
        "machine": machine(),
        "load": list(plan.load),
        "rounds": plan.rounds,
        "contenders": {name: asdict(figures) for name, figures in table.items()},
        "volume": volume,
    }


def machine() -> dict[str, Any]:
    """Name what the figures hold for."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processors": os.cpu_count(),
        "model": models[0] if models else None,
        "python": platform.python_version(),
    }


def parse_arguments() -> argparse.Namespace:
    """Define and read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="per contender (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="per run (%(default)s)")
    parser.add_argument("--order", default="client", help="who closes first; see closes.c")
    parser.add_argument("--threads", type=int, default=2, help="pairs of threads (%(default)s)")
    parser.add_argument("--request", type=int, default=0, help="bytes per connection (%(default)s)")
    parser.add_argument(
        "--round-trips", type=int, default=20000, help="per long connection (%(default)s)"
    )
    parser.add_argument("--starts", type=int, default=5, help="of each fourwave (%(default)s)")
    parser.add_argument(
        "--volume", type=int, default=500000, help="connections of the long run (%(default)s)"
    )
    parser.add_argument("--only", action="append", help="contenders whose name contains this")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="(%(default)s)")
    return parser.parse_args()


def main() -> int:
    """Measure, write the JSON file, print the table."""
    arguments = parse_arguments()
    if os.geteuid():
        sys.exit("tests/bench/run.py: needs root: it makes network namespaces and loads BPF")
    wanted = arguments.only or [""]
    contenders = [one for one in CONTENDERS if any(word in one.name for word in wanted)]
    options = (
        f"--seconds={arguments.seconds}",
        f"--order={arguments.order}",
        f"--threads={arguments.threads}",
        f"--request={arguments.request}",
    )
    load.build()
    with tempfile.TemporaryDirectory(prefix="fourwave-bench-") as scratch:
        plan = Plan(
            rounds=arguments.rounds,
            load=options,
            round_trips=arguments.round_trips,
            starts=arguments.starts,
            volume=arguments.volume,
            scratch=Path(scratch),
        )
        results = measure(plan, contenders)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
