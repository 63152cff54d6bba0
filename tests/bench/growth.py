# SPDX-License-Identifier: Apache-2.0
"""How cost grows: with closes a second, sockets held, namespaces, and distinct peers.

    python -m tests.bench.growth [--only NAME] [--docs]

Prints one JSON object per curve; --docs writes plots and tables into docs/overhead.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tests.bench import load, meters, overhead
from tests.bench.census import crowd, milliseconds
from tests.bench.contenders import FOURWAVE, Contender, running
from tests.truth.netns import namespace
from tracer.detectors.close_rates import CloseRates
from tracer.kernel.census import CensusSource
from tracer.tcp import ConnFlag, TcpState
from tracer.wire import CLOSE_DTYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.classify_graceful import Reasons
    from tracer.wire import Records

RATES: Final = (100, 1_000, 3_000, 10_000, 0)  # connections a second; 0: as many as go
RATE_SECONDS: Final = 3.0
TIME_WAIT: Final = (1_000, 10_000, 50_000, 100_000, 200_000)
HELD: Final = (500, 2_500, 10_000, 25_000)  # connections, both ends on this host
NAMESPACES: Final = (1, 10, 50, 100, 200)
PEERS: Final = (1, 10, 100, 1_000, 10_000, 100_000)
BATCH: Final = 2_000
CLOSES_PER_PEERS: Final = 60_000
REPEATS: Final = 5

Curve = list[tuple[float, float]]
Curves = dict[str, Curve]


def by_rate() -> Curves:
    """Return the processor time of `watch --summary`, of one processor and per close."""
    summary = Contender("summary", (*FOURWAVE, "watch", "--summary"), ours=True)
    percent: Curve = []
    per_close: Curve = []
    with tempfile.TemporaryDirectory(prefix="fourwave-growth-") as scratch:
        for rate in RATES:
            with running(summary, Path(scratch)) as process:
                before, began = meters.cpu_time(process.pids), time.monotonic()
                made = load.run(f"--seconds={RATE_SECONDS}", f"--rate={rate}")
                spent = meters.cpu_time(process.pids) - before
                seconds = time.monotonic() - began
            closes = 2 * made["connections"]
            percent.append((closes / made["seconds"], 100 * spent.total_seconds / seconds))
            per_close.append((closes / made["seconds"], 1e6 * spent.total_seconds / closes))
    return {"% of one CPU": percent, "µs per close": per_close}


def by_sockets() -> Curves:
    """Return milliseconds of a census over sockets in TIME_WAIT, and of one with owners."""
    with CensusSource(CensusSource.load()) as source:
        waiting = [(float(count), _over_time_wait(source, count)) for count in TIME_WAIT]
        held = [(2.0 * count, _over_held(source, count)) for count in HELD]
    return {"in TIME_WAIT": waiting, "held, with owners": held}


def _over_time_wait(source: CensusSource, count: int) -> float:
    with namespace("growth") as ns:
        load.fill_time_wait(ns, count)
        return _median_ms(lambda: source.take({ns.inum}, owners=False))


def _over_held(source: CensusSource, connections: int) -> float:
    with namespace("growth") as ns:
        ns.sysctl("ipv4/ip_local_port_range", "1024 65000")
        with crowd(ns, connections):
            return _median_ms(lambda: source.take({ns.inum}, owners=True, users=True))


def _median_ms(work: Callable[[], object]) -> float:
    work()
    return statistics.median(milliseconds(work) for _ in range(REPEATS))


def by_namespaces() -> Curves:
    """Return milliseconds of a census over so many namespaces with a listener each."""
    curve: Curve = []
    with CensusSource(CensusSource.load()) as source, ExitStack() as stack:
        inums: set[int] = set()
        for count in NAMESPACES:
            while len(inums) < count:
                ns = stack.enter_context(namespace("growth"))
                listener = stack.enter_context(ns.socket())
                listener.bind(("127.0.0.1", 9))
                listener.listen()
                inums.add(ns.inum)
            census = partial(source.take, set(inums), owners=True)
            curve.append((float(count), _median_ms(census)))
    return {"a census of all of them": curve}


def by_peers() -> Curves:
    """Return what `top` spends per close and keeps, by how many peers there are."""
    per_close: Curve = []
    kept_mb: Curve = []
    for peers in PEERS:
        batches = [_closes_with(peers, seed) for seed in range(CLOSES_PER_PEERS // BATCH)]
        reasons = np.zeros(BATCH, np.uint8)
        rates = CloseRates()
        began_ns = time.process_time_ns()
        for batch in batches:
            rates.add(batch, reasons)
        spent_us = (time.process_time_ns() - began_ns) / 1e3
        per_close.append((float(peers), spent_us / CLOSES_PER_PEERS))
        kept_mb.append((float(peers), _kept_mb(batches, reasons)))
    return {"µs per close": per_close, "MB kept": kept_mb}


def _kept_mb(batches: list[Records], reasons: Reasons) -> float:
    tracemalloc.start()
    rates = CloseRates()
    for batch in batches:
        rates.add(batch, reasons)
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return kept_bytes / 1e6


def _closes_with(peers: int, seed: int) -> Records:
    closes = np.zeros(BATCH, CLOSE_DTYPE)
    closes["type"], closes["family"] = 1, 2
    closes["old_state"] = TcpState.LAST_ACK
    closes["flags"] = int(ConnFlag.OPENED_ACTIVE)
    closes["rport"] = 443
    peer = np.random.default_rng(seed).integers(0, peers, BATCH).astype(">u4")
    closes["daddr"][:, :4] = peer.view(np.uint8).reshape(BATCH, 4)
    return closes


CURVES: Final[dict[str, tuple[Callable[[], Curves], str, tuple[str, str]]]] = {
    "rate": (by_rate, "CPU of watch --summary by closes a second", ("closes/s", "%, µs")),
    "sockets": (by_sockets, "Time of a census by sockets", ("sockets", "ms")),
    "namespaces": (by_namespaces, "Time of a census by namespaces", ("namespaces", "ms")),
    "peers": (by_peers, "What top spends and keeps by distinct peers", ("peers", "µs, MB")),
}


def rows(axis: str, curves: Curves) -> list[list[str]]:
    """Return a table: one row per point, one curve below the other."""
    body = [
        [name, f"{at:,.0f}", f"{value:,.2f}"]
        for name, points in curves.items()
        for at, value in points
    ]
    return [["", axis, "measured"], *body]


def main() -> int:
    """Measure all or one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(CURVES), action="append")
    parser.add_argument("--docs", action="store_true", help="write docs/overhead.md too")
    arguments = parser.parse_args()
    load.build()
    for name in arguments.only or CURVES:
        work, title, axes = CURVES[name]
        curves = work()
        print(json.dumps({name: curves}), flush=True)
        if arguments.docs:
            overhead.write_curves(name, title, axes, curves, rows(axes[0], curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
