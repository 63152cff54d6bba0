# SPDX-License-Identifier: Apache-2.0
"""What is measured of a contender: block by block under load, and once each what disturbs."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.bench import load, meters, pairs, report, sampling
from tests.bench.contenders import Contender, NotHere, Running, running

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SETTLE_SECONDS: Final = 0.3  # a namespace that ended is torn down behind our back
DRAIN_SECONDS: Final = 0.3  # a contender reads what is left
SOCKETS_PER_CONNECTION: Final = 2
TRACED_LOADS: Final = 2  # per block
ROUND_TRIPS: Final = ("--connections=4", "--threads=2", "--request=64", "--response=64")


@dataclass(slots=True)
class Figures:
    """Everything measured of one contender; one list item per block."""

    kept: list[float] = field(default_factory=list)  # connections/s, traced / untraced
    round_trip_p50: list[float] = field(default_factory=list)  # traced / untraced
    round_trip_p99: list[float] = field(default_factory=list)
    user_us_per_close: list[float] = field(default_factory=list)
    system_us_per_close: list[float] = field(default_factory=list)
    ready_seconds: list[float] = field(default_factory=list)
    memory_kb: list[dict[str, int]] = field(default_factory=list)
    closes_made: list[int] = field(default_factory=list)
    closes_written: list[int | None] = field(default_factory=list)
    accounts: list[dict[str, int]] = field(default_factory=list)
    bpf: list[meters.ProgramRuns] = field(default_factory=list)
    bpf_closes: int = 0  # closes during the run with statistics
    shares: sampling.Shares | None = None
    not_here: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for."""

    blocks: int
    load: tuple[str, ...]
    round_trips: int  # per connection; 0: none
    starts: int
    volume: int  # connections of the long run; 0: none
    scratch: Path


@dataclass(slots=True)
class Side:
    """One side of a block: rates of its two loads, and its round trips."""

    rates: list[float] = field(default_factory=list)
    connections: int = 0
    trips: dict[str, float] | None = None

    def load(self, plan: Plan) -> None:
        """Run the load once more."""
        time.sleep(SETTLE_SECONDS)
        made = load.run(*plan.load)
        self.rates.append(made["connections_per_second"])
        self.connections += made["connections"]

    def travel(self, plan: Plan) -> None:
        """Run the round trips over long connections."""
        if plan.round_trips:
            made = load.run(*ROUND_TRIPS, f"--requests={plan.round_trips}")
            self.trips = made["round_trip_us"]


def measure_block(plan: Plan, contender: Contender, figures: Figures) -> None:
    """Untraced, traced, traced, untraced; raises NotHere."""
    untraced, traced = Side(), Side()
    untraced.load(plan)
    untraced.travel(plan)
    with running(contender, plan.scratch) as process:
        figures.ready_seconds.append(process.ready_seconds)
        note_cost(plan, process, traced, figures)
        traced.travel(plan)
    untraced.load(plan)
    figures.kept.append(pairs.ratio(untraced.rates, traced.rates))
    figures.closes_made.append(traced.connections * SOCKETS_PER_CONNECTION)
    figures.closes_written.append(process.closes_written())
    figures.accounts.append(process.accounts())
    if untraced.trips and traced.trips:
        figures.round_trip_p50.append(traced.trips["p50"] / untraced.trips["p50"])
        figures.round_trip_p99.append(traced.trips["p99"] / untraced.trips["p99"])


def note_cost(
    plan: Plan, process: Running, traced: Side, figures: Figures, loads: int = TRACED_LOADS
) -> None:
    """Run the traced loads and note what the contender itself spends on them."""
    time.sleep(SETTLE_SECONDS)
    before = meters.cpu_time(process.pids)
    for _ in range(loads):
        traced.load(plan)
    time.sleep(DRAIN_SECONDS)
    spent = meters.cpu_time(process.pids) - before
    closes = traced.connections * SOCKETS_PER_CONNECTION
    figures.user_us_per_close.append(spent.user_seconds / closes * 1e6)
    figures.system_us_per_close.append(spent.system_seconds / closes * 1e6)
    figures.memory_kb.append(meters.memory_kb(process.pids))


def measure_blocks(plan: Plan, contenders: Sequence[Contender], table: dict[str, Figures]) -> None:
    """Take all contenders in turn, as often as wanted."""
    for number in range(plan.blocks):
        for contender in contenders:
            figures = table[contender.name]
            if figures.not_here:
                continue
            report.progress(f"block {number + 1} of {plan.blocks}: {contender.name}")
            try:
                measure_block(plan, contender, figures)
            except NotHere as reason:
                figures.not_here = str(reason)


def measure_bpf(plan: Plan, contender: Contender, figures: Figures) -> None:
    """Run the load once more with the kernel's BPF statistics on: they cost time themselves."""
    report.progress(f"time in BPF: {contender.name}")
    with running(contender, plan.scratch) as process, meters.bpf_statistics():
        programs = sorted(meters.program_ids(process.pids))
        before = [meters.program_runs(number) for number in programs]
        figures.bpf_closes = load.run(*plan.load)["connections"] * SOCKETS_PER_CONNECTION
        after = [meters.program_runs(number) for number in programs]
    figures.bpf = [later - earlier for later, earlier in zip(after, before, strict=True)]


def measure_shares(plan: Plan, contender: Contender, figures: Figures) -> None:
    """Run the load once more with samples taken of all processors."""
    report.progress(f"samples: {contender.name}")
    file = plan.scratch / "perf.data"
    with running(contender, plan.scratch) as process:
        time.sleep(SETTLE_SECONDS)
        pids = process.pids
        with sampling.samples(file):
            load.run(*plan.load)
            load.run(*plan.load)
    figures.shares = sampling.shares(file, pids)
    file.unlink()


def measure_starts(plan: Plan, contender: Contender, figures: Figures) -> None:
    """Start it a few more times, only to see how soon it is attached."""
    report.progress(f"starts: {contender.name}")
    for _ in range(plan.starts):
        with running(contender, plan.scratch) as process:
            figures.ready_seconds.append(process.ready_seconds)


def measure_volume(plan: Plan, contender: Contender, figures: Figures) -> dict[str, Any]:
    """Make many closes and return what the tracer says of them: nothing may be lost."""
    report.progress(f"{plan.volume} connections: {contender.name}")
    options = [option for option in plan.load if not option.startswith("--seconds")]
    many = Plan(1, (*options, f"--connections={plan.volume}"), 0, 0, 0, plan.scratch)
    volume, traced = Figures(), Side()
    with running(contender, plan.scratch) as process:
        note_cost(many, process, traced, volume, loads=1)
    figures.memory_kb += volume.memory_kb
    return {
        "closes_made": traced.connections * SOCKETS_PER_CONNECTION,
        "connections_per_second": statistics.mean(traced.rates),
        "user_us_per_close": volume.user_us_per_close[0],
        "system_us_per_close": volume.system_us_per_close[0],
        "accounts": process.accounts(),
    }


def measure(plan: Plan, contenders: Sequence[Contender]) -> dict[str, Any]:
    """Do all of it and return what was measured, ready for JSON."""
    table = {contender.name: Figures() for contender in contenders}
    measure_blocks(plan, contenders, table)
    volume = None
    for contender in contenders:
        figures = table[contender.name]
        if figures.not_here:
            continue
        measure_bpf(plan, contender, figures)
        if sampling.available():
            measure_shares(plan, contender, figures)
        if contender.ours:
            measure_starts(plan, contender, figures)
        if plan.volume and volume is None and contender.ours:
            volume = measure_volume(plan, contender, figures)
    return {
        "load": list(plan.load),
        "blocks": plan.blocks,
        "contenders": {name: _plain(figures) for name, figures in table.items()},
        "volume": volume,
    }


def _plain(figures: Figures) -> dict[str, Any]:
    shares = figures.shares
    return {
        **asdict(figures),
        "kept_interval": pairs.interval(figures.kept) if figures.kept else None,
        "kept_predicted": shares.predicted_kept if shares else None,
        "ours": figures.accounts != [] and bool(figures.accounts[0]),
    }
